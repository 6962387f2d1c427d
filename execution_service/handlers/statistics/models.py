"""What `calculate_statistics` takes and returns."""

from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, RootModel, WithJsonSchema, model_validator

from execution_service.handlers.absent import Absent
from execution_service.handlers.schema import HandlerModel

VALUES_MAX = 400_000
RECORDS_MAX = 100_000
COLUMNS_MAX = 100
NAME_MAX = 100
CELL_TEXT_MAX = 200
# Squares of values up to this, a million times over, stay below the largest double.
MAGNITUDE_MAX = 1e150
LISTED_MAX = 100

EXAMPLE_VALUES = [4.0, 7.5, 1.25, 7.5, 3.0, 42.0]
EXAMPLE_RECORDS: list[dict[str, str | float | None]] = [
    {"mill": "north", "flour": 4.0, "bran": 1.0},
    {"mill": "south", "flour": 7.5, "bran": 2.0},
    {"mill": "north", "flour": 5.0, "bran": None},
    {"mill": "south", "flour": 8.5, "bran": 3.0},
]

_BOUNDS: dict[str, Any] = {"minimum": -MAGNITUDE_MAX, "maximum": MAGNITUDE_MAX}
_Number = Annotated[float, Field(ge=-MAGNITUDE_MAX, le=MAGNITUDE_MAX, allow_inf_nan=False)]
_Integer = Annotated[int, Field(ge=-(10**150), le=10**150)]
# Each of these is one type list rather than an `anyOf`, for which the gateway could only say that nothing fits.
Value = Annotated[_Number | None, WithJsonSchema({"type": ["number", "null"], **_BOUNDS})]
Cell = Annotated[
    bool | _Integer | _Number | Annotated[str, Field(max_length=CELL_TEXT_MAX)] | None,
    Field(union_mode="left_to_right"),
    WithJsonSchema({"type": ["number", "string", "boolean", "null"], **_BOUNDS, "maxLength": CELL_TEXT_MAX}),
]
Name = Annotated[str, Field(min_length=1, max_length=NAME_MAX)]
Record = Annotated[dict[Name, Cell], Field(min_length=1, max_length=COLUMNS_MAX)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class StatisticsData(HandlerModel):
    # Says in the schema what the validator checks, so that a client hears of it when it submits.
    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": ["values"]}, {"required": ["records"]}],
            "dependentRequired": {"columns": ["records"], "group_by": ["records"]},
        }
    )

    values: Annotated[list[Value], Field(min_length=1, max_length=VALUES_MAX)] | Absent = Field(
        default=None,
        description="The sample, in any order. `null` is a missing value: counted, and left out of everything else.",
        examples=[EXAMPLE_VALUES],
        json_schema_extra={"contains": {"type": "number"}},
    )
    records: Annotated[list[Record], Field(min_length=1, max_length=RECORDS_MAX)] | Absent = Field(
        default=None,
        description="Or: flat objects, whose columns of numbers are described one by one. A column that is `null` or "
        "absent in a record is missing there.",
        examples=[EXAMPLE_RECORDS],
    )
    columns: (
        Annotated[list[Name], Field(min_length=1, max_length=COLUMNS_MAX, json_schema_extra={"uniqueItems": True})]
        | Absent
    ) = Field(
        default=None,
        description="Which columns of the records; without it, all that hold numbers and nothing else.",
        examples=[["flour", "bran"]],
    )
    group_by: Name | Absent = Field(
        default=None,
        description="A column whose values divide the records into groups, each described on its own. Groups times "
        "columns may be 500 at most.",
        examples=["mill"],
    )
    quantiles: list[Fraction] = Field(
        default=[0.25, 0.5, 0.75],
        max_length=LISTED_MAX,
        description="Which quantiles to calculate, from 0 to 1.",
        examples=[[0.05, 0.5, 0.95]],
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.values is None) == (self.records is None):
            raise ValueError("exactly one of `values` and `records` is needed")
        if self.records is None and (self.columns is not None or self.group_by is not None):
            raise ValueError("`columns` and `group_by` go with `records`")
        if self.columns is not None and len(set(self.columns)) < len(self.columns):
            raise ValueError("`columns` names a column twice")
        if self.values is not None and all(value is None for value in self.values):
            raise ValueError("`values` holds no number")
        return self


class Quantile(HandlerModel):
    q: float = Field(description="The fraction of the sample at or below the value.", examples=[0.5])
    value: float = Field(description="The value there.", examples=[5.75])


class Outliers(HandlerModel):
    lower_fence: float = Field(description="Q1 - 1.5·IQR.", examples=[-3.125])
    upper_fence: float = Field(description="Q3 + 1.5·IQR.", examples=[13.875])
    count: int = Field(ge=0, description="How many values lie beyond the fences.", examples=[1])
    values: list[float] = Field(max_length=LISTED_MAX, description="The first 100 of them, ascending.")


class Histogram(HandlerModel):
    edges: list[float] = Field(description="Limits of the bins, ascending: one more than there are bins.")
    counts: list[int] = Field(description="How many values fall into each bin.")


class SampleStatistics(HandlerModel):
    count: int = Field(ge=1, description="How many numbers there are.", examples=[6])
    missing: int = Field(ge=0, description="How many values are missing, and left out of all the rest.", examples=[0])
    mean: float = Field(description="The arithmetic mean, from an exactly rounded sum.", examples=[10.875])
    median: float = Field(description="The quantile 0.5.", examples=[5.75])
    modes: list[float] = Field(max_length=LISTED_MAX, description="The most frequent values.", examples=[[7.5]])
    variance: float | None = Field(description="Sample variance (n-1); null for a single value.")
    standard_deviation: float | None = Field(description="Square root of the variance.")
    min: float = Field(description="The smallest value.", examples=[1.25])
    max: float = Field(description="The largest value.", examples=[42.0])
    quantiles: list[Quantile] = Field(description="In the order in which they were asked for.")
    skewness: float | None = Field(description="Adjusted Fisher-Pearson coefficient; null where it is not defined.")
    kurtosis: float | None = Field(description="Bias-corrected excess kurtosis; null where it is not defined.")
    outliers: Outliers = Field(description="Values far from the middle half of the sample.")
    histogram: Histogram = Field(description="How the values are spread.")


class ColumnStatistics(HandlerModel):
    group: bool | int | float | str | None = Field(
        description="The group's value of `group_by`; null without it, and for the records that lack it.",
        examples=["north"],
    )
    column: str = Field(description="Name of the column.", examples=["flour"])
    records: int = Field(ge=1, description="How many records the group has.", examples=[2])
    statistics: SampleStatistics | None = Field(description="Null where the column is missing in the whole group.")


class RecordStatistics(HandlerModel):
    records: int = Field(ge=1, description="How many records there are.", examples=[4])
    groups: int = Field(ge=1, description="How many groups they fall into; 1 without `group_by`.", examples=[2])
    columns: list[ColumnStatistics] = Field(
        description="Group by group in the order in which they first occur, in each the columns in the order asked "
        "for, or in which they first occur."
    )


def _close(schema: dict[str, Any]) -> None:
    """Name the fields beside the alternatives, as JSON Schema closes an object only over those it finds there."""
    names = (*SampleStatistics.model_fields, *RecordStatistics.model_fields)
    schema.update(type="object", properties=dict.fromkeys(names, True), additionalProperties=False)


class StatisticsResult(RootModel[SampleStatistics | RecordStatistics]):
    """The description of the sample for `values`, the list of descriptions for `records`."""

    model_config = ConfigDict(strict=True, frozen=True, json_schema_extra=_close)
