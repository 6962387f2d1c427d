"""What `calculate_statistics` takes, and what it refuses. Ids T.. are those of the bad inputs in docs/tasks.md."""

from typing import Any

import pytest

from execution_service.handlers.statistics.models import COLUMNS_MAX, NAME_MAX, RECORDS_MAX, VALUES_MAX
from tests.integration.handlers.conftest import Counter

pytestmark = pytest.mark.asyncio(loop_scope="session")

_TYPE = "calculate_statistics"
_ROWS = [{"g": "a", "n": 1}, {"g": "b", "n": 2}]


@pytest.mark.parametrize(
    ("data", "refusals"),
    [
        pytest.param({}, [("", "one_of")], id="T01-nothing"),
        pytest.param({"quantiles": [0.5]}, [("", "one_of")], id="T01-no-sample"),
        pytest.param({"values": None}, [("/values", "type")], id="T01-null"),
        pytest.param({"values": "1 2 3"}, [("/values", "type")], id="T01-text-for-a-list"),
        pytest.param({"records": {"a": 1}}, [("/records", "type")], id="T01-object-for-a-list"),
        pytest.param({"values": []}, [("/values", "contains"), ("/values", "minItems")], id="T06-no-values"),
        pytest.param({"values": [None]}, [("/values", "contains")], id="T01-all-values-missing"),
        pytest.param({"records": []}, [("/records", "minItems")], id="T06-no-records"),
        pytest.param({"records": [{}]}, [("/records/0", "minProperties")], id="T06-empty-record"),
        pytest.param({"values": [1], "records": _ROWS}, [("", "one_of")], id="T01-both"),
        pytest.param({"values": [1], "columns": ["n"]}, [("/records", "required")], id="T01-columns-of-values"),
        pytest.param({"values": [1], "group_by": "n"}, [("/records", "required")], id="T01-groups-of-values"),
        pytest.param({"values": [1, "2"]}, [("/values/1", "type")], id="T02-number-as-text"),
        pytest.param({"values": [1, True]}, [("/values/1", "type")], id="T02-truth-as-number"),
        pytest.param({"records": _ROWS, "group_by": 1}, [("/group_by", "type")], id="T02-name-as-number"),
        pytest.param({"values": [1], "sample": 1}, [("/sample", "unknown_field")], id="T03-unknown-field"),
        pytest.param({"values": [1, 1.1e150]}, [("/values/1", "maximum")], id="T04-above-the-bound"),
        pytest.param({"values": [1, -1.1e150]}, [("/values/1", "minimum")], id="T04-below-the-bound"),
        pytest.param({"records": [{"n": 1e308}]}, [("/records/0/n", "maximum")], id="T04-in-a-record"),
        pytest.param({"values": [1], "quantiles": [1.01]}, [("/quantiles/0", "maximum")], id="T04-quantile-above-1"),
        pytest.param({"values": [1], "quantiles": [-0.1]}, [("/quantiles/0", "minimum")], id="T04-quantile-below-0"),
        pytest.param(b'{"values": [1, 1e999]}', [("/values/1", "number_out_of_range")], id="T04-beyond-doubles"),
        pytest.param({"records": [{"x" * (NAME_MAX + 1): 1}]}, [("/records/0", "propertyNames")], id="T05-long-name"),
        pytest.param({"records": [{"n": "x" * 201}]}, [("/records/0/n", "maxLength")], id="T05-long-text"),
        pytest.param({"records": [{"n": "a\0"}]}, [("/records/0/n", "nul_character")], id="T05-nul"),
        pytest.param({"values": [0] * (VALUES_MAX + 1)}, [("/values", "maxItems")], id="T06-too-many-values"),
        pytest.param(
            {"records": [{"n": 1}] * (RECORDS_MAX + 1)}, [("/records", "maxItems")], id="T06-too-many-records"
        ),
        pytest.param(
            {"records": [{f"c{index}": 1 for index in range(COLUMNS_MAX + 1)}]},
            [("/records/0", "maxProperties")],
            id="T06-too-many-columns",
        ),
        pytest.param({"records": _ROWS, "columns": ["n", "n"]}, [("/columns", "uniqueItems")], id="T06-column-twice"),
        pytest.param({"values": [1], "quantiles": [0.5] * 101}, [("/quantiles", "maxItems")], id="T06-quantiles"),
        pytest.param({"values": [[1]]}, [("/values", "contains"), ("/values/0", "type")], id="T07-nested-list"),
        pytest.param({"records": [{"n": {"$ref": "x"}}]}, [("/records/0/n", "type")], id="T07-nested-object"),
        pytest.param({"records": [[1]]}, [("/records/0", "type")], id="T07-list-for-a-record"),
    ],
)
async def test_what_is_no_sample_is_refused_on_both_sides(
    counter: Counter, data: Any, refusals: list[tuple[str, str]]
) -> None:
    assert sorted((error.field, error.rule) for error in counter.refusals(_TYPE, data)) == refusals
    # That NUL cannot be stored is a rule of the gateway and of results: in data a worker takes it like any character.
    if refusals[0][1] != "nul_character":
        assert await counter.error_code(_TYPE, data) == "invalid_data"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param({"records": _ROWS, "columns": ["m"]}, "unknown_column", id="T01-no-such-column"),
        pytest.param({"records": _ROWS, "columns": ["g"]}, "not_numeric", id="T02-column-of-text"),
        pytest.param({"records": [{"n": True}], "columns": ["n"]}, "not_numeric", id="T02-column-of-truth"),
        pytest.param({"records": [{"n": 1}, {"n": "1"}]}, "not_numeric", id="T06-mixed-column"),
        pytest.param(
            {"records": [{"g": index, "n": 1} for index in range(501)], "columns": ["n"], "group_by": "g"},
            "cost_too_high",
            id="T08-groups-times-columns",
        ),
    ],
)
async def test_what_only_the_worker_can_see_ends_with_its_code(counter: Counter, data: Any, code: str) -> None:
    assert counter.refusals(_TYPE, data) == []
    assert await counter.error_code(_TYPE, data) == code


