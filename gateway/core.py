"""All parts of the gateway, wired once: what the routes work with."""

from gateway.admission import Admission
from gateway.backlog import Backlog
from gateway.body_budget import BodyBudget
from gateway.cache import TaskCache
from gateway.catalog import Catalog
from gateway.changes import TaskChanges
from gateway.execution import Execution
from gateway.ids import TaskIds
from gateway.interrupts import Interrupts
from gateway.live_source import GatewaySource
from gateway.management import Calls, Management
from gateway.metrics import Metrics
from gateway.reads import TaskReader
from gateway.redis_gate import RedisGate
from gateway.settings import GatewaySettings
from gateway.snapshots import Snapshots
from gateway.stream import SubmissionStream
from gateway.submissions import Submissions
from gateway.waiting import TaskWaiter
from servicekit.live.hub import Hub
from servicekit.live.socketio.server import SocketIOServer
from servicekit.live.streams import LiveStreams
from servicekit.readiness import Readiness
from servicekit.updates import UpdateFeed

# What one who hears of all tasks may leave unread: a few of the largest messages.
_FEED_QUEUE_MAX = 20_000
# A loop that did not succeed for so long does not count on what it talks to.
_SILENCE_SECONDS = 10.0


class Gateway:
    """Must be made inside the running event loop. `start`, then `drain` when the order to stop comes, then `close`."""

    def __init__(self, settings: GatewaySettings, calls: Calls, execution: Execution) -> None:
        redis_url = settings.redis_url.get_secret_value()
        self.settings = settings
        self.metrics = Metrics()
        self.body_budget = BodyBudget(settings.bodies_bytes_max)
        self.management = Management(calls)
        self.execution = execution
        self.gate = RedisGate(redis_url)
        self.feed = UpdateFeed(redis_url, queue_max=_FEED_QUEUE_MAX)
        self.ids = TaskIds(self.management)
        self.catalog = Catalog(self.management)
        self.admission = Admission(
            self.catalog, data_bytes_max=settings.data_bytes_max, batch_tasks_max=settings.batch_tasks_max
        )
        self.backlog = Backlog(self.gate, tasks_max=settings.backlog_tasks_max, bytes_max=settings.backlog_bytes_max)
        self.submissions = Submissions(
            ids=self.ids,
            gate=self.gate,
            stream=SubmissionStream(self.gate, self.backlog),
            backlog=self.backlog,
            management=self.management,
        )
        self.cache = TaskCache(self.gate)
        self.reader = TaskReader(self.cache, self.management)
        self.waiter = TaskWaiter(self.reader, self.feed)
        self.changes = TaskChanges(self.cache, self.management, self.waiter)
        self.draining = False
        self.hub = Hub()
        snapshots = Snapshots(self.reader, self.cache, self.management)
        self.live_source = GatewaySource(self.hub, self.feed, snapshots)
        self.live = LiveStreams(
            self.hub, self.live_source, require_type=self._require_type, is_draining=lambda: self.draining
        )
        self.socketio = SocketIOServer(self.live)
        self.interrupts = Interrupts()
        self.readiness = Readiness()
        self.readiness.add_flag("catalog", lambda: self.catalog.loaded)
        self.readiness.add_flag("task_ids", lambda: self.ids.available)
        self.readiness.add("stores", self._no_store)
        self.readiness.add("draining", lambda: "draining" if self.draining else None)

    def _no_store(self) -> str | None:
        """Why no task could be stored now: neither by Redis nor by management."""
        redis = None if self.gate.available else "redis is away"
        redis = redis or self.gate.problem(within=_SILENCE_SECONDS)
        management = self.catalog.problem(within=_SILENCE_SECONDS)
        return f"{redis}; {management}" if redis and management else None

    @property
    def listeners(self) -> int:
        """Streams and waits that hear of updates."""
        return len(self.hub) + self.feed.listeners

    async def _require_type(self, name: str) -> None:
        await self.catalog.require((name,))
        self.catalog.describe(name)

    async def start(self) -> None:
        """Begin to connect to everything; returns also while some of it is away."""
        await self.gate.start()
        self.feed.start()
        self.catalog.start()
        self.ids.start()

    async def drain(self) -> None:
        """End what would last: live streams and waits. Requests that were begun are still answered."""
        self.draining = True
        self.live.close()
        await self.socketio.drain()
        await self.live_source.stop()
        await self.feed.stop()

    async def close(self) -> None:
        """End everything else, once no request is in progress."""
        await self.submissions.close()
        await self.catalog.stop()
        await self.ids.stop()
        await self.cache.close()
        await self.gate.stop()
