"""What `find_patterns` takes and returns."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from execution_service.handlers.absent import Absent
from execution_service.handlers.schema import HandlerModel

TEXT_CHARACTERS_MAX = 4 * 1024 * 1024
PATTERNS_MAX = 100
PATTERN_CHARACTERS_MAX = 4096
NAME_MAX = 100
MATCHES_MAX = 10_000
SHOWN_CHARACTERS_MAX = 1000

SERIES_MIN = 10
SERIES_MAX = 100_000
# A season is one when it has come back twice.
CYCLES_MIN = 3
MAGNITUDE_MAX = 1e150

TRANSACTIONS_MAX = 100_000
ITEMS_MAX = 1000
ITEM_CHARACTERS_MAX = 100
SET_SIZE_MAX = 6
LISTED_MAX = 1000

EXAMPLE_TEXT = {
    "content": "Mill 3 ground 120 kg on 2026-03-01, mill 7 ground 95 kg on 2026-03-02.",
    "patterns": [
        {"name": "weights", "pattern": r"(\d+) kg"},
        {"name": "mills", "pattern": r"mill (?P<number>\d)", "ignore_case": True},
    ],
}
# Eggs of four weeks, and of two with more hens.
EXAMPLE_SERIES = {
    "values": [
        *(
            18,
            20,
            21,
            19,
            20,
            31,
            29,
            19,
            20,
            20,
            20,
            21,
            30,
            31,
            20,
            19,
            22,
            20,
            20,
            32,
            30,
            19,
            21,
            20,
            3,
            20,
            31,
            30,
        ),
        *(29, 30, 32, 30, 31, 41, 40, 30, 31, 30, 31, 30, 42, 41),
    ]
}
EXAMPLE_TRANSACTIONS = {
    "baskets": [["flour", "yeast", "salt"], ["flour", "yeast"], ["flour", "salt"], ["bran"], ["flour", "yeast"]],
    "min_support": 0.4,
    "min_confidence": 0.7,
}

Value = Annotated[float, Field(ge=-MAGNITUDE_MAX, le=MAGNITUDE_MAX, allow_inf_nan=False)]
Item = Annotated[str, Field(min_length=1, max_length=ITEM_CHARACTERS_MAX)]


class TextPattern(HandlerModel):
    pattern: str = Field(
        max_length=PATTERN_CHARACTERS_MAX,
        description="A regular expression in the syntax of RE2: no look-around, no back-references.",
        examples=[r"(\d+) kg"],
        json_schema_extra={"format": "re2"},
    )
    name: Annotated[str, Field(max_length=NAME_MAX)] | Absent = Field(
        default=None, description="Comes back with the matches.", examples=["weights"]
    )
    ignore_case: bool = Field(default=False, description="Letters match in upper and lower case.", examples=[True])
    multiline: bool = Field(default=False, description="`^` and `$` match at every line.", examples=[True])
    dot_all: bool = Field(default=False, description="`.` matches the end of a line, too.", examples=[True])


class TextData(HandlerModel):
    content: str = Field(
        max_length=TEXT_CHARACTERS_MAX, description="The text.", examples=["Mill 3 ground 120 kg on 2026-03-01."]
    )
    patterns: list[TextPattern] = Field(
        min_length=1,
        max_length=PATTERNS_MAX,
        description="What to look for, each pattern on its own.",
        examples=[EXAMPLE_TEXT["patterns"]],
    )


class SeriesData(HandlerModel):
    values: list[Value] = Field(
        min_length=SERIES_MIN,
        max_length=SERIES_MAX,
        description="Measurements at even distances in time, in their order, without gaps.",
        examples=[EXAMPLE_SERIES["values"]],
    )
    period: Annotated[int, Field(ge=2, le=SERIES_MAX // CYCLES_MIN)] | Absent = Field(
        default=None,
        description="After how many values a season comes back, such as 7 or 12: at most a third of the series. "
        "Without it, one is looked for.",
        examples=[4],
    )


class TransactionData(HandlerModel):
    baskets: list[Annotated[list[Item], Field(min_length=1, max_length=ITEMS_MAX)]] = Field(
        min_length=1,
        max_length=TRANSACTIONS_MAX,
        description="The transactions, each a list of items. An item that occurs twice in one counts once.",
        examples=[EXAMPLE_TRANSACTIONS["baskets"]],
    )
    min_support: float = Field(
        default=0.05,
        gt=0,
        le=1,
        allow_inf_nan=False,
        description="In which part of the transactions a set of items must occur to be frequent.",
        examples=[0.4],
    )
    min_confidence: float = Field(
        default=0.5,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="How often a rule must hold where it applies.",
        examples=[0.7],
    )
    max_size: int = Field(
        default=4, ge=1, le=SET_SIZE_MAX, description="How many items a set may have at most.", examples=[3]
    )


class FindPatternsData(HandlerModel):
    # Says in the schema what the validator checks, so that a client hears of it when it submits.
    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": [kind]} for kind in ("text", "series", "transactions")]}
    )

    text: TextData | Absent = Field(
        default=None, description="Find regular expressions in a text.", examples=[EXAMPLE_TEXT]
    )
    series: SeriesData | Absent = Field(
        default=None,
        description="Or: find trend, season, outliers and changes in a series of measurements.",
        examples=[EXAMPLE_SERIES],
    )
    transactions: TransactionData | Absent = Field(
        default=None,
        description="Or: find items that occur together, and rules about them.",
        examples=[EXAMPLE_TRANSACTIONS],
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(kind is not None for kind in (self.text, self.series, self.transactions)) != 1:
            raise ValueError("exactly one of `text`, `series` and `transactions` is needed")
        return self


class TextGroup(HandlerModel):
    number: int = Field(ge=1, description="Groups are counted by their opening parentheses.", examples=[1])
    name: str | None = Field(description="The name that the pattern gives it.", examples=["number"])
    start: int | None = Field(description="Where it begins; null if it is no part of the match.", examples=[14])
    end: int | None = Field(description="Behind its last character; null if it is no part of the match.", examples=[17])
    text: str | None = Field(description="What it matched, its first 1,000 characters.", examples=["120"])


class TextMatch(HandlerModel):
    start: int = Field(ge=0, description="Where the match begins, counted in code points from 0.", examples=[14])
    end: int = Field(ge=0, description="Behind its last character.", examples=[20])
    text: str = Field(
        max_length=SHOWN_CHARACTERS_MAX, description="What matched, its first 1,000 characters.", examples=["120 kg"]
    )
    groups: list[TextGroup] = Field(description="The pattern's groups in their order.")


class PatternMatches(HandlerModel):
    name: str | None = Field(description="The pattern's name, if it was given one.", examples=["weights"])
    matches: list[TextMatch] = Field(description="In the order of the text; they do not overlap.")


class TextFindings(HandlerModel):
    patterns: list[PatternMatches] = Field(description="One entry for each pattern, in their order.")
    count: int = Field(ge=0, le=MATCHES_MAX, description="All matches that are listed.", examples=[4])
    truncated: bool = Field(
        description="Whether the search ended at 10,000 matches, or at 6 MiB of them, before the end.", examples=[False]
    )


class Trend(HandlerModel):
    direction: Literal["rising", "falling", "none"] = Field(
        description="`none` unless the p-value is below 0.05.", examples=["rising"]
    )
    slope: float = Field(description="Change from one value to the next.", examples=[0.25])
    p_value: float = Field(ge=0, le=1, description="Of the Mann-Kendall test, two-sided.", examples=[0.001])
    method: Literal["theil_sen", "theil_incomplete"] = Field(
        description="How the slope was found: from all pairs of values, or from pairs half the series apart.",
        examples=["theil_sen"],
    )


class Seasonality(HandlerModel):
    period: int = Field(ge=2, description="After how many values it comes back.", examples=[4])
    kind: Literal["additive", "multiplicative"] = Field(
        description="Whether it adds to the level or multiplies it.", examples=["additive"]
    )
    strength: float = Field(ge=0, le=1, description="Which part of the detrended variance it explains.", examples=[0.9])
    autocorrelation: float = Field(description="Of the detrended series with itself a period later.", examples=[0.7])
    pattern: list[float] = Field(
        description="What it adds, or by what it multiplies, from the first value of the series on."
    )


class SeriesOutlier(HandlerModel):
    index: int = Field(ge=0, description="Position in the series, from 0.", examples=[14])
    value: float = Field(description="The value.", examples=[30])
    expected: float = Field(description="The season and the median of the values around.", examples=[12])
    score: float = Field(description="How many robust standard deviations lie between them.", examples=[9.5])


class Segment(HandlerModel):
    start: int = Field(ge=0, description="Index of its first value.", examples=[0])
    end: int = Field(ge=1, description="Index behind its last value.", examples=[20])
    mean: float = Field(description="Mean of its values, without season and outliers.", examples=[6.5])
    slope: float = Field(description="Change from one value to the next; 0 where segments are levels.", examples=[0.25])


class SeriesFindings(HandlerModel):
    count: int = Field(ge=SERIES_MIN, description="How many values there are.", examples=[20])
    trend: Trend = Field(description="Over the whole series, without the season.")
    seasonality: Seasonality | None = Field(description="Null if no season was given or found.")
    outliers: list[SeriesOutlier] = Field(
        max_length=LISTED_MAX, description="In the order of the series, the first 1,000."
    )
    outlier_count: int = Field(ge=0, description="How many outliers there are.", examples=[1])
    change_points: list[int] = Field(description="Where a new segment begins: where the series changes.", examples=[[]])
    segments: list[Segment] = Field(min_length=1, description="What lies between the changes.")


class ItemSet(HandlerModel):
    items: list[str] = Field(description="In alphabetical order.", examples=[["flour", "yeast"]])
    count: int = Field(ge=1, description="In how many transactions all of them occur.", examples=[3])
    support: float = Field(gt=0, le=1, description="In which part of the transactions.", examples=[0.6])


class Rule(HandlerModel):
    antecedent: list[str] = Field(description="Where these items are,", examples=[["yeast"]])
    consequent: list[str] = Field(description="these are, too.", examples=[["flour"]])
    support: float = Field(gt=0, le=1, description="In which part of the transactions all of them are.", examples=[0.6])
    confidence: float = Field(gt=0, le=1, description="How often the rule holds where it applies.", examples=[1.0])
    lift: float = Field(gt=0, description="The confidence by what it were without connection.", examples=[1.25])


class TransactionFindings(HandlerModel):
    count: int = Field(ge=1, description="How many transactions there are.", examples=[5])
    item_sets: list[ItemSet] = Field(
        max_length=LISTED_MAX, description="The frequent sets, by count, size and alphabet; the first 1,000."
    )
    item_set_count: int = Field(ge=0, description="How many frequent sets there are.", examples=[5])
    rules: list[Rule] = Field(
        max_length=LISTED_MAX, description="By confidence, lift, support and alphabet; the first 1,000."
    )
    rule_count: int = Field(ge=0, description="How many rules there are.", examples=[2])
    truncated: bool = Field(description="Whether there are more sets or rules than are listed.", examples=[False])


def _is_absent(value: object) -> bool:
    return value is None


class FindPatternsResult(HandlerModel):
    """Holds what the data holds: one of the three."""

    text: TextFindings | None = Field(default=None, exclude_if=_is_absent, description="Matches of the patterns.")
    series: SeriesFindings | None = Field(default=None, exclude_if=_is_absent, description="What the series shows.")
    transactions: TransactionFindings | None = Field(
        default=None, exclude_if=_is_absent, description="Frequent sets of items, and rules."
    )
