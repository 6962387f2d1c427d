"""The checker finds what is wrong: a doctored run is flagged by the invariant it breaks, an honest one passes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.harness.checker import Allowed, check
from tests.faults.harness.events import Event
from tests.faults.harness.evidence import Evidence, Footprint, Outage, Recovery, Survivor, TaskRow
from tests.faults.harness.ledger import Ledger
from tests.support.side_effects import Line

pytestmark = pytest.mark.quick


def row(task_id: int, **fields: object) -> TaskRow:
    defaults: dict[str, object] = {
        "status": "completed",
        "attempt": 1,
        "revision": 2,
        "starts": 1,
        "failures": 0,
        "worker_deaths": 0,
        "replica_losses": 0,
        "result_attempt": 1,
        "removed": False,
        "key": None,
    }
    return TaskRow(task_id, **(defaults | fields))  # type: ignore[arg-type]


def start(task_id: int, attempt: int = 1, at: float = 1.0) -> Line:
    return Line(task_id, attempt, "start", 100, at)


def told(task_id: int, revision: int, status: str) -> Event:
    return Event(task_id, revision, 1, status, float(revision))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for op, task_ids in ((1, [1, 2]), (2, [3])):
        entry = ledger.begin(key=f"k{op}", count=len(task_ids), now=0.0)
        entry.outcome, entry.status, entry.task_ids = "acked", 201, task_ids
    return ledger


def honest() -> Evidence:
    return Evidence(
        tasks={task_id: row(task_id) for task_id in (1, 2, 3)},
        results={(1, 1), (2, 1), (3, 1)},
        effects=[start(1), start(2), start(3)],
        events=[told(1, 1, "processing"), told(1, 2, "completed"), told(2, 2, "completed")],
    )


def test_an_honest_run_passes(ledger: Ledger) -> None:
    verdict = check(ledger, honest())
    assert verdict.violations == []
    assert (verdict.attempted, verdict.acknowledged, verdict.reruns) == (3, 3, 0)


def test_what_is_in_time_and_comes_back_passes(ledger: Ledger) -> None:
    evidence = honest()
    evidence.recoveries = [Recovery("Redis", 4.9, 5.0)]
    evidence.survivors = [Survivor("gateway-0", Footprint(10, 40, 8), Footprint(99, 60, 10))]
    evidence.outages = [Outage("management-0", 10.0, 20.0, [(11.0, True), (14.0, False), (24.0, True)])]
    assert check(ledger, evidence).violations == []


def test_a_run_again_that_was_allowed_passes(ledger: Ledger) -> None:
    evidence = honest()
    evidence.tasks[1] = row(1, attempt=2, result_attempt=2)
    evidence.results.add((1, 2))
    evidence.effects = [*evidence.effects, start(1, 2, at=6.0)]
    assert check(ledger, evidence, Allowed(reruns=1)).violations == []


def test_a_request_without_an_answer_may_have_been_served(ledger: Ledger) -> None:
    ledger.begin(key=None, count=1, now=0.0)
    evidence = honest()
    evidence.tasks[9] = row(9)
    evidence.results.add((9, 1))
    verdict = check(ledger, evidence)
    assert (verdict.violations, verdict.unexpected) == ([], 1)


def _lose(e: Evidence) -> None:
    del e.tasks[2]


def _leave_stuck(e: Evidence) -> None:
    e.tasks[2] = row(2, status="queued", result_attempt=None)
    e.events = []


def _fail(e: Evidence) -> None:
    e.tasks[2] = row(2, status="failed", result_attempt=None)
    e.events = []


def _make_from_nothing(e: Evidence) -> None:
    e.tasks[9] = row(9)
    e.results.add((9, 1))


def _lose_result(e: Evidence) -> None:
    e.results.discard((3, 1))


def _keep_result_of_failed(e: Evidence) -> None:
    e.tasks[3] = row(3, status="cancelled")


def _point_to_stale_result(e: Evidence) -> None:
    e.tasks[3] = row(3, attempt=2)


def _store_result_of_no_attempt(e: Evidence) -> None:
    e.results.add((3, 2))


def _start_unclaimed(e: Evidence) -> None:
    e.effects = [*e.effects, start(3, 2, at=9.0)]


def _start_twice(e: Evidence) -> None:
    e.effects = [*e.effects, start(3)]


def _go_back(e: Evidence) -> None:
    e.effects = [*e.effects, start(3, 3, at=2.0), start(3, 2, at=3.0)]


def _start_late(e: Evidence) -> None:
    e.effects = [start(3, 2, at=1.0), start(3, 1, at=3.5)]


def _resurrect(e: Evidence) -> None:
    e.events = [*e.events, told(2, 3, "processing")]


def _change_the_end(e: Evidence) -> None:
    e.tasks[1] = row(1, revision=3)


def _end_twice(e: Evidence) -> None:
    e.events = [*e.events, told(2, 2, "completed")]


def _tell_backwards(e: Evidence) -> None:
    e.events = [told(1, 2, "processing"), told(1, 1, "queued"), told(1, 2, "completed")]


def _never_tell_the_end(e: Evidence) -> None:
    e.events = [told(1, 1, "processing")]


def _leave_in_stream(e: Evidence) -> None:
    e.stream_length = 1


def _leave_pending(e: Evidence) -> None:
    e.stream_pending = 1


def _leave_markers(e: Evidence) -> None:
    e.markers = 1


def _miscount_backlog(e: Evidence) -> None:
    e.backlog = {"tasks": -3, "bytes": 0}


def _leave_outbox(e: Evidence) -> None:
    e.outbox = 1


def _rerun(e: Evidence) -> None:
    e.effects = [*e.effects, start(2, 2, at=9.0)]


def _charge(e: Evidence) -> None:
    e.tasks[1] = replace(e.tasks[1], failures=1)


def _orphan(e: Evidence) -> None:
    e.orphaned_seconds = 11.0


def _share_a_key(e: Evidence) -> None:
    e.tasks[1], e.tasks[2] = row(1, key="k"), row(2, key="k")


def _log_a_password(e: Evidence) -> None:
    e.leaks = ["management-0"]


def _recover_slowly(e: Evidence) -> None:
    e.recoveries = [Recovery("Redis", 4.9, 5.0), Recovery("the task DB", 5.1, 5.0)]


def _leak_files(e: Evidence) -> None:
    e.survivors = [Survivor("gateway-0", Footprint(0, 40, 8), Footprint(0, 400, 8))]


def _leak_threads(e: Evidence) -> None:
    e.survivors = [Survivor("gateway-0", Footprint(0, 40, 8), Footprint(0, 40, 80))]


def _call_itself_ready(e: Evidence) -> None:
    e.outages = [Outage("management-0", 10.0, 40.0, [(11.0, False), (26.0, True), (41.0, True)])]


def _notice_nothing(e: Evidence) -> None:
    e.outages = [Outage("management-0", 10.0, 20.0, [(11.0, True), (19.0, True), (21.0, True)])]


def _stay_unready(e: Evidence) -> None:
    e.outages = [Outage("management-0", 10.0, 20.0, [(11.0, False), (24.0, False), (26.0, True)])]


@pytest.mark.parametrize(
    ("doctor", "invariant"),
    [
        (_recover_slowly, "I13 the task DB took 5.10 s, 5 s are promised"),
        (_leak_files, "I14 gateway-0 held 40 files and holds 400"),
        (_leak_threads, "I14 gateway-0 held 8 threads and holds 80"),
        (_call_itself_ready, "I15 management-0 called itself ready"),
        (_notice_nothing, "I15 management-0 called itself ready"),
        (_stay_unready, "I15 management-0 was not ready within 5 s"),
        (_lose, "I1 promised and not there"),
        (_leave_stuck, "I1 never came to an end"),
        (_fail, "I1 ended otherwise"),
        (_make_from_nothing, "I1 1 tasks that nobody was promised"),
        (_lose_result, "I2"),
        (_keep_result_of_failed, "I2"),
        (_point_to_stale_result, "I3"),
        (_store_result_of_no_attempt, "I3 a result of an attempt that never was"),
        (_start_twice, "I4 one attempt"),
        (_start_unclaimed, "I4 started an attempt that never was claimed"),
        (_go_back, "I4 attempts not rising"),
        (_start_late, "I5"),
        (_resurrect, "I6"),
        (_change_the_end, "I6"),
        (_end_twice, "I8 events"),
        (_tell_backwards, "I8 events"),
        (_never_tell_the_end, "I8 events"),
        (_leave_outbox, "I8 1 final updates"),
        (_rerun, "I9"),
        (_leave_in_stream, "I10 1 entries"),
        (_leave_pending, "I10 0 entries in the stream, 1 pending"),
        (_leave_markers, "I10 1 markers"),
        (_miscount_backlog, "I10 the backlog"),
        (_charge, "I11"),
        (_orphan, "I12"),
        (_share_a_key, "I7 one key, several tasks"),
        (_log_a_password, "I16"),
    ],
    ids=lambda value: value.__name__.lstrip("_") if callable(value) else None,
)
def test_a_doctored_run_is_flagged(ledger: Ledger, doctor: Callable[[Evidence], None], invariant: str) -> None:
    evidence = honest()
    doctor(evidence)
    violations = check(ledger, evidence).violations
    assert any(violation.startswith(invariant) for violation in violations), violations


def test_one_key_with_two_answers_is_flagged(ledger: Ledger) -> None:
    entry = ledger.begin(key="k1", count=2, now=1.0)
    entry.outcome, entry.task_ids = "acked", [1, 4]
    evidence = honest()
    evidence.tasks[4] = row(4)
    evidence.results.add((4, 1))
    assert any(violation.startswith("I7") for violation in check(ledger, evidence).violations)
