"""The gateway's live updates: events of all tasks from the log in Redis, and snapshots from management."""

from gateway.snapshots import Snapshots
from servicekit.live.event_log import EventLog
from servicekit.live.filters import Filter
from servicekit.live.hub import Hub
from servicekit.live.sources import Snapshot
from servicekit.updates import UpdateFeed


class GatewaySource(EventLog):
    """A LiveSource."""

    def __init__(self, hub: Hub, feed: UpdateFeed, snapshots: Snapshots) -> None:
        super().__init__(hub, feed)
        self._snapshots = snapshots

    async def snapshot(self, wanted: Filter) -> Snapshot:
        return await self._snapshots.read(wanted)
