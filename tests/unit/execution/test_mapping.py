"""Between protobuf and this service."""

from datetime import UTC, datetime

import msgspec
import pytest

from execution_service.rpc import mapping
from execution_service.workers.outcomes import AttemptError, CancelReceipt, EndedBy, Finished, Outcome
from headrace.tasks import Backoff, definition_of, task
from headrace.v1 import task_pb2
from tests.unit.execution.factories import assignment, finished


def test_every_outcome_has_its_name_in_the_contract() -> None:
    names = {outcome.name: outcome.value for outcome in Outcome}
    contract = {name.removeprefix("OUTCOME_"): value for name, value in task_pb2.Outcome.items()}
    for on_record_alone in ("UNSPECIFIED", "REFUSED", "REPLICA_LOST"):
        del contract[on_record_alone]
    assert names == contract


def test_every_outcome_can_be_shown_to_watchers() -> None:
    for outcome in Outcome:
        report = mapping.report(finished(1, outcome=outcome))
        shown = mapping.outcome_update(report, "word_count", datetime(2026, 1, 1, tzinfo=UTC))
        assert shown.status != task_pb2.TASK_STATUS_UNSPECIFIED


def test_an_assignment_becomes_an_attempt_of_its_session() -> None:
    ((work, round_base),) = mapping.offers([assignment(5, 3, round_base=2)], 77)
    assert (work.task_id, work.attempt, work.session_id, work.pool, work.timeout) == (5, 3, 77, "cpu", 30.0)
    assert (work.soft_timeout, work.isolated, work.solitary) == (0.0, False, False)
    assert round_base == 2


def test_an_attempt_that_is_to_be_alone_gets_a_worker_of_its_own_too() -> None:
    item = assignment(5, 3)
    item.solitary = True
    item.soft_timeout_ms = 1500
    ((work, _),) = mapping.offers([item], 77)
    assert (work.soft_timeout, work.isolated, work.solitary) == (1.5, True, True)


def test_the_receipt_of_a_cancel_and_the_evidence_are_reported() -> None:
    cause = AttemptError(
        "cancelled", "Killed.", peak_memory=2**20, receipt=CancelReceipt(EndedBy.SIGKILL, 1.5504, processes_gone=True)
    )
    ended = Finished(1, 1, Outcome.CANCELLED, None, cause, True, "w", 1.0, 2.0, log="first\nlast\n")
    error = mapping.report(ended).error
    assert error.receipt.ended_by == task_pb2.CancelReceipt.ENDED_BY_SIGKILL
    assert (error.receipt.stopped_after_ms, error.receipt.processes_gone) == (1550, True)
    assert (error.peak_memory_bytes, error.log_tail) == (2**20, "first\nlast\n")
    assert not mapping.report(finished(1, outcome=Outcome.FAILED)).error.HasField("receipt")


def test_a_later_retry_is_reported_of_failures_alone() -> None:
    cause = AttemptError("busy", "later")
    ended = Finished(1, 1, Outcome.FAILED, None, cause, True, "w", 1.0, 2.0, retry_after=2.5)
    assert mapping.report(ended).retry_after_ms == 2500
    assert mapping.report(msgspec.structs.replace(ended, retry_after=0)).HasField("retry_after_ms")
    assert not mapping.report(msgspec.structs.replace(ended, retry_after=None)).HasField("retry_after_ms")
    for_good = msgspec.structs.replace(ended, outcome=Outcome.FAILED_FOR_GOOD)
    assert not mapping.report(for_good).HasField("retry_after_ms")


@pytest.mark.parametrize(
    ("log", "tail"),
    [
        ("", ""),
        ("short\n", "short\n"),
        ("x" * 2048, "x" * 2048),
        ("cut\n" + "y" * 2044 + "\nlast", "last"),
        ("cut\n" + "y" * 2043 + "\nlast", "y" * 2043 + "\nlast"),
        ("cut\n" + "y" * 2047 + "\n", "y" * 2047 + "\n"),
        ("x" * 5000, "x" * 2048),
        ("ä" * 2000 + "b", "ä" * 1023 + "b"),
        ("a\0b\ud800", "a?b?"),
    ],
)
def test_the_tail_of_a_log_is_cut_at_lines_and_characters(log: str, tail: str) -> None:
    assert mapping.log_tail(log) == tail
    assert len(tail.encode()) <= mapping.LOG_TAIL_BYTES_MAX


def test_a_type_tells_its_backoff_and_soft_timeout_where_it_has_them() -> None:
    @task("plain")
    def plain(data: dict[str, int]) -> None:
        """Has neither."""

    @task("patient", soft_timeout=2.5, backoff=Backoff(initial=0.5, factor=1.5, maximum=60))
    def patient(data: dict[str, int]) -> None:
        """Has both."""

    assert not mapping.task_type(definition_of(plain)).HasField("options")
    options = mapping.task_type(definition_of(patient)).options
    assert options.soft_timeout_ms == 2500
    assert (options.backoff.initial_ms, options.backoff.factor, options.backoff.max_ms) == (500, 1.5, 60_000)


def test_error_texts_are_made_storable() -> None:
    cause = AttemptError("handler_error", "a\x00b\ud800" + "x" * 20_000, "Broken\x00")
    report = mapping.report(Finished(1, 1, Outcome.FAILED, None, cause, True, "w", None, None))
    assert report.error.message.startswith("a\N{REPLACEMENT CHARACTER}b?x")
    assert len(report.error.message) == mapping.MESSAGE_CHARACTERS_MAX
    assert "\x00" not in report.error.exception


def test_times_are_those_of_the_worker() -> None:
    report = mapping.report(finished(1))
    assert (report.started_at.seconds, report.executed_at.seconds) == (1, 2)
