"""What one reader has not taken yet. A slow reader gets the latest state of each task, then nothing more."""

import asyncio
from collections import deque
from collections.abc import Callable
from enum import Enum, auto

from headrace.v1.task_pb2 import TaskUpdate
from servicekit.errors import Overloaded, Unavailable
from servicekit.live.events import LiveEvent

# So many events wait as they came; more are merged by task. One batch of a manager has up to 1,000, and some seconds'
# worth of them come at once when Redis is back: that makes no reader slow.
EVENTS_MAX = 10_000
BYTES_MAX = 4 * 1024 * 1024
# So many merged ones wait; a reader that leaves more is cut off.
MERGED_MAX = 5_000
_WAIT_SECONDS = 60.0


class Signal(Enum):
    # The stream has a hole, or starts anew: take a snapshot.
    RESET = auto()
    # The reader was too slow and hears nothing more.
    TOO_SLOW = auto()
    # The service stops.
    CLOSED = auto()


class Mailbox:
    """Bounded, and never waited for by those who fill it. `on_cut` is called when it gives up."""

    def __init__(self, on_cut: Callable[[], None]) -> None:
        self._on_cut = on_cut
        self._events: deque[LiveEvent] = deque()
        self._bytes = 0
        # Task and kind of event -> the latest, in the order in which they came last; used once the deque was full.
        self._merged: dict[tuple[int, bool], LiveEvent] = {}
        self._signal: Signal | None = None
        self._wake = asyncio.Event()

    def put(self, event: LiveEvent) -> None:
        if self._signal in (Signal.TOO_SLOW, Signal.CLOSED):
            return
        if not self._merged and len(self._events) < EVENTS_MAX and self._bytes < BYTES_MAX:
            self._events.append(event)
            self._bytes += event.size
        else:
            self._merge(event)
        self._wake.set()

    def signal(self, signal: Signal) -> None:
        """Tell the reader before anything else. After RESET alone more events follow, and what waited is void."""
        if self._signal in (None, Signal.RESET):
            self._signal = signal
        self._events.clear()
        self._bytes = 0
        self._merged.clear()
        self._wake.set()

    def take(self) -> LiveEvent | Signal | None:
        """Return what comes next, or nothing where nothing waits."""
        if self._signal is not None:
            signal = self._signal
            if signal is Signal.RESET:
                self._signal = None
            return signal
        if self._events:
            event = self._events.popleft()
            self._bytes -= event.size
            return event
        if self._merged:
            return self._merged.pop(next(iter(self._merged)))
        return None

    def nudge(self) -> None:
        """Make the reader look around, without news."""
        self._wake.set()

    async def is_idle(self, seconds: float) -> bool:
        """Wait until something waits or a nudge comes; return whether neither did within `seconds`."""
        if self._signal is not None or self._events or self._merged or seconds <= 0:
            return False
        self._wake.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return True
        return False

    def _merge(self, event: LiveEvent) -> None:
        """Keep the latest state of a task, and its latest progress unless a change of state came after it."""
        task_id = event.update.task_id
        self._merged.pop((task_id, event.is_progress), None)
        if not event.is_progress:
            self._merged.pop((task_id, True), None)
        if len(self._merged) >= MERGED_MAX:
            self.signal(Signal.TOO_SLOW)
            self._on_cut()
            return
        self._merged[task_id, event.is_progress] = event


async def next_updates(mailbox: Mailbox, *, at_most: int) -> list[TaskUpdate]:
    """Wait for updates, and return those that are there; none where some may have been missed.

    Raises Overloaded when the reader was too slow, and Unavailable when the service stops.
    """
    updates: list[TaskUpdate] = []
    while len(updates) < at_most:
        heard = mailbox.take()
        if isinstance(heard, LiveEvent):
            updates.append(heard.update)
        elif heard is Signal.TOO_SLOW:
            raise Overloaded("the reader is too slow for the updates", code="reader_too_slow")
        elif heard is Signal.CLOSED:
            raise Unavailable("the service stops", code="restarting")
        elif heard is Signal.RESET or (heard is None and updates):
            break
        elif heard is None:
            await mailbox.is_idle(_WAIT_SECONDS)
    return updates
