"""What is held, what is refused, and when an attempt is let go."""

from collections.abc import Callable, Sequence
from random import Random

import hypothesis.strategies as st
from hypothesis import given

from execution_service.attempts import REFUSED_SECONDS, AttemptTable, Held, Phase
from tests.unit.execution.factories import finished, solitary, work


def table() -> AttemptTable:
    return AttemptTable(["cpu", "io"], ["word_count"])


def test_a_late_assignment_is_dropped_after_its_attempt_was_refused() -> None:
    attempts = table()
    assert attempts.answer([(1, 1)], now=0.0) == [False]
    intake = attempts.accept([(work(1, 1), 0)], now=0.0)
    assert (intake.start, len(attempts)) == ([], 0)
    assert attempts.accept([(work(1, 2), 1)], now=0.0).start, "the next attempt is another matter"


def test_refusals_are_forgotten_after_a_minute() -> None:
    attempts = table()
    attempts.answer([(1, 1)], now=0.0)
    attempts.answer([(2, 1)], now=REFUSED_SECONDS + 1)
    assert [item.task_id for item in attempts.accept([(work(1), 0), (work(2), 0)], now=0.0).start] == [1]


def test_an_attempt_is_held_until_its_verdict_whatever_happens_in_between() -> None:
    attempts = table()
    attempts.accept([(work(1), 0)], now=0.0)
    assert attempts.answer([(1, 1)], now=0.0) == [True]
    attempts.finish([finished(1)])
    assert attempts.answer([(1, 1)], now=0.0) == [True]
    attempts.release(1, 1)
    assert attempts.answer([(1, 1)], now=0.0) == [False]


def test_a_repeated_assignment_is_ignored() -> None:
    attempts = table()
    assert len(attempts.accept([(work(1), 0), (work(1), 0)], now=0.0).start) == 1
    assert attempts.accept([(work(1), 0)], now=0.0).start == []
    assert attempts.unfinished("cpu") == 1


def test_a_higher_attempt_replaces_an_older_one_and_the_older_is_refused_then() -> None:
    attempts = table()
    attempts.accept([(work(1, 1), 0)], now=0.0)
    intake = attempts.accept([(work(1, 2), 1)], now=0.0)
    assert [(held.key, held.phase) for held in intake.replaced] == [((1, 1), Phase.IN_POOL)]
    assert [item.attempt for item in intake.start] == [2]
    assert attempts.accept([(work(1, 1), 0)], now=0.0).start == []
    assert attempts.answer([(1, 1), (1, 2)], now=0.0) == [False, True]
    assert attempts.finish([finished(1, 1)]) == [], "the older one's outcome is nobody's any more"
    assert attempts.unfinished("cpu") == 1


def test_attempts_above_the_first_of_a_round_wait_for_the_check() -> None:
    attempts = table()
    intake = attempts.accept([(work(1, 2), 0), (work(2, 2), 1), (work(3, 1), 0)], now=0.0)
    assert [held.task_id for held in intake.check] == [1]
    assert [item.task_id for item in intake.start] == [2, 3]
    assert attempts.unfinished("cpu") == 3, "what is being checked counts against the demand"
    assert [item.task_id for item in attempts.start_checked(intake.check)] == [1]
    assert attempts.start_checked(intake.check) == []


def test_a_type_or_pool_that_is_not_served_is_held_for_its_report_only() -> None:
    attempts = table()
    intake = attempts.accept([(work(1, type_name="unknown"), 0), (work(2, pool="gpu"), 0)], now=0.0)
    assert [held.task_id for held in intake.unserved] == [1, 2]
    assert intake.start == []
    assert attempts.unfinished("gpu") == 0
    assert attempts.answer([(1, 1), (2, 1)], now=0.0) == [True, True]


def test_a_cancel_reaches_the_pool_once_and_not_at_all_when_finished() -> None:
    attempts = table()
    attempts.accept([(work(1), 0), (work(2), 0)], now=0.0)
    attempts.finish([finished(2)])
    assert attempts.cancel([(1, 1), (2, 1), (3, 1), (1, 2)]) == ([(1, 1)], [])
    assert attempts.cancel([(1, 1)]) == ([], [])


def test_a_cancelled_attempt_that_was_being_checked_ends_and_is_not_started() -> None:
    attempts = table()
    check = attempts.accept([(work(1, 2), 0)], now=0.0).check
    assert attempts.cancel([(1, 2)]) == ([], check)
    assert attempts.start_checked(check) == []
    assert attempts.finish_unstarted(check) == []
    assert attempts.answer([(1, 2)], now=0.0) == [True]


def test_a_stale_verdict_stops_what_still_runs() -> None:
    attempts = table()
    attempts.accept([(work(1), 0), (work(2), 0)], now=0.0)
    attempts.finish([finished(2)])
    assert attempts.release_stale(1, 1)
    assert not attempts.release_stale(2, 1)
    assert not attempts.release_stale(3, 1)
    assert (len(attempts), attempts.unfinished("cpu")) == (0, 0)


def test_a_verdict_does_not_let_a_running_attempt_go() -> None:
    attempts = table()
    attempts.accept([(work(1), 0)], now=0.0)
    attempts.release(1, 1)
    assert attempts.answer([(1, 1)], now=0.0) == [True]


