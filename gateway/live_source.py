"""The gateway's live updates: what the update feed brings, in the order of revisions, and snapshots."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

from gateway.snapshots import Snapshots
from headrace.v1.task_pb2 import TaskUpdate
from servicekit.live.cursors import Cursor
from servicekit.live.events import LiveEvent
from servicekit.live.filters import Filter
from servicekit.live.hub import Hub
from servicekit.live.sources import Snapshot
from servicekit.updates import FeedSignal, UpdateFeed

# So many tasks are remembered with what was published of them last.
_REMEMBERED_MAX = 100_000
_WAIT_SECONDS = 30.0


class GatewaySource:
    """A LiveSource; its feed cannot be resumed."""

    def __init__(self, hub: Hub, feed: UpdateFeed, snapshots: Snapshots) -> None:
        self._hub = hub
        self._feed = feed
        self._snapshots = snapshots
        # Task -> revision, attempt and number of the progress that were published last.
        self._published: OrderedDict[int, tuple[int, int, int]] = OrderedDict()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="live_source")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    @property
    def is_deaf(self) -> bool:
        return not self._feed.connected

    async def ready(self) -> None:
        pass

    def replay(self, cursor: Cursor) -> Sequence[LiveEvent] | None:
        return None

    def revision_of(self, task_id: int) -> int | None:
        published = self._published.get(task_id)
        return published[0] if published is not None else None

    async def snapshot(self, wanted: Filter) -> Snapshot:
        return await self._snapshots.read(wanted)

    async def _run(self) -> None:
        while True:
            with self._feed.subscribe_all() as subscription:
                heard: TaskUpdate | FeedSignal | None = None
                while heard not in (FeedSignal.OVERFLOW, FeedSignal.CLOSED):
                    heard = await subscription.next(timeout=_WAIT_SECONDS)
                    if isinstance(heard, TaskUpdate):
                        self._take(heard)
                    elif heard is FeedSignal.RESYNC:
                        self._hub.reset()
                        self._hub.nudge()
            if heard is FeedSignal.CLOSED:
                return
            self._hub.reset()

    def _take(self, update: TaskUpdate) -> None:
        """Publish an update, unless a later one of its task was published before."""
        revision, attempt, number = self._published.pop(update.task_id, (-1, 0, 0))
        progress = (update.attempt, update.progress.n)
        is_news = progress > (attempt, number) if update.HasField("progress") else update.revision > revision
        if not is_news:
            self._published[update.task_id] = revision, attempt, number
            return
        if update.HasField("progress"):
            attempt, number = progress
        else:
            revision = update.revision
        self._published[update.task_id] = revision, attempt, number
        if len(self._published) > _REMEMBERED_MAX:
            self._published.popitem(last=False)
        self._hub.publish([LiveEvent(update)])
