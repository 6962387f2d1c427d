"""An event loop in virtual time, and processes in it that can be frozen, thawed and killed.

Nothing waits: when no callback is ready, time jumps to the next timer. Every callback belongs to the process in whose
context it was made. A frozen process runs none of them, and all that came due meanwhile when it thaws, as after SIGSTOP
and SIGCONT; a killed one never runs any.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast

T = TypeVar("T")

_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
_STEPS_MAX = 200_000


class Process:
    """What is frozen and killed as one."""

    def __init__(self, loop: "VirtualLoop", name: str) -> None:
        self.name = name
        self.frozen = False
        self.dead = False
        self.tasks: list[asyncio.Task[Any]] = []
        self._loop = loop
        self._context = copy_context()
        self._context.run(_current.set, self)
        self._held: list[asyncio.Handle] = []

    @property
    def runs(self) -> bool:
        return not self.frozen and not self.dead

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        return self._loop.create_task(work, context=self._context.copy())

    def run(self, call: Callable[..., T], *args: object) -> T:
        """Call in the context of this process: the tasks it makes belong to it."""
        return self._context.copy().run(call, *args)

    def call_later(self, seconds: float, call: Callable[..., object], *args: object) -> None:
        self._loop.call_later(seconds, call, *args, context=self._context.copy())

    def hold(self, handle: asyncio.Handle) -> None:
        self._held.append(handle)

    def freeze(self) -> None:
        self.frozen = True

    def thaw(self, *, timers_first: bool = False) -> None:
        """Go on. A real loop may look at its timers before it reads what came in over the network, or after it."""
        self.frozen = False
        if timers_first:
            self._held.sort(key=lambda handle: not isinstance(handle, asyncio.TimerHandle))
        if not self.dead:
            self._loop.resume(self._held)
            self._held = []

    def kill(self) -> None:
        self.dead = True

    def revive(self) -> None:
        """Let it end in order, after all is over: an unfinished task must not meet the garbage collector."""
        self.frozen = self.dead = False
        self._loop.resume(self._held)
        self._held = []


_current: ContextVar[Process | None] = ContextVar("process", default=None)


def current_process() -> Process | None:
    """The process whose callback runs now; None: the world's own."""
    return _current.get()


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs callbacks in the order of their times. Needs no selector: nothing comes from outside."""

    _ready: "deque[asyncio.Handle]"
    _scheduled: list[asyncio.TimerHandle]
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self._time = 0.0
        self._steps = 0
        self.processes: list[Process] = []
        self.failures: list[str] = []
        self.set_exception_handler(self._note_failure)
        self.set_task_factory(cast("Any", self._make_task))

    def time(self) -> float:
        return self._time

    def process(self, name: str) -> Process:
        process = Process(self, name)
        self.processes.append(process)
        return process

    def resume(self, handles: list[asyncio.Handle]) -> None:
        self._ready.extend(handles)

    def finish(self) -> None:
        """Cancel whatever still runs, wherever, and close."""
        for process in self.processes:
            process.revive()
        tasks = [task for process in self.processes for task in process.tasks if not task.done()]
        for task in tasks:
            task.cancel()
        self._steps = 0
        self.run_until_complete(asyncio.wait(tasks, timeout=60) if tasks else asyncio.sleep(0))
        self.close()

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], *, context: Context | None = None
    ) -> asyncio.Task[T]:
        task: asyncio.Task[T] = asyncio.Task(work, loop=loop, context=context)
        process = context.get(_current) if context is not None else _current.get()
        if process is not None:
            # Kept also when all that knew it is dead: a task that is collected would run its `finally` clauses.
            process.tasks.append(task)
            task.add_done_callback(process.tasks.remove)
        return task

    def _note_failure(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.failures.append(f"{context['message']}: {context.get('exception')!r}")

    def _run_once(self) -> None:
        self._steps += 1
        if self._steps > _STEPS_MAX:
            raise RuntimeError(f"the simulation does not come to an end: {self._time:.1f} s")
        if not self._ready and not self._stopping:
            if not self._scheduled:
                raise RuntimeError("nothing is left to happen, and somebody waits")
            self._time = max(self._time, self._scheduled[0].when())
        while self._scheduled and self._scheduled[0].when() <= self._time:
            timer = heapq.heappop(self._scheduled)
            timer._scheduled = False  # type: ignore[attr-defined]  # as the base class does
            if not timer.cancelled():
                self._ready.append(timer)
        for _ in range(len(self._ready)):
            handle = self._ready.popleft()
            if handle.cancelled():
                continue
            process = handle._context.get(_current)  # type: ignore[attr-defined]
            if process is None or process.runs:
                handle._run()
            else:
                process.hold(handle)

    def _process_events(self, event_list: object) -> None:
        """Nothing comes from a selector."""

    def _write_to_self(self) -> None:
        """No other thread has anything to say."""


class ProcessClock:
    """A clock of one process: it goes on while the process is frozen, and reads differently from all others."""

    def __init__(self, loop: VirtualLoop, *, offset: float) -> None:
        self._loop = loop
        self._offset = offset

    def monotonic(self) -> float:
        return self._loop.time() + self._offset

    def boottime(self) -> float:
        """One for all processes of a machine; a machine has one replica here."""
        return self._loop.time() + self._offset * 2

    def now(self) -> datetime:
        return _EPOCH + timedelta(seconds=self._loop.time())
