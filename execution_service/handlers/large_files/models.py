"""What clients send to `large_file_processing` and what they get back."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator

from execution_service.handlers.paths import NAME_BYTES_MAX
from execution_service.handlers.schema import HandlerModel

CONTENT_CHARACTERS_MAX = 4 * 1024 * 1024
GENERATED_BYTES_MAX = 1024 * 1024 * 1024
GENERATED_ROWS_MAX = 50_000_000
GENERATED_COLUMNS_MAX = 50
COLUMNS_MAX = 1000
COLUMN_NAME_MAX = 200
ERRORS_LISTED_MAX = 100


class FileFormat(StrEnum):
    """How records are written: comma-separated values (RFC 4180), or a JSON object on each line."""

    CSV = "csv"
    JSON_LINES = "jsonl"


class Delimiter(StrEnum):
    """What stands between the values of a CSV line; `auto` takes what fits the first lines best."""

    AUTO = "auto"
    COMMA = ","
    SEMICOLON = ";"
    TAB = "\t"
    BAR = "|"


class GeneratedKind(StrEnum):
    """What a generated column holds."""

    INTEGER = "integer"
    DECIMAL = "decimal"
    WORD = "word"
    DATE = "date"
    BOOLEAN = "boolean"
    PHRASE = "phrase"


_GENERATED_COLUMNS = [kind.value for kind in GeneratedKind if kind is not GeneratedKind.PHRASE]


class GeneratedFile(HandlerModel):
    # Says in the schema what the validator checks, so that a client hears of it when it submits.
    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["rows"]}, {"required": ["bytes"]}]})

    rows: int | None = Field(
        default=None, ge=1, le=GENERATED_ROWS_MAX, description="How many rows.", examples=[100_000]
    )
    bytes: int | None = Field(
        default=None,
        ge=4096,
        le=GENERATED_BYTES_MAX,
        description="Or: as many rows as fit into this size.",
        examples=[64 * 1024 * 1024],
    )
    columns: list[Annotated[GeneratedKind, Field(strict=False)]] = Field(
        default=[GeneratedKind(kind) for kind in _GENERATED_COLUMNS],
        min_length=1,
        max_length=GENERATED_COLUMNS_MAX,
        description="What the columns hold, in their order; a `phrase` is quoted and has commas and quotes in it.",
        examples=[_GENERATED_COLUMNS],
    )
    missing: float = Field(
        default=0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="The share of values that are left empty (in JSON lines: null).",
        examples=[0.02],
    )
    seed: int = Field(default=0, ge=0, le=2**53, description="The same seed makes the same file.", examples=[7])

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if (self.rows is None) == (self.bytes is None):
            raise ValueError("exactly one of `rows` and `bytes` is needed")
        return self


_SOURCES = ("content", "generate", "path")


class LargeFileData(HandlerModel):
    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": [source]} for source in _SOURCES],
            "if": {"properties": {"format": {"const": "jsonl"}}, "required": ["format"]},
            "then": {"properties": {"delimiter": {"const": "auto"}, "header": {"const": True}}},
        }
    )

    content: str | None = Field(
        default=None,
        max_length=CONTENT_CHARACTERS_MAX,
        description="The file itself.",
        examples=["name,price\nWheel,120.50\n"],
    )
    generate: GeneratedFile | None = Field(
        default=None, description="Or: generate a file and read that.", examples=[{"rows": 100_000, "seed": 7}]
    )
    path: str | None = Field(
        default=None,
        min_length=1,
        max_length=NAME_BYTES_MAX,
        description="Or: a file below the worker's input folder (`HEADRACE_INPUT_DIR`), with `/` between the parts of "
        "its path. Only regular files are read, never through links.",
        examples=["2026/sales.csv"],
    )
    format: FileFormat = Field(
        default=FileFormat.CSV,
        strict=False,
        description="`csv`: values between delimiters, quoted as in RFC 4180; `jsonl`: a JSON object on each line.",
        examples=["csv"],
    )
    delimiter: Delimiter = Field(
        default=Delimiter.AUTO,
        strict=False,
        description="For CSV: what stands between values; `auto` takes what fits the first lines best.",
        examples=["auto"],
    )
    header: bool = Field(
        default=True, description="For CSV: whether the first line holds the names of the columns.", examples=[True]
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(getattr(self, source) is not None for source in _SOURCES) != 1:
            raise ValueError("exactly one of `content`, `generate` and `path` is needed")
        if self.format is FileFormat.JSON_LINES and (self.delimiter is not Delimiter.AUTO or not self.header):
            raise ValueError("`delimiter` and `header` concern CSV alone")
        return self


class ColumnType(StrEnum):
    """What all values of a column are by the way they are written."""

    INTEGER = "integer"
    DECIMAL = "decimal"
    BOOLEAN = "boolean"
    DATE = "date"
    TEXT = "text"
    NESTED = "nested"
    EMPTY = "empty"


class LineErrorCode(StrEnum):
    """What is wrong with a line or record that was left out."""

    LINE_TOO_LONG = "line_too_long"
    RECORD_TOO_LONG = "record_too_long"
    WRONG_COLUMN_COUNT = "wrong_column_count"
    BAD_QUOTES = "bad_quotes"
    INVALID_UTF8 = "invalid_utf8"
    NUL_CHARACTER = "nul_character"
    INVALID_JSON = "invalid_json"
    TOO_MANY_COLUMNS = "too_many_columns"
    INVALID_NAME = "invalid_name"


class KindCounts(HandlerModel):
    integer: int = Field(ge=0, description="Digits, with or without a sign.", examples=[3])
    decimal: int = Field(ge=0, description="Other numbers: with a point, an exponent or both.", examples=[0])
    boolean: int = Field(ge=0, description="`true` and `false` in any case.", examples=[0])
    date: int = Field(ge=0, description="Looks like an ISO 8601 date, alone or with a time.", examples=[0])
    text: int = Field(
        ge=0, description="Anything else; also numbers of more than 32 characters or above 1e140.", examples=[0]
    )
    nested: int = Field(ge=0, description="In JSON lines: objects and arrays.", examples=[0])


class DistinctValues(HandlerModel):
    count: int = Field(ge=0, description="How many different values there are, as they are written.", examples=[3])
    exact: bool = Field(
        description="Whether they were counted, as up to 9,999 are; more are estimated, with a standard error of 1 %.",
        examples=[True],
    )


class Lengths(HandlerModel):
    min: int = Field(ge=0, description="Characters of the shortest value.", examples=[4])
    max: int = Field(ge=0, description="Characters of the longest value.", examples=[5])


class NumberSummary(HandlerModel):
    count: int = Field(ge=1, description="How many values are numbers.", examples=[3])
    min: float = Field(description="The smallest, as a 64-bit floating point number.", examples=[4])
    max: float = Field(description="The largest.", examples=[120.5])
    mean: float = Field(description="Their arithmetic mean.", examples=[45.5])
    variance: float | None = Field(description="Sample variance (n-1); null for a single number.", examples=[4221.75])


class ColumnSummary(HandlerModel):
    name: str = Field(
        max_length=COLUMN_NAME_MAX, description="From the header or the objects, or `column_N`.", examples=["price"]
    )
    type: ColumnType = Field(description="What all its values are, `text` if they differ.", examples=["decimal"])
    present: int = Field(ge=0, description="How many rows have a value.", examples=[3])
    missing: int = Field(ge=0, description="How many have none: nothing in CSV, null or nothing in JSON.", examples=[1])
    kinds: KindCounts = Field(description="How many values are of which kind.")
    distinct: DistinctValues = Field(description="Different values.")
    lengths: Lengths | None = Field(description="Lengths of the values as they are written; null without values.")
    numbers: NumberSummary | None = Field(description="Of the values that are numbers; null if there are none.")


class LineError(HandlerModel):
    line: int = Field(ge=1, description="The line on which the record begins, counted from 1.", examples=[4])
    code: LineErrorCode = Field(description="What is wrong.", examples=["wrong_column_count"])
    message: str = Field(description="The same for people.", examples=["2 instead of 3 values"])


class LargeFileResult(HandlerModel):
    bytes: int = Field(ge=0, description="Size of the file.", examples=[73])
    lines: int = Field(ge=0, description="How many lines it has.", examples=[5])
    rows: int = Field(ge=0, description="Records that went into the summary: no header, no errors.", examples=[3])
    delimiter: Delimiter | None = Field(
        description="What stands between values; null for JSON lines and for a file without records.", examples=[","]
    )
    columns: list[ColumnSummary] = Field(max_length=COLUMNS_MAX, description="The columns in their order.")
    error_count: int = Field(ge=0, description="How many records were left out for an error.", examples=[1])
    errors: list[LineError] = Field(max_length=ERRORS_LISTED_MAX, description="The first 100 of them.")
