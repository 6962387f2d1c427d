"""The worker that runs one attempt at a time, in its main thread."""

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, NamedTuple, NoReturn

from execution_service.workers.aftermath import Aftermath
from execution_service.workers.frames import Leaving
from execution_service.workers.limits import AttemptLimits
from execution_service.workers.marks import OutputMarks
from execution_service.workers.outcomes import Outcome
from execution_service.workers.runner import (
    CANCELLED_ENDING,
    LEASE_LOOK_SECONDS,
    NO_CONTEXT,
    Desk,
    Ending,
    Inbox,
    Prepared,
    failed,
    may_start,
    open_context,
    prepare,
    report,
    timed_out,
)
from execution_service.workers.slots_page import ASYNC_KILL_GRACE_SECONDS

_SLOT = 0
_LEAVE_SECONDS = 60.0


def run_sequential(desk: Desk, on_gone: Callable[[], None]) -> NoReturn:
    """Run what the pool sends, in order, until the process is killed."""
    # What is cancelled while it runs sees that on the page: nobody reads frames meanwhile.
    inbox = Inbox(desk, on_cancel=_ignore, on_gone=on_gone)
    kit = _Kit(Aftermath(), AttemptLimits(), OutputMarks(desk.page, desk.secret))
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
    marks: OutputMarks


def _run(desk: Desk, kit: _Kit, item: Prepared, own_pid: int) -> str | None:
    """Run an attempt and report it; return why the worker should be replaced, if it should."""
    seq, attempt, definition, value = item
    page = desk.page
    is_cancelled = partial(page.cancel_asked, _SLOT, seq)
    context = open_context(desk, item, is_cancelled) if definition.wants_context else NO_CONTEXT
    started_at, began = time.time(), time.monotonic()
    grace = ASYNC_KILL_GRACE_SECONDS if definition.is_async else 0.0
    kit.limits.apply(definition, began)
    page.begin(_SLOT, seq, began + attempt.timeout + grace)
    try:
        result = definition.run(value, context)
        if definition.is_async:
            result = asyncio.run(_within(result, attempt.timeout))
        ending = Ending(Outcome.COMPLETED, definition.encode(result), None)
    except _TimedOutError:
        ending = timed_out(attempt)
    except BaseException as error:  # noqa: BLE001 - a handler may raise anything, and the worker goes on
        ending = failed(desk, attempt, error)
    if os.getpid() != own_pid:
        os._exit(0)  # a fork by the handler came back here: it must not go on beside its parent
    if is_cancelled():
        ending = CANCELLED_ENDING
    seconds = time.monotonic() - began
    # Before the report: whoever reads that an attempt has ended may rely on its processes being gone.
    reason = kit.aftermath.clear(seconds)
    printed = seq if kit.marks.end(seq) else None
    report(desk, attempt, ending, started_at=started_at, seconds=seconds, printed=printed)
    page.end(_SLOT)
    if ending.error is not None and ending.error.code == "memory_limit":
        return "its handler used up its memory"
    return reason


def _leave(desk: Desk, reason: str) -> NoReturn:
    """Ask to be replaced. The pool kills this process; what waits in it goes to another one."""
    desk.outbox.flush()
    desk.outbox.send(Leaving(reason))
    while True:
        time.sleep(_LEAVE_SECONDS)


class _TimedOutError(Exception):
    """Our own limit has ended the handler; a TimeoutError would be the handler's."""


async def _within(work: Coroutine[Any, Any, Any], seconds: float) -> Any:
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await work
    except TimeoutError:
        if limit.expired():
            raise _TimedOutError from None
        raise


def _ignore(_seq: int) -> None:
    return
