"""Managers, replicas and tasks in virtual time, and all that goes wrong around them. One seed, one story."""

import asyncio
import contextlib
import logging
import os
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from random import Random

import structlog

from headrace.v1.task_pb2 import Backoff, Submission
from servicekit.discovery import StaticWatch
from servicekit.errors import HeadraceError
from tests.simulation.bus import Bus
from tests.simulation.checks import Checker
from tests.simulation.database import DatabaseServer
from tests.simulation.network import Network
from tests.simulation.processes import POOL, TYPE, SimulatedManager, SimulatedReplica, dialling
from tests.simulation.tables import FINAL, Tables
from tests.simulation.virtual_time import ProcessClock, VirtualLoop, current_process
from tests.unit.execution.world import MemoryResults

FAULT_SECONDS = 12.0
REST_SECONDS = 60.0
SETTLE_SECONDS = 6.0
TASKS_MAX = 25
_SLOW_STATEMENTS = (
    "insert_tasks",
    "claim_tasks",
    "complete_attempts",
    "lock_attempts",
    "move_attempts",
    "open_session",
    "raise_beats",
    "end_session",
)


class World:
    """`play` tells the story of the seed; what it broke is in `checker.violations`."""

    def __init__(self, seed: int, faults: Sequence[str] = ()) -> None:
        self.loop = VirtualLoop()
        self.rng = Random(seed)
        self.results = MemoryResults()
        self.checker = Checker(self.loop.time, self.results)
        self.tables = self.checker.tables = Tables(
            self.loop.time, on_task=self.checker.task_changed, on_executor=self.checker.session_changed
        )
        self.server = DatabaseServer(self.loop, self.tables, self.rng)
        self.network = Network(self.loop, self.rng)
        self.bus = Bus(self.loop, self.checker.published)
        self.watch = StaticWatch()
        self.managers: list[SimulatedManager] = []
        self.replicas = self.checker.replicas
        self._pages: list[SimulatedReplica] = []
        self._numbers = 0
        self._bursts = [self.rng.uniform(0.2, FAULT_SECONDS * 0.9) for _ in range(3)]
        # Swarm testing: each story knows some of the faults only, so that no kind drowns the others.
        kinds = sorted(FAULTS)
        self._kinds = faults or self.rng.sample(kinds, self.rng.randint(2, len(kinds)))

    async def play(self) -> None:
        for number in range(self.rng.randint(1, 3)):
            self._start_manager(f"m{number}")
        for number in range(self.rng.randint(2, 3)):
            self._start_replica(f"r{number}", f"r{number}:1")
        self.watch.replace([one.address for one in self.replicas])
        submissions = [asyncio.create_task(self._submit(task_id)) for task_id in range(1, TASKS_MAX + 1)]
        faults = [asyncio.create_task(self._trouble()) for _ in range(2)]
        await self._until(lambda: all(fault.done() for fault in faults), FAULT_SECONDS * 4)
        self._mend()
        await self._until(lambda: all(task.done() for task in submissions) and self._all_ended(), REST_SECONDS)
        await self._until(lambda: False, SETTLE_SECONDS)
        await asyncio.gather(*faults, *(task for task in submissions if task.done()))
        if not self.checker.violations:
            self.checker.at_rest(range(1, TASKS_MAX + 1))
        for task in submissions:
            task.cancel()

    def close(self) -> None:
        for one in self._pages:
            one.workers.die()
        self.loop.finish()
        for one in self._pages:
            one.page.close()
        for failure in self.loop.failures:
            self.checker.violations.append(f"a callback failed: {failure}")

    async def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        deadline = self.loop.time() + seconds
        while not condition() and not self.checker.violations and self.loop.time() < deadline:
            await asyncio.sleep(0.25)
            self.checker.demand()

    def _all_ended(self) -> bool:
        return all(row.status in FINAL for row in self.tables.tasks.values())

    # What users do.

    async def _submit(self, task_id: int) -> None:
        """Until a manager has confirmed it, always under the same id."""
        await asyncio.sleep(self.rng.choice((*self._bursts, self.rng.uniform(0.2, FAULT_SECONDS * 0.9))))
        submission = Submission(
            task_id=task_id,
            type=TYPE,
            data=b"{}",
            pool=POOL,
            priority=self.rng.randint(0, 9),
            max_attempts=3,
            timeout_ms=30_000,
            delay_ms=self.rng.choice((0, 0, 0, 0, 1500)),
        )
        submission.options.backoff.CopyFrom(Backoff(initial_ms=100, factor=2.0, max_ms=1000))
        while not await self._ask(lambda manager: manager.store.store([submission])):  # noqa: ASYNC110 - a client
            await asyncio.sleep(self.rng.uniform(0.1, 1.0))

    async def _ask(self, call: Callable[[SimulatedManager], Awaitable[object]]) -> bool:
        """Call a manager, with a deadline; false where it failed or did not answer."""
        manager = self.rng.choice(self.managers)
        answer: asyncio.Future[bool] = self.loop.create_future()

        async def serve() -> None:
            try:
                await call(manager)
            except HeadraceError:
                answered = False
            else:
                answered = True
            if not answer.done():
                answer.set_result(answered)

        manager.process.spawn(serve())
        try:
            async with asyncio.timeout(2.0):
                return await answer
        except TimeoutError:
            return False

    # What goes wrong.

    async def _trouble(self) -> None:
        while self.loop.time() < FAULT_SECONDS and not self.checker.violations:
            await asyncio.sleep(self.rng.uniform(0.1, 1.5))
            await FAULTS[self.rng.choice(self._kinds)](self)

    async def freeze_manager(self) -> None:
        process = self.rng.choice(self.managers).process
        process.freeze()
        await asyncio.sleep(self._some_seconds())
        process.thaw(timers_first=self.rng.random() < 0.5)

    async def freeze_replica(self) -> None:
        """The replica alone, or with its workers as when the machine stops."""
        one = self.rng.choice(self.replicas)
        stopped = [one.process, *(one.workers.processes if self.rng.random() < 0.5 else ())]
        for process in stopped:
            process.freeze()
        await asyncio.sleep(self._some_seconds())
        self.rng.shuffle(stopped)
        for process in stopped:
            process.thaw(timers_first=self.rng.random() < 0.5)
            await asyncio.sleep(self.rng.choice((0.0, 0.001, 0.1)))

    async def kill_manager(self) -> None:
        manager = self.rng.choice(self.managers)
        if manager.process.dead or len([one for one in self.managers if not one.process.dead]) == 1:
            return
        self._kill_manager(manager)
        await asyncio.sleep(self.rng.uniform(0.2, 3.0))
        self._replace_manager(manager)

    async def kill_replica(self) -> None:
        one = self.rng.choice(self.replicas)
        if one.process.dead:
            return
        one.process.kill()
        one.workers.die()
        self.network.process_died(one.process)
        await asyncio.sleep(self.rng.uniform(0.1, 5.0))
        self._replace_replica(one)

    async def kill_worker(self) -> None:
        one = self.rng.choice(self.replicas)
        if one.process.runs:
            one.workers.worker_dies()

    async def cut_link(self) -> None:
        self.network.cut(self.rng.choice(self.managers).process, self.rng.choice(self.replicas).address)
        await asyncio.sleep(self._some_seconds())
        self.network.heal()

    async def isolate_replica(self) -> None:
        """No manager hears it any more, or all but one do not."""
        address = self.rng.choice(self.replicas).address
        for manager in self.managers[self.rng.randint(0, 1) :]:
            self.network.cut(manager.process, address)
        await asyncio.sleep(self._some_seconds())
        self.network.heal()

    async def reset_link(self) -> None:
        self.network.reset(self.rng.choice(self.managers).process, self.rng.choice(self.replicas).address)

    async def delay_messages(self) -> None:
        self.network.delay_max = self.rng.choice((0.2, 1.0, 4.0))
        await asyncio.sleep(self._some_seconds())
        self.network.delay_max = 0.0

    async def lose_database(self) -> None:
        self.server.fail()
        await asyncio.sleep(self._some_seconds())
        self.server.away = False

    async def slow_database(self) -> None:
        """All statements are somewhat slow, or those of one kind very slow."""
        if self.rng.random() < 0.3:
            self.server.slow, self.server.slow_name = (1.0, 0.3), None
        else:
            self.server.slow, self.server.slow_name = (0.5, 5.0), self.rng.choice(_SLOW_STATEMENTS)
        await asyncio.sleep(self._some_seconds())
        self.server.slow = (0.0, 0.0)

    async def lose_replies(self) -> None:
        self.server.loses = 0.2
        await asyncio.sleep(self._some_seconds())
        self.server.loses = 0.0

    async def lose_bus(self) -> None:
        self.bus.away = True
        await asyncio.sleep(self._some_seconds())
        self.bus.away = False

    async def lose_results(self) -> None:
        self.results.away = True
        await asyncio.sleep(self._some_seconds())
        self.results.away = False

    async def cancel(self) -> None:
        if self.tables.tasks:
            task_id = self.rng.choice(list(self.tables.tasks))
            await self._ask(lambda manager: manager.lifecycle.cancel(task_id))

    async def retry_by_hand(self) -> None:
        ended = [row.task_id for row in self.tables.tasks.values() if row.status in FINAL]
        if ended:
            task_id = self.rng.choice(ended)
            await self._ask(lambda manager: manager.lifecycle.retry(task_id))

    def _some_seconds(self) -> float:
        """Often about as long as a lease, sometimes much shorter or longer."""
        return self.rng.choice((self.rng.uniform(0.1, 2.0), self.rng.uniform(3.0, 5.0), self.rng.uniform(4.0, 8.0)))

    def _mend(self) -> None:
        self.server.away, self.server.slow, self.server.loses = False, (0.0, 0.0), 0.0
        self.bus.away = self.results.away = False
        self.network.delay_max = 0.0
        self.network.heal()
        for process in self.loop.processes:
            process.thaw()

    # Starting and killing.

    def _clock(self) -> ProcessClock:
        return ProcessClock(self.loop, offset=self.rng.uniform(0, 1000))

    def _start_manager(self, name: str) -> SimulatedManager:
        process = self.loop.process(name)
        manager = process.run(
            lambda: SimulatedManager(
                process, server=self.server, bus=self.bus, watch=self.watch, clock=self._clock(), rng=self.rng
            )
        )
        process.run(manager.start)
        self.managers.append(manager)
        return manager

    def _kill_manager(self, manager: SimulatedManager) -> None:
        manager.process.kill()
        self.server.client_died(manager.process)
        self.network.process_died(manager.process)

    def _replace_manager(self, manager: SimulatedManager) -> None:
        self.managers.remove(manager)
        self._start_manager(manager.process.name)

    def _start_replica(self, name: str, address: str) -> None:
        process = self.loop.process(name)
        one = process.run(
            lambda: SimulatedReplica(
                process,
                loop=self.loop,
                address=address,
                results=self.results,
                clock=self._clock(),
                rng=self.rng,
                on=self.checker.handler,
            )
        )
        process.run(one.start)
        self.network.listeners[address] = (process, one.servicer)
        self.replicas.append(one)
        self._pages.append(one)

    def _replace_replica(self, one: SimulatedReplica) -> None:
        """Where it was, or on another port."""
        self.replicas.remove(one)
        self._numbers += 1
        address = one.address if self.rng.random() < 0.5 else f"{one.process.name}:{self._numbers + 1}"
        self._start_replica(one.process.name, address)
        self.watch.replace([replica.address for replica in self.replicas])


