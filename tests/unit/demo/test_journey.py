"""Where the time of a task went, by the times it carries."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headrace.demo.errors import DemoError
from headrace.demo.journey import STAGES, journey, parse_time

SENT = datetime(2030, 1, 1, tzinfo=UTC)


def view(*milliseconds: float) -> dict[str, Any]:
    times = [(SENT + timedelta(milliseconds=at)).isoformat().replace("+00:00", "Z") for at in milliseconds]
    return {"id": 7, **dict(zip(STAGES.values(), times, strict=True))}


def test_each_stage_ends_at_its_time_and_they_add_up() -> None:
    found = journey(view(1, 3, 6, 10, 15, 21), sent=SENT, seen=SENT + timedelta(milliseconds=28))
    assert [round(seconds * 1000) for seconds in found.stages.values()] == [1, 2, 3, 4, 5, 6, 7]
    assert list(found.stages) == [*STAGES, "seen"]
    assert found.total == pytest.approx(sum(found.stages.values()))


def test_a_time_before_the_one_before_it_counts_as_nothing_and_is_not_counted_twice() -> None:
    found = journey(view(4, 3, 3, 10, 15, 14), sent=SENT, seen=SENT + timedelta(milliseconds=20))
    assert [round(seconds * 1000) for seconds in found.stages.values()] == [4, 0, 0, 6, 5, 0, 5]
    assert found.total == pytest.approx(sum(found.stages.values()))


def test_a_missing_time_is_named() -> None:
    with pytest.raises(DemoError, match="task 7 does not tell its executed_at"):
        journey(view(1, 2, 3, 4, 5, 6) | {"executed_at": None}, sent=SENT, seen=SENT)


@pytest.mark.parametrize(
    "text", ["2030-01-01T00:00:00Z", "2030-01-01T00:00:00.000000000Z", "2030-01-01T01:00:00+01:00"]
)
def test_times_are_read_as_the_gateway_writes_them(text: str) -> None:
    assert parse_time(text) == SENT