@pytest.mark.parametrize(
    ("values", "least", "most"),
    [
        pytest.param([2**31, 2**53 + 1, 2**63], 2**31, 2**63, id="T04-large-integers"),
        pytest.param([-0.0, 0], 0, 0, id="T04-negative-zero"),
        pytest.param([1e150, -1e150], -1e150, 1e150, id="T04-at-the-bounds"),
        pytest.param([5e-324, None], 5e-324, 5e-324, id="T04-the-smallest"),
        pytest.param([7] * 10_000, 7, 7, id="T06-duplicates"),
    ],
)
async def test_numbers_up_to_the_bounds_are_described(
    counter: Counter, values: list[float | None], least: float, most: float
) -> None:
    result = await counter.result(_TYPE, {"values": values})
    assert (result["min"], result["max"]) == (least, most)
    assert result["count"] + result["missing"] == len(values)


async def test_the_largest_samples_are_described(counter: Counter) -> None:
    """T06: as many values, and as many records, as are allowed."""
    result = await counter.result(_TYPE, {"values": [*range(VALUES_MAX)]})
    assert (result["count"], result["mean"]) == (VALUES_MAX, (VALUES_MAX - 1) / 2)
    rows = [{"g": index % 250, "a": index, "b": 0.5} for index in range(RECORDS_MAX)]
    result = await counter.result(_TYPE, {"records": rows, "group_by": "g"})
    assert (result["records"], result["groups"], len(result["columns"])) == (RECORDS_MAX, 250, 500)
    assert {entry["records"] for entry in result["columns"]} == {RECORDS_MAX // 250}


async def test_what_a_record_holds_is_never_interpreted(counter: Counter) -> None:
    """T07: names and texts that mean something elsewhere are names and texts."""
    rows = [
        {"__class__": "os.system", "$ref": "#/definitions/x", "=cmd()": 1},
        {"__class__": "!!python/object", "=cmd()": 3},
    ]
    result = await counter.result(_TYPE, {"records": rows, "group_by": "__class__"})
    assert [(entry["group"], entry["column"], entry["statistics"]["mean"]) for entry in result["columns"]] == [
        ("os.system", "=cmd()", 1),
        ("!!python/object", "=cmd()", 3),
    ]
