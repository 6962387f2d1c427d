"""The gateway's events: the stream of updates in Redis, in order, with what is kept of it for readers that come back.

While nobody listens to more than the end of a task (`UpdateFeed`), nothing is kept and nothing is put in order. The
first reader has what Redis keeps read once; from then on it is followed until nobody has listened for a while.
"""

import asyncio
import time
from collections.abc import Sequence

import structlog
from google.protobuf.message import DecodeError

from servicekit.live.cursors import Cursor
from servicekit.live.events import LiveEvent
from servicekit.live.hub import Hub
from servicekit.live.sequencer import Sequencer
from servicekit.redis_errors import REDIS_ERRORS
from servicekit.update_reader import EntryId
from servicekit.updates import UpdateFeed

log = structlog.stdlib.get_logger(__name__)

# A reader is not kept waiting longer for what Redis keeps; without it, it gets a snapshot.
_READY_SECONDS = 3.0
_KEEP_SECONDS = 60.0
_PAUSE_SECONDS = 0.5
# Entries that come while the kept ones are read.
_ARRIVED_MAX = 10_000


class EventLog:
    """The part of a LiveSource that brings events."""

    def __init__(self, hub: Hub, feed: UpdateFeed) -> None:
        self._hub = hub
        self._feed = feed
        self._sequencer: Sequencer | None = None
        self._arrived: list[tuple[EntryId, bytes]] = []
        self._reading: asyncio.Task[None] | None = None
        self._used_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        feed.add_follower(self)

    @property
    def is_deaf(self) -> bool:
        return not self._feed.connected or self._sequencer is None

    @property
    def position(self) -> Cursor | None:
        """The place of the event that was published last."""
        return self._sequencer.window.newest if self._sequencer is not None else None

    async def ready(self) -> None:
        """Return when the kept events have been read, or after a bounded time without them."""
        self._used_at = time.monotonic()
        deadline = self._used_at + _READY_SECONDS
        # Again where it was given up meanwhile, since the feed has found its place.
        while self._sequencer is None and (left := deadline - time.monotonic()) > 0:
            reading = self._start_reading()
            await asyncio.wait([reading], timeout=left)
            if not reading.cancelled():
                return

    def replay(self, cursor: Cursor) -> Sequence[LiveEvent] | None:
        """The events after a place, up to what was published last; nothing where the place is not known any more."""
        return self._sequencer.window.after(cursor) if self._sequencer is not None else None

    def revision_of(self, task_id: int) -> int | None:
        """The newest revision that was published of a task, where that is known."""
        return self._sequencer.revision_of(task_id) if self._sequencer is not None else None

    async def stop(self) -> None:
        self._forget()

    # What the feed says.

    def take(self, entry_id: EntryId, message: bytes) -> None:
        if self._sequencer is not None:
            self._publish(self._ordered(self._sequencer, entry_id, message))
            self._rest_if_unused()
        elif self._reading is not None:
            self._arrived.append((entry_id, message))
            if len(self._arrived) > _ARRIVED_MAX:
                self.lose_track()

    def lose_track(self) -> None:
        """Entries were missed. Readers are told when what is kept has been read anew."""
        self._forget()
        if len(self._hub):
            self._start_reading()

    def change_hearing(self) -> None:
        self._hub.nudge()
        if self._feed.connected and self._sequencer is None and len(self._hub):
            self._start_reading()

    # Details.

    def _start_reading(self) -> asyncio.Task[None]:
        if self._reading is None:
            self._arrived = []
            self._reading = asyncio.create_task(self._read_kept(), name="event_log")
        return self._reading

    async def _read_kept(self) -> None:
        """Read all that Redis keeps, then what has come meanwhile. Readers that listen already start anew."""
        try:
            sequencer = await self._sequence_kept()
        except REDIS_ERRORS as error:
            log.info("kept_updates_not_read", reason=f"{type(error).__name__}: {error}"[:300])
            self._read_again_later()
            return
        except Exception as error:
            log.error("event_log_failed", exc_info=error)
            self._read_again_later()
            return
        self._sequencer, self._reading, self._arrived = sequencer, None, []
        self._used_at = time.monotonic()
        self._watch_clock()
        log.info("event_log_ready", events=len(sequencer.window))
        self._hub.reset()

    def _read_again_later(self) -> None:
        self._reading = None
        asyncio.get_running_loop().call_later(_PAUSE_SECONDS, self.change_hearing)

    async def _sequence_kept(self) -> Sequencer:
        sequencer: Sequencer | None = None
        position: EntryId | None = None
        async for entries in self._feed.reader.kept():
            for entry_id, message in entries:
                sequencer = sequencer or Sequencer(entry_id)
                self._ordered(sequencer, entry_id, message)
                position = entry_id
            await asyncio.sleep(0)
        for entry_id, message in self._arrived:
            if position is None or entry_id > position:
                sequencer = sequencer or Sequencer(entry_id)
                self._ordered(sequencer, entry_id, message)
        return sequencer or Sequencer(self._feed.reader.position or (0, 0))

    def _ordered(self, sequencer: Sequencer, entry_id: EntryId, message: bytes) -> list[tuple[int, LiveEvent]]:
        try:
            return sequencer.take(entry_id, message, now=time.monotonic())
        except (DecodeError, ValueError) as error:
            log.error("update_entry_unreadable", bytes=len(message), reason=str(error)[:200])
            return []

    def _publish(self, told: list[tuple[int, LiveEvent]]) -> None:
        """Hand on what somebody may want; the rest is not even decoded."""
        hears = self._hub.hears
        self._hub.publish([event for task_id, event in told if hears(task_id)])
        self._watch_clock()

    def _watch_clock(self) -> None:
        """Look again when waiting for a missing update has an end, should nothing else come."""
        if self._timer is None and self._sequencer is not None:
            seconds = self._sequencer.seconds_to_look(now=time.monotonic())
            if seconds is not None:
                self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._sequencer is not None:
            self._publish(self._sequencer.look(now=time.monotonic()))

    def _rest_if_unused(self) -> None:
        now = time.monotonic()
        if len(self._hub):
            self._used_at = now
        elif now - self._used_at > _KEEP_SECONDS:
            self._forget()

    def _forget(self) -> None:
        self._sequencer, self._arrived = None, []
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
