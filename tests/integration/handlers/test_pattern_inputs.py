"""What `find_patterns` takes, and what it refuses. Ids T.. are those of the bad inputs in docs/tasks.md."""

import time
from typing import Any

import pytest

from execution_service.handlers.patterns.models import (
    MATCHES_MAX,
    PATTERN_CHARACTERS_MAX,
    PATTERNS_MAX,
    SERIES_MAX,
    TEXT_CHARACTERS_MAX,
    TRANSACTIONS_MAX,
)
from tests.integration.handlers.conftest import Counter

pytestmark = pytest.mark.asyncio(loop_scope="session")

_TYPE = "find_patterns"
_LINE = [float(index) for index in range(12)]


def _text(content: Any, *patterns: str) -> Any:
    return {"text": {"content": content, "patterns": [{"pattern": pattern} for pattern in patterns]}}


def _series(values: Any, **options: Any) -> Any:
    return {"series": {"values": values, **options}}


def _baskets(baskets: Any, **options: Any) -> Any:
    return {"transactions": {"baskets": baskets, **options}}


@pytest.mark.parametrize(
    ("data", "refusals"),
    [
        pytest.param({}, [("", "one_of")], id="T01-nothing"),
        pytest.param(_text("a", "b") | _series(_LINE), [("", "one_of")], id="T01-two-kinds"),
        pytest.param({"text": None}, [("/text", "type")], id="T01-null"),
        pytest.param({"text": "a"}, [("/text", "type")], id="T01-text-for-an-object"),
        pytest.param({"text": {"content": "a"}}, [("/text/patterns", "required")], id="T01-no-patterns"),
        pytest.param(_text(None, "a"), [("/text/content", "type")], id="T01-null-content"),
        pytest.param(
            {"text": {"content": "", "patterns": [{}]}}, [("/text/patterns/0/pattern", "required")], id="T01-no-pattern"
        ),
        pytest.param(_series([*_LINE, "1"]), [("/series/values/12", "type")], id="T02-number-as-text"),
        pytest.param(_series([*_LINE, True]), [("/series/values/12", "type")], id="T02-truth-as-number"),
        pytest.param(_series([*_LINE, None]), [("/series/values/12", "type")], id="T02-gap-in-a-series"),
        pytest.param(_series(_LINE, period=2.5), [("/series/period", "type")], id="T02-float-for-int"),
        pytest.param(_series(_LINE, period=None), [("/series/period", "type")], id="T02-null-period"),
        pytest.param(_baskets([[1]]), [("/transactions/baskets/0/0", "type")], id="T02-item-as-number"),
        pytest.param(
            {"text": {"content": "", "patterns": [{"pattern": "a", "ignore_case": 1}]}},
            [("/text/patterns/0/ignore_case", "type")],
            id="T02-number-for-truth",
        ),
        pytest.param(
            {"text": {"content": "", "patterns": [{"pattern": "a", "flags": "i"}]}},
            [("/text/patterns/0/flags", "unknown_field")],
            id="T03-unknown-field",
        ),
        pytest.param(_series(_LINE, period=1), [("/series/period", "minimum")], id="T04-period-below"),
        pytest.param(_series(_LINE, period=33_334), [("/series/period", "maximum")], id="T04-period-above"),
        pytest.param(_series([*_LINE, 1e151]), [("/series/values/12", "maximum")], id="T04-value-above"),
        pytest.param(
            _baskets([["a"]], min_support=0), [("/transactions/min_support", "exclusiveMinimum")], id="T04-support-0"
        ),
        pytest.param(
            _baskets([["a"]], min_support=1.1), [("/transactions/min_support", "maximum")], id="T04-support-above"
        ),
        pytest.param(
            _baskets([["a"]], min_confidence=-0.1), [("/transactions/min_confidence", "minimum")], id="T04-confidence"
        ),
        pytest.param(_baskets([["a"]], max_size=0), [("/transactions/max_size", "minimum")], id="T04-size-below"),
        pytest.param(_baskets([["a"]], max_size=7), [("/transactions/max_size", "maximum")], id="T04-size-above"),
        pytest.param(_baskets([[""]]), [("/transactions/baskets/0/0", "minLength")], id="T05-empty-item"),
        pytest.param(_baskets([["x" * 101]]), [("/transactions/baskets/0/0", "maxLength")], id="T05-long-item"),
        pytest.param(_text("a\0b", "a"), [("/text/content", "nul_character")], id="T05-nul"),
        pytest.param(_text("a"), [("/text/patterns", "minItems")], id="T06-no-patterns"),
        pytest.param(_series([]), [("/series/values", "minItems")], id="T06-no-values"),
        pytest.param(_series(_LINE[:9]), [("/series/values", "minItems")], id="T06-too-few-values"),
        pytest.param(_series([0] * (SERIES_MAX + 1)), [("/series/values", "maxItems")], id="T06-too-many-values"),
        pytest.param(_baskets([]), [("/transactions/baskets", "minItems")], id="T06-no-baskets"),
        pytest.param(_baskets([[]]), [("/transactions/baskets/0", "minItems")], id="T06-empty-basket"),
        pytest.param(
            _baskets([["a"]] * (TRANSACTIONS_MAX + 1)), [("/transactions/baskets", "maxItems")], id="T06-baskets"
        ),
        pytest.param(
            _baskets([[str(index) for index in range(1001)]]), [("/transactions/baskets/0", "maxItems")], id="T06-items"
        ),
        pytest.param(_baskets([[["a"]]]), [("/transactions/baskets/0/0", "type")], id="T07-nested-list"),
        pytest.param(_text({"__class__": "str"}, "a"), [("/text/content", "type")], id="T07-object-for-a-text"),
        pytest.param(_text("x" * 10_000_000, "a"), [("/text/content", "maxLength")], id="T20-one-line-of-10-MB"),
        pytest.param(_text("a", *["a"] * 1000), [("/text/patterns", "maxItems")], id="T21-1000-patterns"),
    ],
)
async def test_what_is_no_search_is_refused_on_both_sides(
    counter: Counter, data: Any, refusals: list[tuple[str, str]]
) -> None:
    assert [(error.field, error.rule) for error in counter.refusals(_TYPE, data)] == refusals
    # A worker takes what is null for absent, and NUL for a character: data have no such thing behind the gateway.
    if data != _series(_LINE, period=None) and refusals[0][1] != "nul_character":
        assert await counter.error_code(_TYPE, data) == "invalid_data"