Fault = Callable[[World], Awaitable[None]]
FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        World.freeze_manager,
        World.freeze_replica,
        World.kill_manager,
        World.kill_replica,
        World.kill_worker,
        World.cut_link,
        World.isolate_replica,
        World.reset_link,
        World.delay_messages,
        World.lose_database,
        World.slow_database,
        World.lose_replies,
        World.lose_bus,
        World.lose_results,
        World.cancel,
        World.retry_by_hand,
    )
}


def simulate(seed: int, *, faults: Sequence[str] = ()) -> list[str]:
    """Play one story, with all `faults` or with some of those that there are, and return what it violated."""
    state = random.getstate()
    random.seed(seed)
    world = World(seed, faults)
    with _logging(world.loop), dialling(world.network):
        try:
            world.loop.run_until_complete(world.play())
        finally:
            world.close()
            random.setstate(state)
    return world.checker.violations


def replay_command(seed: int) -> str:
    """How to see the story again with everything that was logged in it."""
    return f"HEADRACE_SIMULATION_LOG=1 python -m tests.simulation --first {seed} --seeds 1"


@contextlib.contextmanager
def _logging(loop: VirtualLoop) -> Iterator[None]:
    """Silence, or with HEADRACE_SIMULATION_LOG=1 every event with its virtual time and process."""

    def stamp(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        process = current_process()
        return {"at": f"{loop.time():.3f}", "process": process.name if process else "world", **event}

    shown = os.environ.get("HEADRACE_SIMULATION_LOG")
    before = structlog.get_config()
    structlog.configure(
        processors=[stamp, structlog.processors.KeyValueRenderer(key_order=["at", "process", "event"])],
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET if shown else logging.CRITICAL),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.configure(**before)
