"""What the two kinds of worker share: reading the pool's frames, checking the lease, ending an attempt."""

import select
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from pydantic import ValidationError

from execution_service.workers.failures import (
    MESSAGE_BYTES_MAX,
    NEVER_STARTED,
    cancelled_error,
    clean_text,
    exception_name,
    explain,
    retry_after_of,
    timeout_error,
    traceback_of,
)
from execution_service.workers.frames import Assign, Worn, worker_reader
from execution_service.workers.lease_page import LeasePage, boottime
from execution_service.workers.outbox import Outbox
from execution_service.workers.outcomes import Attempt, AttemptError, CancelReceipt, EndedBy, Finished, Outcome
from execution_service.workers.scratch import WorkerScratch
from execution_service.workers.slots_page import SlotsPage
from execution_service.workers.wear import MemoryWatch
from headrace.event_logger import event_logger
from headrace.tasks import TaskContext, TaskDefinition, TaskRegistry

# How often a worker looks again whether it may start the attempt that it holds.
LEASE_LOOK_SECONDS = 0.02
_RECEIVE_BYTES = 256 * 1024


Shield = Callable[[Callable[..., Any]], Callable[..., Any]]


class Numbered(NamedTuple):
    """An attempt with the number under which the pool handed it in."""

    seq: int
    attempt: Attempt


class Prepared(NamedTuple):
    """An attempt with its handler and the handler's argument."""

    seq: int
    attempt: Attempt
    definition: TaskDefinition
    value: Any


@dataclass(frozen=True, slots=True)
class Desk:
    """Everything that a worker works with."""

    worker_id: str
    # Known to this worker and its pool; part of the marks in its output.
    secret: str
    registry: TaskRegistry
    connection: socket.socket
    outbox: Outbox
    lease: LeasePage
    page: SlotsPage
    scratch: WorkerScratch
    memory: MemoryWatch