@pytest.mark.parametrize(
    ("pattern", "code"),
    [
        pytest.param("(", "invalid_pattern", id="T15-open-group"),
        pytest.param("*a", "invalid_pattern", id="T15-nothing-to-repeat"),
        pytest.param("[z-a]", "invalid_pattern", id="T15-falling-range"),
        pytest.param("(?P<1>)", "invalid_pattern", id="T15-number-for-a-name"),
        pytest.param("a{1,100000}{1,100000}", "pattern_too_large", id="T17-repetitions"),
        pytest.param("(a)" * 1000, "pattern_too_large", id="T17-1000-groups"),
        pytest.param("(?:a{0,1000}b){1,1000}", "pattern_too_large", id="T17-nested"),
        pytest.param("(?<=a)b", "unsupported_pattern", id="T18-look-behind"),
        pytest.param("a(?!b)", "unsupported_pattern", id="T18-look-ahead"),
        pytest.param(r"(a)\1", "unsupported_pattern", id="T18-back-reference"),
        pytest.param("(?x)a b", "unsupported_pattern", id="T18-verbose-flag"),
        pytest.param(r"\p{Klingon}", "invalid_pattern", id="T18-unknown-class"),
    ],
)
async def test_a_wrong_pattern_is_refused_on_both_sides_with_its_code(
    counter: Counter, pattern: str, code: str
) -> None:
    data = _text("some text", "text", pattern)
    (refusal,) = counter.refusals(_TYPE, data)
    assert (refusal.field, refusal.rule) == ("/text/patterns/1/pattern", code)
    assert await counter.error_code(_TYPE, data) == code


@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param("x" * 65_536, id="T17-64-KB"),
        pytest.param("|".join(f"w{index}" for index in range(10_000)), id="T17-10000-alternatives"),
    ],
)
async def test_a_pattern_beyond_its_length_is_refused_unread(counter: Counter, pattern: str) -> None:
    rules = {error.rule for error in counter.refusals(_TYPE, _text("", pattern))}
    assert rules == {"maxLength", "pattern_too_large"}
    assert await counter.error_code(_TYPE, _text("", pattern)) == "invalid_data"
    assert counter.refusals(_TYPE, _text("", "x" * PATTERN_CHARACTERS_MAX)) == []


