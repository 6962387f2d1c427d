"""An execution replica put together: what it consists of, how it starts, and how it drains."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from datetime import timedelta

import psycopg
import structlog

from execution_service.handlers import BUILTIN_MODULES
from execution_service.handlers.settings import HandlerSettings
from execution_service.http import LiveServer
from execution_service.live_source import ReplicaSource
from execution_service.replica import Replica
from execution_service.results import ResultSweeper
from execution_service.rpc import mapping
from execution_service.rpc.servicer import SERVICE_NAME, ExecutionServicer
from execution_service.scaling import WorkerScaling
from execution_service.settings import ExecutionSettings
from execution_service.workers.environment import worker_environment
from execution_service.workers.lease_page import LeasePage
from execution_service.workers.outcomes import Finished, PoolSize, ProgressItem
from execution_service.workers.pool import WorkerPool
from execution_service.workers.wear import WearLimits
from headrace.tasks import TaskModuleError, TaskRegistry, load_registry
from headrace.v1.execution_pb2_grpc import add_ExecutionServiceServicer_to_server
from result_store.store import ResultStore
from servicekit.clock import SystemClock
from servicekit.discovery import address_of
from servicekit.errors import NotFound
from servicekit.grpc_server import GrpcServer
from servicekit.live.hub import Hub
from servicekit.loops import BackgroundLoop
from servicekit.migrations import migrate
from servicekit.pointers import shown
from servicekit.postgres import Database
from servicekit.readiness import Readiness
from servicekit.registry import ConsulRegistry, ServiceRegistration
from servicekit.settings import SettingsError, load_settings, variable

log = structlog.stdlib.get_logger(__name__)

CONSUL_NAME = "headrace-execution"
MIB = 1024 * 1024
BEAT_SECONDS = 1.0
TICK_SECONDS = 0.25
EXCESS_SECONDS = 0.05
# Reports may wait for their verdicts for so long after the grace of what runs.
VERDICTS_SECONDS = 5.0
FAREWELL_SECONDS = 1.0
# Streams and watchers of this replica's updates.
LISTENERS_MAX = 1_000
# Results outlive their task rows by so much, so that none is swept that a row still points to.
KEEP_LONGER = timedelta(days=1)
SCHEMA_PAUSE_SECONDS = 5.0
# Loops that have not come forward for so long make the replica unready.
STANDSTILL_SECONDS = 5.0


class ExecutionService:
    """One replica. Must be made inside the running event loop."""

    def __init__(self, settings: ExecutionSettings) -> None:
        self._settings = settings
        self._clock = SystemClock()
        # A wrong setting of a built-in type stops the replica now, not its first task.
        load_settings(HandlerSettings)
        modules = [*BUILTIN_MODULES, *settings.task_modules]
        registry = _load_task_types(modules)
        sizes = _pool_sizes(registry, settings)
        self._lease_page = LeasePage.create()
        self.workers = WorkerPool(
            name=settings.replica,
            registry_modules=modules,
            pools=sizes,
            lease_page=self._lease_page,
            scratch_dir=settings.scratch_dir,
            on_finished=self._on_finished,
            on_progress=self._on_progress,
            environment=worker_environment(settings.task_env),
            wear=WearLimits(settings.worker_tasks_max, settings.worker_memory_max * MIB),
        )
        self._database = Database(settings.results_dsn.get_secret_value(), name="results", max_size=4)
        store = ResultStore(self._database)
        hub = Hub(listeners_max=LISTENERS_MAX)
        self.replica = Replica(
            self.workers,
            store,
            name=settings.replica,
            task_types=mapping.task_types(registry),
            pools=sizes,
            lease_page=self._lease_page,
            hub=hub,
            clock=self._clock,
            spool_bytes_max=settings.spool_bytes,
        )
        self._scaling = self._worker_scaling()
        # Known once it is started.
        self.http_port = self._port = 0
        self._live = self._live_server(hub)
        self._sweeper = ResultSweeper(store, keep=settings.retention + KEEP_LONGER)
        self._beats = BackgroundLoop("heartbeat", self._beat, interval=BEAT_SECONDS, jitter=0)
        self._ticks = BackgroundLoop("stream_watch", self._tick, interval=TICK_SECONDS, jitter=0)
        self._excess = BackgroundLoop("excess", self._hand_back_excess, interval=EXCESS_SECONDS, jitter=0)
        self._schema: asyncio.Task[None] | None = None
        self._server = GrpcServer(settings.host, settings.grpc_port, readiness=self._readiness())
        servicer = ExecutionServicer(
            self.replica, self.workers, store, name=settings.replica, hub=hub, clock=self._clock
        )
        self._server.add(add_ExecutionServiceServicer_to_server, servicer, SERVICE_NAME)
        token = settings.consul_token
        self._consul = ConsulRegistry(settings.consul_url, token.get_secret_value() if token else None)

    def _worker_scaling(self) -> WorkerScaling:
        least, most = self._settings.workers_range
        return WorkerScaling(
            self.workers,
            pool="cpu",
            least=least,
            most=most,
            idle_seconds=self._settings.workers_idle.total_seconds(),
            waiting=self.replica.waiting,
            on_change=self.replica.settle,
            clock=self._clock,
        )

    def _live_server(self, hub: Hub) -> LiveServer:
        return LiveServer(
            hub,
            ReplicaSource(self.replica.table),
            require_type=self._require_type,
            is_draining=lambda: self.replica.draining,
            host=self._settings.host,
            port=self._settings.http_port,
        )

    async def start(self) -> None:
        """Serve. Nothing that others provide has to be there yet; demand stays at zero until it is."""
        try:
            await self.workers.start()
        except TaskModuleError as error:
            hint = f"Workers see those variables alone that {variable('task_env')} names."
            raise SettingsError(f"{variable('task_modules')}: {error} {hint}") from error
        await self._database.open()
        self._schema = asyncio.create_task(self._prepare_schema(), name="result_schema")
        self.replica.outcomes.writer.start()
        self.replica.outcomes.logs.start()
        self.replica.earlier.start()
        port = await self._server.start()
        self._port = port
        self._note_address()
        self.http_port = await self._live.start()
        self._beats.start()
        self._ticks.start()
        self._excess.start()
        self._scaling.start()
        self._server.set_serving(True)
        await self._consul.register(
            ServiceRegistration(
                name=CONSUL_NAME,
                service_id=f"{CONSUL_NAME}-{self._settings.replica}",
                host=self._settings.current_host,
                port=port,
                grpc_check=True,
                meta={"replica": self._settings.replica, "http_port": str(self.http_port)},
            )
        )
        log.info(
            "replica_started",
            address=self.replica.address,
            http_port=self.http_port,
            session=self.replica.session.session_id,
        )

    async def drain(self) -> None:
        """Finish what runs, or give it back, and leave once managers know; then stop everything."""
        grace = self._settings.grace.total_seconds()
        deadline = self._clock.monotonic() + grace + VERDICTS_SECONDS
        self._server.set_serving(False)
        await self._scaling.stop()
        self.replica.start_draining()
        await self._leave_consul()
        await self.workers.drain(grace)
        if not await self._wait(lambda: self.replica.is_empty, deadline):
            log.warning("drain_incomplete", held=len(self.replica.table))
        self.replica.say_bye()
        farewell = self._clock.monotonic() + FAREWELL_SECONDS
        await self._wait(lambda: not len(self.replica.streams) and not len(self.replica.outcomes.logs), farewell)
        await self.stop(grace=FAREWELL_SECONDS)

    async def stop(self, *, grace: float = 0.0) -> None:
        """Stop everything; attempts in progress are killed. Calls in progress get `grace` seconds to end."""
        await self._scaling.stop()
        await self._excess.stop()
        await self._live.stop()
        await self._server.stop(grace)
        outcomes = self.replica.outcomes
        for loop in (self._ticks, self._beats, self._sweeper, self.replica.earlier, outcomes.writer, outcomes.logs):
            await loop.stop()
        await self._stop_schema()
        await self.workers.stop()
        self._lease_page.close()
        await self._database.close()
        await self._consul.close()

    async def _require_type(self, name: str) -> None:
        if not self.replica.serves(name):
            raise NotFound(f"This replica runs no task type {shown(name)!r}.", code="unknown_task_type")

    async def _leave_consul(self) -> None:
        try:
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self._consul.deregister()
        except TimeoutError:
            log.warning("deregistration_given_up")

    async def _wait(self, condition: Callable[[], bool], deadline: float) -> bool:
        while not condition():
            if self._clock.monotonic() >= deadline:
                return False
            await asyncio.sleep(0.02)
        return True

    async def _prepare_schema(self) -> None:
        """Bring the result DB to our schema, however long that takes, and only then ask for work."""
        dsn = self._settings.results_dsn.get_secret_value()
        while True:
            try:
                await migrate(dsn, "result_store")
                break
            except psycopg.Error as error:
                log.error("result_schema_failed", exc_info=error)
                await asyncio.sleep(SCHEMA_PAUSE_SECONDS)
        self._sweeper.start()
        self.replica.can_store = True
        self.replica.settle()

    async def _beat(self) -> None:
        self._note_address()
        self.replica.beat()

    def _note_address(self) -> None:
        """What the next session says; the address may have changed. Cut off from its network a machine has none."""
        with contextlib.suppress(ValueError):
            self.replica.address = address_of(self._settings.current_host(), self._port)

    async def _tick(self) -> None:
        self.replica.tick()

    async def _hand_back_excess(self) -> None:
        self.workers.hand_back_excess()

    async def _stop_schema(self) -> None:
        schema, self._schema = self._schema, None
        if schema is not None:
            # Cancelled while it connects, it leaves a connection half made that lives as long as the task does.
            schema.cancel()
            await asyncio.wait([schema])

    def _readiness(self) -> Readiness:
        """Ready means that heartbeats go out, workers are looked after, and results get to their database."""
        replica, within = self.replica, STANDSTILL_SECONDS
        readiness = Readiness()
        readiness.add("heartbeat", lambda: self._beats.problem(within=within))
        readiness.add("stream_watch", lambda: self._ticks.problem(within=within))
        readiness.add("workers", lambda: self.workers.problem(within=within))
        readiness.add("results", lambda: replica.outcomes.writer.problem(within=within))
        readiness.add("earlier_results", lambda: replica.earlier.problem(within=within))
        readiness.add_flag("result_schema", lambda: replica.can_store)
        return readiness

    def _on_finished(self, finished: list[Finished]) -> None:
        self.replica.outcomes.finished(finished)

    def _on_progress(self, items: list[ProgressItem]) -> None:
        self.replica.outcomes.progressed(items)


def _load_task_types(modules: Sequence[str]) -> TaskRegistry:
    try:
        registry = load_registry(modules)
        registry.check()
    except TaskModuleError as error:
        if error.__cause__ is not None:
            log.error("task_types_unusable", exc_info=error.__cause__)
        raise SettingsError(f"{variable('task_modules')}: {error}") from error
    return registry


def _pool_sizes(registry: TaskRegistry, settings: ExecutionSettings) -> dict[str, PoolSize]:
    """Only pools that some type runs in, since each costs a process; those of the user's own run one at a time."""
    known = {"cpu": PoolSize(settings.workers, 1), "io": PoolSize(1, settings.io_slots)}
    names = sorted({definition.pool for definition in registry.definitions})
    return {name: known.get(name, PoolSize(1, 1)) for name in names}
