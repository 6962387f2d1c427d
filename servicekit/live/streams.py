"""The live streams of one service: what every transport needs to serve them, and their end when the service stops."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from servicekit.live.cursors import Cursor
from servicekit.live.filters import Filter
from servicekit.live.hub import Hub
from servicekit.live.session import LiveSession
from servicekit.live.sources import LiveSource
from servicekit.task_views import is_final


class OpenStream(Protocol):
    def stop(self) -> None:
        """Tell the client that the service stops, and end."""
        ...


class LiveStreams:
    """Where applications keep it: `app.state.live`."""

    def __init__(
        self,
        hub: Hub,
        source: LiveSource,
        *,
        require_type: Callable[[str], Awaitable[None]],
        is_draining: Callable[[], bool],
    ) -> None:
        """`require_type` raises NotFound for a task type that does not exist."""
        self.require_type = require_type
        self.is_draining = is_draining
        self.sockets: set[OpenStream] = set()
        self.event_streams: set[OpenStream] = set()
        self._hub = hub
        self._source = source

    def session(self, wanted: Filter, cursor: Cursor | None = None) -> LiveSession:
        return LiveSession(self._hub, self._source, wanted, cursor)

    async def session_to_the_end(self, wanted: Filter, cursor: Cursor | None = None) -> LiveSession:
        """A session of one task that is read until the task has ended.

        Resumed after the end it would be told nothing, and wait for ever: it is told the final state again.
        """
        if cursor is not None and await self.has_ended(wanted):
            cursor = None
        return self.session(wanted, cursor)

    async def has_ended(self, wanted: Filter) -> bool:
        """Whether the one task that is wanted has ended. Raises NotFound."""
        snapshot = await self._source.snapshot(wanted)
        return all(is_final(update.status) for update in snapshot.updates)

    def close(self) -> None:
        """End all streams, and those that come later."""
        self._hub.close()
        for stream in (*self.sockets, *self.event_streams):
            stream.stop()
