"""A management replica and an execution replica of the simulation: the product's own code on simulated surroundings."""

import asyncio
from contextlib import AbstractContextManager
from random import Random
from typing import cast
from unittest.mock import patch

from pydantic import SecretStr
from redis.asyncio import Redis

from execution_service.replica import Replica
from execution_service.rpc.servicer import ExecutionServicer
from execution_service.service import BEAT_SECONDS, TICK_SECONDS
from execution_service.workers.lease_page import LeasePage
from execution_service.workers.outcomes import WorkerInfo
from headrace.v1 import task_pb2
from management_service import links
from management_service.manager import Manager
from management_service.settings import ManagementSettings
from result_store.store import ResultStore
from servicekit.discovery import StaticWatch
from servicekit.live.hub import Hub
from servicekit.loops import BackgroundLoop
from tests.simulation.bus import Bus, SimulatedRedis
from tests.simulation.database import DatabaseServer, SimulatedDatabase
from tests.simulation.network import Network, Stream
from tests.simulation.virtual_time import Process, ProcessClock, VirtualLoop, current_process
from tests.simulation.workers import Observer, SimulatedWorkers
from tests.unit.execution.world import MemoryResults

POOL = "cpu"
TYPE = "word_count"
SLOTS = 2


class SimulatedManager(Manager):
    """Without intake from Redis and without retention; submissions are handed to `store`."""

    def __init__(
        self,
        process: Process,
        *,
        server: DatabaseServer,
        bus: Bus,
        watch: StaticWatch,
        clock: ProcessClock,
        rng: Random,
    ) -> None:
        self.process = process
        settings = ManagementSettings(
            replica=process.name, postgres_dsn=SecretStr("unused"), redis_url=SecretStr("unused")
        )
        database = SimulatedDatabase(server, process)
        super().__init__(settings, database, cast("Redis", SimulatedRedis(bus)), watch, clock=clock, rng=rng)
        bus.listen(process, self.dispatcher.may_wait)

    def start(self) -> None:
        self._watch.subscribe(self._ticker.wake)
        for run in (self.publisher.run, self.sessions.run, self.reports.run):
            self._runs.append(asyncio.create_task(run()))
        scheduler, outbox_relay = self._upkeep[:2]
        for part in (self._ticker, self.leases, self.dispatcher, self.waiting, scheduler, outbox_relay):
            part.start()


class SimulatedReplica:
    """Another session each time it is made; the name stays over restarts."""

    def __init__(
        self,
        process: Process,
        *,
        loop: VirtualLoop,
        address: str,
        results: MemoryResults,
        clock: ProcessClock,
        rng: Random,
        on: Observer,
    ) -> None:
        self.process = process
        self.address = address
        self.clock = clock
        self.page = LeasePage.create()
        self.workers = SimulatedWorkers(loop, process, self.page, clock, slots=SLOTS, rng=rng, on=on)
        hub = Hub()
        self.replica = Replica(
            self.workers,
            results,
            name=process.name,
            task_types=[task_pb2.TaskType(name=TYPE, pool=POOL, timeout_ms=30_000, max_attempts=3, version="1")],
            pools=[POOL],
            lease_page=self.page,
            hub=hub,
            clock=clock,
            spool_bytes_max=1 << 20,
        )
        self.replica.address = address
        self.replica.can_store = True
        self.workers.on_finished = self.replica.outcomes.finished
        self.servicer = ExecutionServicer(
            self.replica, _NoWorkerList(), cast("ResultStore", results), name=process.name, hub=hub, clock=clock
        )
        self._beats = BackgroundLoop("heartbeat", self._beat, interval=BEAT_SECONDS, jitter=0)
        self._ticks = BackgroundLoop("stream_watch", self._tick, interval=TICK_SECONDS, jitter=0)

    def start(self) -> None:
        outcomes = self.replica.outcomes
        for part in (outcomes.writer, outcomes.logs, self.replica.earlier, self._beats, self._ticks):
            part.start()

    async def _beat(self) -> None:
        self.replica.beat()

    async def _tick(self) -> None:
        self.replica.tick()


class _NoWorkerList:
    """Nobody lists or changes workers here."""

    def workers(self) -> list[WorkerInfo]:
        raise NotImplementedError

    def add_worker(self, pool: str) -> WorkerInfo:
        raise NotImplementedError

    def remove_worker(self, worker_id: str, *, force: bool = False) -> WorkerInfo:
        raise NotImplementedError


class _Channel:
    def __init__(self, address: str) -> None:
        self.address = address

    async def close(self) -> None:
        """A stream ends by itself."""


def dialling(network: Network) -> AbstractContextManager[object]:
    """Links dial in the simulated network while this is entered."""

    class Stub:
        def __init__(self, channel: _Channel) -> None:
            self._channel = channel

        def Dispatch(self) -> Stream:
            process = current_process()
            assert process is not None
            return network.dial(process, self._channel.address)

    return patch.multiple(links, open_channel=_Channel, ExecutionServiceStub=Stub)
