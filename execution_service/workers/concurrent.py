"""The worker that runs many attempts at once: `async def` handlers on its event loop, `def` handlers in threads."""

import asyncio
import contextvars
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from execution_service.workers.descendants import children_of
from execution_service.workers.frames import OUTPUT_LEVEL
from execution_service.workers.outcomes import EndedBy, Outcome
from execution_service.workers.printing import LineSink, RoutedStream, printing
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


class _Running:
    """An attempt whose handler runs."""

    __slots__ = ("began", "cancelled", "item", "sink", "slot", "started_at", "task")

    def __init__(self, item: Prepared, slot: int) -> None:
        self.item = item
        self.slot = slot
        self.cancelled = False
        self.started_at = time.time()
        self.began = time.monotonic()
        self.task: asyncio.Task[Ending] | None = None
        self.sink: LineSink | None = None


class ConcurrentWorker:
    """Starts attempts in the pool's order as slots come free, and reports each when it ends."""

    def __init__(self, desk: Desk, slots: int, on_gone: Callable[[], None]) -> None:
        self._desk = desk
        self._inbox = Inbox(desk, on_cancel=self._cancel, on_gone=on_gone)
        self._free = list(range(slots))
        self._threads = ThreadPoolExecutor(slots, "handler")
        self._running: dict[int, _Running] = {}
        sys.stdout, sys.stderr = RoutedStream(sys.stdout), RoutedStream(sys.stderr)
        self._loop = asyncio.get_running_loop()
        self._looking = False
        self._flush_wanted = False

    async def run(self) -> None:
        """Run what the pool sends until the process is killed."""
        self._loop.add_reader(self._desk.connection.fileno(), self._on_readable)
        await self._loop.create_future()

    def _on_readable(self) -> None:
        self._inbox.receive(wait=False)
        self._start_waiting()

    def _start_waiting(self) -> None:
        inbox = self._inbox
        while self._free and inbox.waiting:
            if inbox.outdated and not inbox.receive(wait=False):
                break  # the control frame is still on its way; its arrival brings us back here
            if not inbox.waiting or inbox.outdated:
                continue
            item = inbox.waiting[0]
            if not may_start(self._desk, item.attempt):
                self._look_again()
                break
            prepared = prepare(self._desk, item)
            if prepared is not None and not may_start(self._desk, item.attempt):
                continue
            inbox.waiting.popleft()
            if prepared is None:
                self._flush_soon()
            else:
                self._start(prepared)

    def _look_again(self) -> None:
        if not self._looking:
            self._looking = True
            self._loop.call_later(LEASE_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._looking = False
        self._start_waiting()

    def _start(self, item: Prepared) -> None:
        running = _Running(item, self._free.pop())
        grace = ASYNC_KILL_GRACE_SECONDS if item.definition.is_async else 0.0
        kill_at = running.began + item.attempt.timeout + grace
        self._desk.page.begin(running.slot, item.seq, kill_at, running.started_at)
        self._running[item.seq] = running
        running.task = self._loop.create_task(self._handle(running), context=self._printing(running))
        running.task.add_done_callback(partial(self._ended, running))

    def _printing(self, running: _Running) -> contextvars.Context:
        """Return a context in which what is printed belongs to the attempt."""
        attempt = running.item.attempt
        key = (attempt.task_id, attempt.attempt)
        running.sink = LineSink(partial(self._desk.outbox.log, key, OUTPUT_LEVEL, fields={}))
        context = contextvars.copy_context()
        context.run(printing.set, running.sink)
        return context

    async def _handle(self, running: _Running) -> Ending:
        _, attempt, definition, value = running.item
        context = NO_CONTEXT
        if definition.wants_context:
            context = open_context(self._desk, running.item, partial(_is_cancelled, running))
        try:
            if not definition.is_async:
                # A thread cannot be ended by its timeout: there the pool kills the worker.
                work = partial(contextvars.copy_context().run, _run_in_thread, self._desk, running.item, context)
                return await self._loop.run_in_executor(self._threads, work)
            result = await within_limits(definition.run(value, context), attempt)
            return Ending(Outcome.COMPLETED, definition.encode(result), None)
        except TimedOutError:
            return timed_out(attempt)
        except BaseException as error:  # noqa: BLE001 - a handler may raise anything; a cancel is an ending as well
            if running.cancelled:
                return _CANCELLED
            return failed(self._desk, attempt, error)

    def _ended(self, running: _Running, task: asyncio.Task[Ending]) -> None:
        if os.getpid() != _PID:
            os._exit(0)  # a fork by the handler came back here: it must not go on beside its parent
        # A task that was cancelled before its first step never came to `_handle`.
        if running.sink is not None:
            running.sink.close()
        if running.cancelled or task.cancelled():
            # Processes that handlers have started here cannot be told apart.
            ending = cancelled(EndedBy.HANDLER, processes_gone=not children_of(_PID))
        else:
            ending = task.result()
        seconds = time.monotonic() - running.began
        report(self._desk, running.item.attempt, ending, started_at=running.started_at, seconds=seconds)
        self._desk.page.end(running.slot)
        del self._running[running.item.seq]
        self._free.append(running.slot)
        self._flush_soon()
        self._start_waiting()

    def _flush_soon(self) -> None:
        # Once per turn of the loop: attempts that end in the same turn share a frame.
        if not self._flush_wanted:
            self._flush_wanted = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_wanted = False
        if self._running or self._inbox.waiting:
            self._desk.outbox.flush_if_due(time.monotonic())
        else:
            self._desk.outbox.flush()

    def _cancel(self, seq: int) -> None:
        running = self._running.get(seq)
        if running is not None and running.task is not None:
            running.cancelled = True
            if running.item.definition.is_async:
                running.task.cancel()


_PID = os.getpid()
_CANCELLED = Ending(Outcome.CANCELLED, None, None)


def _is_cancelled(running: _Running) -> bool:
    return running.cancelled


def _run_in_thread(desk: Desk, item: Prepared, context: TaskContext) -> Ending:
    # The ending is made here, since a future does not carry every exception (StopIteration).
    try:
        result = item.definition.run(item.value, context)
        return Ending(Outcome.COMPLETED, item.definition.encode(result), None)
    except BaseException as error:  # noqa: BLE001 - a handler may raise anything, and the worker goes on
        return failed(desk, item.attempt, error)