class Inbox:
    """The attempts that wait in the worker, in the pool's order, and the pool's control frames."""

    def __init__(self, desk: Desk, *, on_cancel: Callable[[int], None], on_gone: Callable[[], None]) -> None:
        """`on_cancel` is called for a number that does not wait here (any more)."""
        self._desk = desk
        self._on_cancel = on_cancel
        self._on_gone = on_gone
        self._reader = worker_reader()
        self._chunk = memoryview(bytearray(_RECEIVE_BYTES))
        self._generation = 0
        self.waiting: deque[Numbered] = deque()

    def receive(self, *, wait: bool) -> bool:
        """Take in what the pool has sent; return whether there was anything. With `wait`, wait for it."""
        try:
            size = self._desk.connection.recv_into(self._chunk, 0, 0 if wait else socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        if size == 0:
            self._on_gone()
            return False
        for message in self._reader.feed(self._chunk[:size]):
            if isinstance(message, Assign):
                self.waiting.extend(map(Numbered, range(message.first_seq, 2**62), message.attempts))
            else:
                self._generation = message.generation
                self._drop(set(message.cancel), release=message.release)
        return True

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds` for the pool to send something, and take it in."""
        ready, _, _ = select.select([self._desk.connection], [], [], seconds)
        return bool(ready) and self.receive(wait=False)

    @property
    def outdated(self) -> bool:
        """Whether the pool has sent a control frame that was not taken in yet: nothing may start before it was."""
        return self._desk.page.generation != self._generation

    def _drop(self, cancelled: set[int], *, release: bool) -> None:
        kept: deque[Numbered] = deque()
        for item in self.waiting:
            if item.seq in cancelled:
                cancelled.discard(item.seq)
                self._report_unstarted(item.attempt, Outcome.CANCELLED, NEVER_STARTED)
            elif release:
                self._report_unstarted(item.attempt, Outcome.HANDED_BACK, None)
            else:
                kept.append(item)
        self.waiting = kept
        for seq in cancelled:
            self._on_cancel(seq)
        self._desk.outbox.flush()

    def _report_unstarted(self, attempt: Attempt, outcome: Outcome, error: AttemptError | None) -> None:
        report_unstarted(self._desk, attempt, outcome, error)


def may_start(desk: Desk, attempt: Attempt) -> bool:
    """Return whether the lease of the attempt's session allows its start now."""
    return desk.lease.may_start(attempt.session_id, boottime())


def prepare(desk: Desk, item: Numbered) -> Prepared | None:
    """Decode the data of an attempt; None when they do not fit, which has then been reported."""
    attempt = item.attempt
    definition = desk.registry.get(attempt.type)
    if definition is None:
        error = AttemptError(
            "unknown_type", f"This worker does not know the task type {clean_text(attempt.type, 100)}."
        )
        report_unstarted(desk, attempt, Outcome.FAILED, error)
        return None
    try:
        return Prepared(item.seq, attempt, definition, definition.decode(attempt.data))
    except ValidationError as refused:
        error = AttemptError("invalid_data", _validation_message(refused))
        report_unstarted(desk, attempt, Outcome.FAILED_FOR_GOOD, error)
    except BaseException as failure:  # noqa: BLE001 - validators are the user's code and may raise anything
        outcome, error = explain(failure)
        _log_failure(desk, attempt, failure)
        report_unstarted(desk, attempt, outcome, error)
    return None


def report_unstarted(desk: Desk, attempt: Attempt, outcome: Outcome, error: AttemptError | None) -> None:
    """Report an attempt for which no handler was started."""
    finished = Finished(attempt.task_id, attempt.attempt, outcome, None, error, False, desk.worker_id, None, None)
    desk.outbox.add(finished, attempt.type, -1.0)


def open_context(
    desk: Desk, item: Prepared, is_cancelled: Callable[[], bool], shield: Shield = lambda function: function
) -> TaskContext:
    """Return the context that the handler is given; what it calls there is wrapped by `shield`."""
    task_id, attempt, type_name = item.attempt.task_id, item.attempt.attempt, item.attempt.type
    now = time.monotonic()
    return TaskContext(
        task_id=task_id,
        attempt=attempt,
        type=type_name,
        deadline=now + item.attempt.timeout,
        soft_deadline=now + item.attempt.soft_timeout if item.attempt.soft_timeout else None,
        on_progress=shield(partial(desk.outbox.progress, task_id, attempt, type_name)),
        is_cancelled=is_cancelled,
        open_scratch=shield(partial(desk.scratch.open, task_id, attempt)),
        open_logger=partial(event_logger, shield(partial(desk.outbox.log, (task_id, attempt)))),
    )


NO_CONTEXT = TaskContext()


class Ending(NamedTuple):
    """How a handler ended."""

    outcome: Outcome
    result: bytes | None
    error: AttemptError | None
    retry_after: float | None = None


def cancelled(ended_by: EndedBy, *, processes_gone: bool) -> Ending:
    """Return the ending of an attempt that was told to stop. When it was told is known to the pool."""
    return Ending(Outcome.CANCELLED, None, cancelled_error(CancelReceipt(ended_by, 0.0, processes_gone)))


def failed(desk: Desk, attempt: Attempt, error: BaseException) -> Ending:
    """Return the ending of an attempt whose handler raised; the traceback goes to the log."""
    outcome, explained = explain(error)
    _log_failure(desk, attempt, error)
    return Ending(outcome, None, explained, retry_after_of(error))


def timed_out(attempt: Attempt) -> Ending:
    """Return the ending of an attempt that took too long."""
    return Ending(Outcome.FAILED, None, timeout_error(attempt.timeout))


def report(
    desk: Desk, attempt: Attempt, ending: Ending, *, started_at: float, seconds: float, printed: int | None = None
) -> None:
    """Report an attempt whose handler has ended, remove its scratch directory, see what it left of the memory."""
    desk.scratch.remove(attempt.task_id, attempt.attempt)
    finished = Finished(
        attempt.task_id,
        attempt.attempt,
        ending.outcome,
        ending.result,
        ending.error,
        True,
        desk.worker_id,
        started_at,
        started_at + seconds,
        retry_after=ending.retry_after,
    )
    desk.outbox.add(finished, attempt.type, seconds, printed)
    if (reason := desk.memory.outgrown(time.monotonic())) is not None:
        desk.outbox.send(Worn(reason))


def _log_failure(desk: Desk, attempt: Attempt, error: BaseException) -> None:
    fields = {
        "type": attempt.type,
        "exception": exception_name(error),
        "traceback": traceback_of(error),
    }
    desk.outbox.log((attempt.task_id, attempt.attempt), "warning", "handler_failed", fields)


def _validation_message(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    lines = ["/" + "/".join(str(part) for part in item["loc"]) + ": " + item["msg"] for item in found[:20]]
    return clean_text("; ".join(lines), MESSAGE_BYTES_MAX)