@pytest.mark.alone
@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "(.*a){20}", r"^(\d+)*$", "((a*)*)*b", "(?:a?){500}a{500}"])
@pytest.mark.parametrize(
    "content", ["a" * 50 + "!", "a" * 65_536 + "!", "7" * 65_536 + "!"], ids=["50", "64K", "digits"]
)
async def test_hostile_patterns_take_linear_time(counter: Counter, pattern: str, content: str) -> None:
    """T16."""
    started = time.monotonic()
    result = await counter.result(_TYPE, _text(content, pattern))
    assert time.monotonic() - started < 2
    assert result["text"]["truncated"] is False


@pytest.mark.parametrize("pattern", ["", ".", "x*?", r"\b|x"])
async def test_what_matches_everywhere_is_capped(counter: Counter, pattern: str) -> None:
    """T19."""
    result = (await counter.result(_TYPE, _text("x" * 30_000 + " x" * 10_000, pattern)))["text"]
    assert (result["count"], result["truncated"]) == (MATCHES_MAX, True)


@pytest.mark.parametrize(
    ("content", "count"),
    [
        pytest.param("", 0, id="T20-empty"),
        pytest.param("é" * TEXT_CHARACTERS_MAX, 1, id="T20-longest"),
        pytest.param("one\r\ntwo\rthree\nfour\u2028five", 5, id="T20-mixed-line-ends"),
        # A to Z, a to z, ª, µ, º, and three runs of letters with accents.
        pytest.param("".join(map(chr, range(1, 256))), 8, id="T20-binary"),
        pytest.param("\u202eمرحبا\u202c e\u0301 🇩🇪", 2, id="T05-right-to-left-marks-and-flags"),
    ],
)
async def test_unusual_texts_are_texts(counter: Counter, content: str, count: int) -> None:
    result = (await counter.result(_TYPE, _text(content, r"\pL+")))["text"]
    assert result["count"] == count
    for match in result["patterns"][0]["matches"]:
        assert content[match["start"] : match["end"]].startswith(match["text"])


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(_series(_LINE, period=5), "too_short", id="T04-fewer-than-three-periods"),
        pytest.param(
            _text("a" * 1_000_000, *["(a|b)*a(a|b){30}"] * PATTERNS_MAX),
            "cost_too_high",
            id="T21-patterns-times-text",
        ),
        pytest.param(_text("a", r"\pL{900}"), "pattern_too_large", id="T17-compiled"),
        pytest.param(
            _baskets([[str(item) for item in range(60)]] * 100), "cost_too_high", id="T08-all-sets-are-frequent"
        ),
        pytest.param(
            _baskets([[str(index)] for index in range(TRANSACTIONS_MAX)], min_support=1e-6),
            "cost_too_high",
            id="T08-items-times-transactions",
        ),
    ],
)
async def test_what_only_the_worker_can_see_ends_with_its_code(counter: Counter, data: Any, code: str) -> None:
    assert counter.refusals(_TYPE, data) == []
    assert await counter.error_code(_TYPE, data) == code


async def test_the_largest_series_and_transactions_are_searched(counter: Counter) -> None:
    """T06: as many values, and as many transactions, as are allowed."""
    values = [float((index * 7919) % 1009) for index in range(SERIES_MAX)]
    result = (await counter.result(_TYPE, _series(values)))["series"]
    assert result["count"] == SERIES_MAX
    baskets = [[f"a{index % 7}", f"b{index % 11}", f"c{index % 13}"] for index in range(TRANSACTIONS_MAX)]
    result = (await counter.result(_TYPE, _baskets(baskets, min_support=0.01)))["transactions"]
    # Each pair of remainders of two primes is as frequent as any other.
    assert result["item_set_count"] == 7 + 11 + 13 + 7 * 11 + 7 * 13
    assert result["count"] == TRANSACTIONS_MAX


async def test_duplicates_are_one_pattern_of_the_data(counter: Counter) -> None:
    """T06: ten thousand times the same."""
    result = (await counter.result(_TYPE, _baskets([["a", "b", "a"]] * 10_000)))["transactions"]
    assert [(each["items"], each["count"]) for each in result["item_sets"]] == [
        (["a"], 10_000),
        (["b"], 10_000),
        (["a", "b"], 10_000),
    ]
    result = (await counter.result(_TYPE, _series([7] * 10_000)))["series"]
    assert (result["trend"]["direction"], result["outlier_count"], result["change_points"]) == ("none", 0, [])


async def test_items_are_never_interpreted(counter: Counter) -> None:
    """T07."""
    items = ['{"$ref": "x"}', "!!python/object", "gASVBQAAAAAAAAA="]
    result = (await counter.result(_TYPE, _baskets([items])))["transactions"]
    assert result["item_sets"][-1]["items"] == sorted(items)
