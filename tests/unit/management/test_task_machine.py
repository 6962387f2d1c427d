"""Random lives of a task never leave the declared transitions and never obey a stale attempt."""

import random
from datetime import timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from management_service.domain.backoff import DEFAULT_BACKOFF, Backoff, refusal_delay
from management_service.domain.statuses import FINAL, TRANSITIONS, TaskEvent, TaskStatus, Transition
from management_service.domain.task import (
    NotAllowedError,
    StaleAttemptError,
    Task,
    become_due,
    claim,
    end_attempt,
    expire,
    request_cancel,
    retry_by_hand,
)

ENDINGS = [
    TaskEvent.ATTEMPT_COMPLETED,
    TaskEvent.ATTEMPT_FAILED,
    TaskEvent.WORKER_DIED,
    TaskEvent.HANDED_BACK,
    TaskEvent.REFUSED,
    TaskEvent.SESSION_ENDED,
    TaskEvent.ATTEMPT_CANCELLED,
]


class TaskLife(RuleBasedStateMachine):
    """One task, and whatever managers, replicas and users may do to it in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.task = Task(status=TaskStatus.QUEUED, max_attempts=3)
        self.rng = random.Random(0)

    def moved(self, event: TaskEvent, after: Task) -> None:
        before = self.task
        if after.status is not before.status:
            assert Transition(before.status, event, after.status) in TRANSITIONS
        assert after.revision == before.revision + (after != before)
        assert after.attempt >= before.attempt
        self.task = after

    @rule(session_id=st.integers(1, 5))
    def claim(self, session_id: int) -> None:
        if self.task.status is TaskStatus.QUEUED:
            self.moved(TaskEvent.CLAIMED, claim(self.task, session_id=session_id))
        else:
            with pytest.raises(NotAllowedError):
                claim(self.task, session_id=session_id)

    @rule(event=st.sampled_from(ENDINGS), age=st.integers(0, 2), worth_retrying=st.booleans())
    def end(self, event: TaskEvent, age: int, worth_retrying: bool) -> None:
        attempt = self.task.attempt - age
        if age or self.task.status is not TaskStatus.PROCESSING:
            with pytest.raises(StaleAttemptError):
                end_attempt(self.task, event, attempt=attempt, rng=self.rng, worth_retrying=worth_retrying)
        else:
            after = end_attempt(self.task, event, attempt=attempt, rng=self.rng, worth_retrying=worth_retrying)
            self.moved(event, after)

    @rule()
    def become_due(self) -> None:
        if self.task.status in (TaskStatus.SCHEDULED, TaskStatus.RETRYING):
            self.moved(TaskEvent.BECAME_DUE, become_due(self.task))
        else:
            with pytest.raises(NotAllowedError):
                become_due(self.task)

    @rule()
    def expire(self) -> None:
        if self.task.status in (TaskStatus.SCHEDULED, TaskStatus.QUEUED, TaskStatus.RETRYING):
            self.moved(TaskEvent.EXPIRED, expire(self.task))
        else:
            with pytest.raises(NotAllowedError):
                expire(self.task)

    @rule()
    def cancel(self) -> None:
        if self.task.status in FINAL:
            with pytest.raises(NotAllowedError):
                request_cancel(self.task)
        else:
            self.moved(TaskEvent.CANCEL_REQUESTED, request_cancel(self.task))

    @precondition(lambda self: self.task.status in FINAL)
    @rule()
    def retry_by_hand(self) -> None:
        self.moved(TaskEvent.RETRIED_BY_HAND, retry_by_hand(self.task))

    @invariant()
    def only_completed_tasks_name_a_result(self) -> None:
        assert (self.task.result_attempt is not None) == (self.task.status is TaskStatus.COMPLETED)

    @invariant()
    def what_is_charged_stays_within_its_limits(self) -> None:
        task = self.task
        assert task.failures + task.worker_deaths <= task.max_attempts
        assert task.worker_deaths <= 3
        assert task.replica_losses <= 3

    @invariant()
    def a_cancelled_wish_never_waits_outside_an_attempt(self) -> None:
        if self.task.cancel_requested:
            assert self.task.status in FINAL | {TaskStatus.PROCESSING}


TestTaskLife = TaskLife.TestCase
TestTaskLife.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


def test_every_status_is_reached_and_only_final_ones_are_left_by_hand_alone() -> None:
    assert {transition.target for transition in TRANSITIONS} == set(TaskStatus)
    for status in FINAL:
        assert {t.event for t in TRANSITIONS if t.source is status} == {TaskEvent.RETRIED_BY_HAND}


def test_a_drain_a_refusal_or_a_lost_replica_spends_no_attempt() -> None:
    task = claim(Task(status=TaskStatus.QUEUED, max_attempts=1), session_id=1)
    for event in (TaskEvent.HANDED_BACK, TaskEvent.REFUSED, TaskEvent.SESSION_ENDED):
        after = end_attempt(task, event, attempt=1, rng=random.Random(0))
        assert (after.status, after.failures) == (TaskStatus.QUEUED, 0)


def test_retry_delays_stay_below_their_ceiling_and_use_all_of_it() -> None:
    rng = random.Random(3)
    for failures, ceiling in ((1, 1), (2, 2), (5, 16), (30, 300)):
        delays = [DEFAULT_BACKOFF.delay(failures, rng) for _ in range(500)]
        assert max(delays) <= timedelta(seconds=ceiling)
        assert max(delays) > timedelta(seconds=ceiling) * 0.9
        assert min(delays) < timedelta(seconds=ceiling) * 0.1


def test_a_backoff_of_ones_own_grows_by_its_factor_to_its_maximum() -> None:
    backoff = Backoff(initial=timedelta(seconds=3), factor=10.0, maximum=timedelta(hours=1))
    ceilings = [backoff.ceiling(failures).total_seconds() for failures in (1, 2, 3, 4, 5, 1000)]
    assert ceilings == [3, 30, 300, 3000, 3600, 3600]
    steady = Backoff(initial=timedelta(seconds=3), factor=1.0)
    assert steady.ceiling(1000) == timedelta(seconds=3)


@pytest.mark.parametrize(("asked_hours", "due_in_hours"), [(0, 0), (2, 2), (24 * 30, 24 * 7)])
def test_a_handler_that_names_its_delay_gets_it_instead_of_the_backoff(asked_hours: int, due_in_hours: int) -> None:
    task = claim(Task(status=TaskStatus.QUEUED, max_attempts=3), session_id=1)
    asked = timedelta(hours=asked_hours)
    after = end_attempt(task, TaskEvent.ATTEMPT_FAILED, attempt=1, rng=random.Random(0), retry_after=asked)
    assert (after.status, after.failures) == (TaskStatus.RETRYING, 1)
    assert after.due_in == timedelta(hours=due_in_hours)


def test_refusals_double_their_delay_from_100_ms_to_5_s() -> None:
    assert [refusal_delay(n).total_seconds() for n in (1, 2, 3, 7, 50)] == [0.1, 0.2, 0.4, 5.0, 5.0]
