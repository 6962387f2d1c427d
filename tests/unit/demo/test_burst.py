"""What the demo makes of the tasks of its burst."""

from typing import Any

import pytest

from headrace.demo.burst import check_all_completed, check_counts
from headrace.demo.errors import DemoError

TEXTS = ["one two three four", "one two", "one two three four"]


def view(task_id: int, words: int, status: str = "completed") -> dict[str, Any]:
    return {
        "id": task_id,
        "status": status,
        "result": {"words": words} if status == "completed" else None,
        "accepted_at": f"2030-01-01T00:00:0{task_id}Z",
        "finished_at": f"2030-01-01T00:00:0{task_id}.500Z",
    }


def test_right_counts_are_accepted() -> None:
    check_counts(TEXTS, [view(1, 4), view(2, 2), view(3, 4)])


def test_equal_texts_must_be_counted_alike() -> None:
    with pytest.raises(DemoError, match="task 3 counted 5 words"):
        check_counts(TEXTS, [view(1, 4), view(2, 2), view(3, 5)])


def test_a_count_that_is_far_off_is_refused() -> None:
    with pytest.raises(DemoError, match="task 2 counted 40 words"):
        check_counts(TEXTS, [view(1, 4), view(2, 40), view(3, 4)])


def test_a_task_that_did_not_complete_is_named() -> None:
    with pytest.raises(DemoError, match="task 2 is queued after 20 s"):
        check_counts(TEXTS, [view(1, 4), view(2, 2, "queued"), view(3, 4)])


def test_the_time_is_from_the_first_one_accepted_to_the_last_one_finished() -> None:
    assert check_all_completed([1, 2, 3], [view(3, 4), view(2, 2), view(1, 4), view(9, 1)]) == 2.5


def test_tasks_that_are_not_listed_are_counted() -> None:
    with pytest.raises(DemoError, match="2 of 3 tasks"):
        check_all_completed([1, 2, 3], [view(1, 4)])