def test_what_had_finished_outlives_its_session_and_the_rest_is_let_go() -> None:
    attempts = table()
    check = attempts.accept([(work(1), 0), (work(2), 0), (work(3), 0), (work(4, 2), 0)], now=0.0).check
    attempts.finish([finished(1)])
    attempts.end_session()
    assert attempts.unfinished("cpu") == 0
    assert attempts.start_checked(check) == []
    assert [item.task_id for item in attempts.finish([finished(2)])] == [2], "it was on its way already"
    attempts.drop_lost()
    assert attempts.finish([finished(3)]) == []
    assert attempts.answer([(1, 1), (2, 1), (3, 1), (4, 2)], now=0.0) == [True, True, False, False]
    assert (attempts.finished, attempts.unfinished("cpu")) == (2, 0)


STEPS = st.lists(st.tuples(st.sampled_from(range(9)), st.integers(1, 6), st.integers(1, 3)), max_size=80)


@given(steps=STEPS, seed=st.integers(0, 100))
def test_the_count_of_unfinished_attempts_never_drifts(steps: Sequence[tuple[int, int, int]], seed: int) -> None:
    attempts = table()
    random = Random(seed)
    for action, task_id, attempt in steps:
        key = (task_id, attempt)
        held = attempts.find(task_id)
        match action:
            case 0 | 1 | 2:
                attempts.accept(
                    [(work(task_id, attempt, pool=random.choice(["cpu", "io"])), random.randint(0, 2))], now=0.0
                )
            case 3:
                attempts.finish([finished(task_id, attempt)])
            case 4:
                attempts.release(*key)
            case 5:
                attempts.release_stale(*key)
            case 6:
                attempts.cancel([key])
            case 7:
                attempts.end_session()
                attempts.drop_lost()
            case 8 if held is not None:
                random.choice([attempts.start_checked, attempts.finish_unstarted])([held])
        everything = [found for found in map(attempts.find, range(1, 7)) if found]
        assert len(everything) == len(attempts)
        for pool in ("cpu", "io"):
            assert attempts.unfinished(pool) == sum(counts(one, pool) for one in everything)


def counts(held: Held, pool: str) -> bool:
    return held.pool == pool and held.phase in (Phase.CHECKING, Phase.IN_POOL)


def test_a_solitary_attempt_waits_for_the_end_of_what_is_here() -> None:
    attempts = table()
    attempts.accept([(work(1), 0), (work(2, pool="io"), 0), (solitary(3), 0)], now=0.0)
    assert attempts.solitary is attempts.find(3)
    assert not attempts.is_closed
    assert attempts.start_solitary(0.0) == []
    attempts.finish([finished(1)])
    assert attempts.start_solitary(1.0) == []
    attempts.finish([finished(2)])
    assert [item.task_id for item in attempts.start_solitary(1.0)] == [3]
    assert attempts.is_closed
    assert attempts.start_solitary(1.0) == [], "it starts once"
    attempts.finish([finished(3)])
    assert attempts.solitary is None
    assert not attempts.is_closed


def test_a_solitary_attempt_waits_for_a_minute_at_most() -> None:
    attempts = table()
    attempts.accept([(work(1), 0), (solitary(2), 0)], now=100.0)
    assert attempts.start_solitary(159.9) == []
    assert [item.task_id for item in attempts.start_solitary(160.0)] == [2]


def test_nothing_is_taken_on_beside_a_solitary_attempt() -> None:
    attempts = table()
    intake = attempts.accept([(work(1), 0), (solitary(2), 0), (work(3), 0), (solitary(4), 0)], now=0.0)
    assert [item.task_id for item in intake.start] == [1]
    assert [item.task_id for item in intake.crowded] == [3, 4]
    assert attempts.unfinished("cpu") == 2
    attempts.finish([finished(1)])
    attempts.start_solitary(0.0)
    assert [item.task_id for item in attempts.accept([(work(5), 0)], now=1.0).crowded] == [5]
    attempts.finish([finished(2)])
    assert [item.task_id for item in attempts.accept([(work(6), 0)], now=2.0).start] == [6]


def test_a_solitary_attempt_is_checked_for_an_earlier_result_before_it_waits() -> None:
    attempts = table()
    check = attempts.accept([(solitary(1, 3), 0)], now=0.0).check
    assert attempts.start_solitary(99.0) == []
    assert attempts.start_checked(check) == []
    assert [item.task_id for item in attempts.start_solitary(99.0)] == [1]


def test_a_solitary_attempt_that_is_let_go_unstarted_is_in_nobodys_way() -> None:
    ways: list[Callable[[AttemptTable], object]] = [
        lambda attempts: attempts.cancel([(1, 1)]),
        lambda attempts: attempts.release_stale(1, 1),
        lambda attempts: attempts.end_session(),
        lambda attempts: attempts.finish_unstarted(attempts.unstarted()),
        lambda attempts: attempts.accept([(work(1, 2), 1)], now=0.0),
    ]
    for let_go in ways:
        attempts = table()
        attempts.accept([(solitary(1), 0)], now=0.0)
        let_go(attempts)
        assert attempts.solitary is None
        assert attempts.start_solitary(99.0) == []
        assert [item.task_id for item in attempts.accept([(work(9), 0)], now=0.0).start] == [9]
        attempts.finish([finished(1, 2), finished(9)])
        assert attempts.unfinished("cpu") == 0
