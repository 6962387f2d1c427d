"""Failures as text, durations, rate limits, and the lines of a worker's output."""

import os

import pytest
from structlog.testing import capture_logs

from execution_service.workers.durations import PREFETCH_SECONDS, Durations
from execution_service.workers.failures import (
    cancelled_error,
    clean_text,
    exception_name,
    explain,
    message_of,
    retry_after_of,
)
from execution_service.workers.frames import LogLine, LogReport, TypeTime
from execution_service.workers.handler_log import HandlerLog
from execution_service.workers.outcomes import CancelReceipt, EndedBy, Outcome, WorkerState
from execution_service.workers.output import LINE_BYTES_MAX, LINES_PER_SECOND, WorkerOutput
from execution_service.workers.rate_limit import RateLimit
from execution_service.workers.slots_page import SlotsPage
from headrace.tasks import PermanentError, SoftTimeoutError, TransientError, UnstorableResultError
from headrace.v1 import execution_pb2, task_pb2


def test_outcomes_are_numbered_as_in_the_contract() -> None:
    on_record_alone = (task_pb2.OUTCOME_UNSPECIFIED, task_pb2.OUTCOME_REFUSED, task_pb2.OUTCOME_REPLICA_LOST)
    assert {item.name: item.value for item in Outcome} == {
        name.removeprefix("OUTCOME_"): number
        for name, number in task_pb2.Outcome.items()
        if number not in on_record_alone
    }
    assert {item.name: item.value for item in WorkerState} == {
        name.removeprefix("STATE_"): number for name, number in execution_pb2.Worker.State.items() if number
    }
    never_seen_here = (task_pb2.CancelReceipt.ENDED_BY_UNSPECIFIED, task_pb2.CancelReceipt.ENDED_BY_SESSION_END)
    assert {item.name: item.value for item in EndedBy} == {
        name.removeprefix("ENDED_BY_"): number
        for name, number in task_pb2.CancelReceipt.EndedBy.items()
        if number not in never_seen_here
    }


def test_exceptions_are_told_apart_by_what_another_attempt_could_do() -> None:
    outcome, error = explain(PermanentError("bad_input", "no use"))
    assert (outcome, error.code, error.message) == (Outcome.FAILED_FOR_GOOD, "bad_input", "no use")
    outcome, error = explain(UnstorableResultError("too large"))
    assert (outcome, error.code) == (Outcome.FAILED_FOR_GOOD, "unstorable_result")
    outcome, error = explain(TransientError("busy", "later", retry_after=5))
    assert (outcome, error.code) == (Outcome.FAILED, "busy")
    outcome, error = explain(SoftTimeoutError())
    assert (outcome, error.code) == (Outcome.FAILED, "soft_timeout")
    assert error.message
    outcome, error = explain(SystemExit(3))
    assert (outcome, error.code, error.exception) == (Outcome.FAILED, "handler_error", "SystemExit")


def test_only_transient_errors_ask_for_a_later_retry() -> None:
    assert retry_after_of(TransientError("busy", "later", retry_after=5)) == 5
    assert retry_after_of(TransientError("busy", "later")) is None
    assert retry_after_of(PermanentError("never", "no")) is None


@pytest.mark.parametrize(
    ("ended_by", "said"),
    [
        (EndedBy.NOT_STARTED, "Cancelled before it was started."),
        (EndedBy.HANDLER, "The handler stopped 1.25 s after it was asked to; no process of it is left."),
        (EndedBy.SIGTERM, "SIGTERM, 1.25 s after"),
        (EndedBy.SIGKILL, "killed 1.25 s after"),
        (EndedBy.ITS_END, "ended otherwise, 1.25 s after"),
    ],
)
def test_a_cancel_says_what_ended_the_attempt_and_when(ended_by: EndedBy, said: str) -> None:
    error = cancelled_error(CancelReceipt(ended_by, 1.25, processes_gone=True))
    assert error.code == "cancelled"
    assert said in error.message
    assert error.receipt == CancelReceipt(ended_by, 1.25, processes_gone=True)
    if ended_by is not EndedBy.NOT_STARTED:
        assert "not known" in cancelled_error(CancelReceipt(ended_by, 1.25, processes_gone=False)).message


def test_text_for_storage_is_clean_and_short() -> None:
    assert clean_text("a\0b\ud800c", 100) == "a?b?c"
    assert clean_text("ä" * 100, 5) == "ää"
    assert len(message_of(ValueError("x" * 10**7)).encode()) == 16 * 1024
    assert exception_name(PermanentError("a", "b")) == "headrace.tasks.PermanentError"


def test_durations_follow_what_is_measured() -> None:
    durations = Durations()
    assert durations.mean("a") is None
    assert durations.cost("a") == PREFETCH_SECONDS
    durations.note([TypeTime("a", 10, 1.0)])
    assert durations.mean("a") == pytest.approx(0.1)
    durations.note([TypeTime("a", 1, 0.2)])
    assert durations.mean("a") == pytest.approx(0.11)
    durations.note([TypeTime("a", 1000, 1.0)])
    assert durations.mean("a") == pytest.approx(0.001)


def test_a_rate_limit_counts_what_it_drops() -> None:
    limit = RateLimit(3)
    assert [limit.grant(2, 10.0), limit.grant(2, 10.5), limit.grant(2, 10.9)] == [2, 1, 0]
    assert limit.take_dropped() == 3
    assert limit.grant(5, 11.1) == 3
    assert limit.take_dropped() == 2


def test_output_is_logged_by_lines_within_limits() -> None:
    read_fd, write_fd = os.pipe()
    output = WorkerOutput("w1", read_fd, page=SlotsPage.create(1), secret="s")
    with capture_logs() as logs:
        os.write(write_fd, b"one\ntwo\r\nhal")
        assert output.read()
        os.write(write_fd, b"f\n\xff\n" + b"x" * 5000 + b"\n")
        assert output.read()
        os.write(write_fd, b"y\n" * 1000 + b"the end")
        assert output.read()
    lines = [entry["line"] for entry in logs]
    assert lines[:4] == ["one", "two", "half", "\ufffd"]
    assert lines[4] == "x" * LINE_BYTES_MAX
    assert len(lines) == LINES_PER_SECOND
    assert output.tail().endswith("y\nthe end")
    os.close(write_fd)
    assert not output.read()
    output.close()


def test_what_handlers_log_keeps_its_level_and_fields() -> None:
    handler_log = HandlerLog()
    lines = [
        LogLine(7, 1, 0.0, "warning", "tight", '{"left": 3, "event": "forged", "worker": "forged"}'),
        LogLine(7, 1, 0.0, "__class__", "odd", "no json"),
    ]
    with capture_logs() as logs:
        handler_log.write("w1", LogReport(lines, 4))
        handler_log.write("w1", LogReport(lines * 200, 0))
    first, second = logs[:2]
    names = {"worker": "w1", "task_id": 7, "attempt": 1}
    assert first == {"event": "tight", "log_level": "warning", **names, "left": 3, "lines_dropped_before": 4}
    assert second == {"event": "odd", "log_level": "info", **names, "fields": "no json"}
    assert len(logs) == 100
