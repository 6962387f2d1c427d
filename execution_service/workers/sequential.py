"""The worker that runs one attempt at a time, in its main thread."""

import asyncio
import os
import resource
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, NamedTuple, NoReturn

import msgspec

from execution_service.workers.aftermath import Aftermath
from execution_service.workers.frames import Leaving
from execution_service.workers.interrupts import Interrupts
from execution_service.workers.limits import AttemptLimits
from execution_service.workers.marks import OutputMarks
from execution_service.workers.outcomes import EndedBy, Outcome
from execution_service.workers.runner import (
    LEASE_LOOK_SECONDS,
    NO_CONTEXT,
    Desk,
    Ending,
    Inbox,
    Prepared,
    cancelled,
    failed,
    may_start,
    open_context,
    prepare,
    report,
    timed_out,
)
from execution_service.workers.slots_page import ASYNC_KILL_GRACE_SECONDS
from execution_service.workers.time_limits import TimedOutError, within_limits
from headrace.tasks import TaskContext

_SLOT = 0
_LEAVE_SECONDS = 60.0
_CANCEL_LOOK_SECONDS = 0.05


def run_sequential(desk: Desk, on_gone: Callable[[], None]) -> NoReturn:
    """Run what the pool sends, in order, until the process is killed."""
    # What is cancelled while it runs sees that on the page: nobody reads frames meanwhile.
    inbox = Inbox(desk, on_cancel=_ignore, on_gone=on_gone)
    # The signal handlers first: what comes after restores them behind each attempt.
    interrupts = Interrupts()
    kit = _Kit(Aftermath(), AttemptLimits(), interrupts, OutputMarks(desk.page, desk.secret))
    own_pid = os.getpid()
    while True:
        while inbox.outdated or not inbox.waiting:
            desk.outbox.flush()
            inbox.receive(wait=True)
        item = inbox.waiting[0]
        if not may_start(desk, item.attempt):
            desk.outbox.flush()
            inbox.wait(LEASE_LOOK_SECONDS)
            continue
        prepared = prepare(desk, item)
        if prepared is not None and not may_start(desk, item.attempt):
            continue
        inbox.waiting.popleft()
        reason = _run(desk, kit, prepared, own_pid) if prepared is not None else None
        if reason is not None:
            _leave(desk, reason)
        if inbox.waiting:
            desk.outbox.flush_if_due(time.monotonic())
        else:
            desk.outbox.flush()


class _Kit(NamedTuple):
    """What an attempt is fenced in with."""

    aftermath: Aftermath
    limits: AttemptLimits
    interrupts: Interrupts
    marks: OutputMarks


def _run(desk: Desk, kit: _Kit, item: Prepared, own_pid: int) -> str | None:
    """Run an attempt and report it; return why the worker should be replaced, if it should."""
    seq, attempt, definition, _ = item
    page, interrupts = desk.page, kit.interrupts
    is_cancelled = partial(page.cancel_asked, _SLOT, seq)
    context = NO_CONTEXT
    if definition.wants_context:
        context = open_context(desk, item, is_cancelled, interrupts.shield)
    started_at, began = time.time(), time.monotonic()
    grace = ASYNC_KILL_GRACE_SECONDS if definition.is_async else 0.0
    kit.limits.apply(definition, began)
    page.begin(_SLOT, seq, began + attempt.timeout + grace, started_at)
    try:
        result = interrupts.call(
            partial(_produce, item, context, is_cancelled),
            soft_timeout=0.0 if definition.is_async else attempt.soft_timeout,
            is_cancelled=is_cancelled,
            raises_cancel=not definition.is_async,
        )
        ending = Ending(Outcome.COMPLETED, result, None)
    except TimedOutError:
        ending = timed_out(attempt)
    except BaseException as error:  # noqa: BLE001 - a handler may raise anything, and the worker goes on
        ending = failed(desk, attempt, error)
    if os.getpid() != own_pid:
        os._exit(0)  # a fork by the handler came back here: it must not go on beside its parent
    was_cancelled = is_cancelled()
    seconds = time.monotonic() - began
    # Before the report: whoever reads that an attempt has ended may rely on its processes being gone.
    reason = kit.aftermath.clear(seconds)
    if was_cancelled:
        ended_by = EndedBy.SIGTERM if interrupts.terminated else EndedBy.HANDLER
        ending = cancelled(ended_by, processes_gone=not kit.aftermath.processes_left)
    elif ending.error is not None and ending.error.code == "memory_limit":
        reason = "its handler used up its memory"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        ending = ending._replace(error=msgspec.structs.replace(ending.error, peak_memory=peak))
    printed = seq if kit.marks.end(seq) else None
    report(desk, attempt, ending, started_at=started_at, seconds=seconds, printed=printed)
    page.end(_SLOT)
    return reason


def _produce(item: Prepared, context: TaskContext, is_cancelled: Callable[[], bool]) -> bytes:
    """Run the handler and encode its result, which may run code of the handler's as well."""
    definition = item.definition
    result = definition.run(item.value, context)
    if definition.is_async:
        result = asyncio.run(_follow(within_limits(result, item.attempt), is_cancelled))
    return definition.encode(result)


async def _follow(work: Coroutine[Any, Any, Any], is_cancelled: Callable[[], bool]) -> Any:
    """Await the handler, and cancel it when a cancel is asked for: that is seen on the page alone."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def look() -> None:
        if not is_cancelled():
            loop.call_later(_CANCEL_LOOK_SECONDS, look)
        elif task is not None:
            task.cancel()

    loop.call_later(_CANCEL_LOOK_SECONDS, look)
    return await work


def _leave(desk: Desk, reason: str) -> NoReturn:
    """Ask to be replaced. The pool kills this process; what waits in it goes to another one."""
    desk.outbox.flush()
    desk.outbox.send(Leaving(reason))
    while True:
        time.sleep(_LEAVE_SECONDS)


def _ignore(_seq: int) -> None:
    return
