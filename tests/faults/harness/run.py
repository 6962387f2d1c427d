"""One scenario on a stack: its clients and ledger at the begin, rest and judgement at the end."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from redis.asyncio import Redis

from servicekit.cancelling import cancel_and_wait
from tests.faults.harness.checker import Allowed, Verdict, check, grown
from tests.faults.harness.client import Client, Task
from tests.faults.harness.events import SocketRecorder
from tests.faults.harness.evidence import Footprint, OrphanSampler, Outage, Recovery, Survivor, drained, gather
from tests.faults.harness.ledger import Ledger
from tests.faults.harness.stack import Stack
from tests.support.side_effects import SideEffects
from tests.support.waiting import wait_until

SERVICES = ("gateway", "management", "execution")
_ASK_SECONDS = 0.2
# Far beyond what is promised; the checker judges.
_READY_SECONDS = 30.0


class Run:
    """A scenario: `async with Run(stack, folder) as run`, then submit, break things, and `await run.settle(…)`.

    It starts on an empty database, with every process running and every link whole, and leaves the stack like that.
    """

    def __init__(self, stack: Stack, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.stack = stack
        self.ledger = Ledger(folder / "ledger.jsonl")
        self.effects = SideEffects(folder / "side-effects")
        self.client = Client([stack.gateway_url(number) for number in range(stack.sizes.gateways)], self.ledger)
        self.recorder = SocketRecorder(stack.gateway_url())
        self._orphans = OrphanSampler(stack)
        self._log_begins: dict[str, int] = {}
        # Of the services at the begin: pid and what they held.
        self._before: dict[str, tuple[int, Footprint]] = {}
        self._recoveries: list[Recovery] = []
        self._outages: list[Outage] = []

    async def __aenter__(self) -> Self:
        try:
            await self.repair()
        except AssertionError:
            # The scenario before has failed and left what never comes to rest: that must not fail the next one.
            await self._start_anew()
        await self._empty()
        self._orphans.start()
        self._log_begins = {name: len(self.stack.log_lines(name)) for name in self.stack.processes}
        pids = {name: self.stack[name].pid for role in SERVICES for name in self.stack.names(role)}
        self._before = {name: (pid, Footprint.of(pid)) for name, pid in pids.items()}
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._orphans.stop()
        await self.recorder.stop()
        await self.client.__aexit__(kind, error, trace)

    def tasks(self, count: int, *, seconds: float = 0.0, **options: Any) -> list[Task]:
        """Bodies of tasks that leave side effects."""
        data = self.effects.data(seconds)
        return [{"type": "append_line", "data": data, **options} for _ in range(count)]

    def recovered(self, what: str, seconds: float, *, within: float) -> None:
        """Have the time judged that something took."""
        print(f"{what} recovery_s={seconds:.2f}")  # noqa: T201
        self._recoveries.append(Recovery(what, seconds, within))

    @contextlib.asynccontextmanager
    async def outage(self, name: str) -> AsyncIterator[None]:
        """Have judged what a service says of itself while it cannot work, which is within, and after."""
        said: list[tuple[float, bool]] = []

        async def ask() -> bool:
            at, ready = time.monotonic(), await self.stack.serves(name)
            said.append((at, ready))
            return ready

        async def ask_always() -> None:
            while True:
                await ask()
                await asyncio.sleep(_ASK_SECONDS)

        began = time.monotonic()
        asking = asyncio.create_task(ask_always())
        try:
            yield
        finally:
            await cancel_and_wait(asking)
        ended = time.monotonic()
        await wait_until(ask, timeout=_READY_SECONDS)
        self._outages.append(Outage(name, began, ended, said))

    def promise(self, task_ids: Sequence[int]) -> None:
        """Have tasks judged that the scenario has put into the database itself."""
        entry = self.ledger.begin(key=None, count=len(task_ids), now=time.monotonic())
        entry.outcome, entry.task_ids = "acked", list(task_ids)
        self.ledger.end(entry)

    def async_tasks(self, count: int, *, seconds: float = 0.0, **options: Any) -> list[Task]:
        """As `tasks`, but many of them run at once in one worker process."""
        return [{**task, "type": "append_line_async"} for task in self.tasks(count, seconds=seconds, **options)]

    async def start_async_on(self, replica: str, *, seconds: float, at_least: int = 1) -> list[int]:
        """Submit such tasks, two at a time, until a replica runs so many: who gets them is for managers to say."""
        task_ids: list[int] = []

        async def more() -> bool:
            task_ids.extend(await self.client.submit(self.async_tasks(2, seconds=seconds)))
            await wait_until(lambda: self.effects.starts().keys() >= set(task_ids), timeout=20)
            return len(set(task_ids) & await self.running_on(replica)) >= at_least

        for _ in range(50):
            if await more():
                return task_ids
        raise AssertionError(f"{replica} gets no work")

    async def running_on(self, replica: str) -> set[int]:
        """The tasks that are processing under the live session of a replica."""
        rows = await self.stack.query(
            "SELECT task_id FROM tasks JOIN executors USING (session_id)"
            f" WHERE status = 'processing' AND replica = '{replica}' AND ended_at IS NULL"
        )
        return {int(str(task_id)) for (task_id,) in rows}

    async def started(self, count: int, *, timeout: float = 20.0) -> None:
        """Wait until so many tasks have been started."""
        await wait_until(lambda: len(self.effects.starts()) >= count, timeout=timeout)

    async def start_tasks(self, count: int, *, seconds: float, **options: Any) -> list[int]:
        """Submit tasks and wait until all of them run: there have to be as many workers."""
        task_ids = await self.client.submit(self.tasks(count, seconds=seconds, **options))
        await self.started(count)
        return task_ids

    def started_again(self) -> set[int]:
        """The tasks of which a later attempt was started."""
        return {line.task_id for line in self.effects.lines() if line.event == "start" and line.attempt > 1}

    def logged(self, role: str, event: str, **fields: object) -> list[dict[str, Any]]:
        """What the processes of a role have logged of an event since the begin of this run."""
        found = []
        for name in self.stack.names(role):
            for line in self.stack.log_lines(name)[self._log_begins[name] :]:
                entry = json.loads(line) if line.startswith("{") else {}
                if entry.get("event") == event and fields.items() <= entry.items():
                    found.append(entry)
        return found

    async def submit_until_fired(self, point: str, count: int, *, seconds: float, timeout: float = 20.0) -> list[int]:
        """Submit so many tasks at a time until one has passed an armed failpoint.

        Which replica takes a task depends on what each has asked for by then, so one round may pass it by.
        """
        deadline = time.monotonic() + timeout
        task_ids: list[int] = []
        while not self.stack.has_fired(point):
            assert time.monotonic() < deadline, f"{point} was never passed"
            task_ids += await self.client.submit(self.tasks(count, seconds=seconds))
            with contextlib.suppress(AssertionError):
                await self.stack.fired(point, timeout=2 * seconds + 0.5)
        return task_ids

    def seconds_to_rerun(self, since: float) -> list[float]:
        """How long after `since` (monotonic) each later attempt was started."""
        return sorted(line.at - since for line in self.effects.lines() if line.event == "start" and line.attempt > 1)

    async def busiest(self) -> tuple[str, list[int]]:
        """The replica with the most tasks in progress, and those tasks."""
        [(replica, task_ids)] = await self.stack.query(
            "SELECT replica, array_agg(task_id) FROM tasks JOIN executors USING (session_id)"
            " WHERE status = 'processing' GROUP BY replica ORDER BY count(*) DESC LIMIT 1"
        )
        return str(replica), list(task_ids)  # type: ignore[call-overload]

    async def repair(self, *, drain_seconds: float = 60.0) -> None:
        """End all faults, start what has ended, and wait until everything is whole and at rest."""
        stack = self.stack
        stack.heal()
        stack.disarm()
        stack.thaw(*stack.processes)
        await stack.start(*[name for name, process in stack.processes.items() if not process.running])
        await stack.whole()
        await drained(stack, timeout=drain_seconds)

    async def _empty(self) -> None:
        await self.stack.query("TRUNCATE tasks, ended_attempts, outbox")
        await self.stack.query("TRUNCATE results, attempt_logs", results=True)

    async def _start_anew(self) -> None:
        services = [name for role in ("gateway", "management", "execution") for name in self.stack.names(role)]
        self.stack.kill(*[name for name in services if self.stack[name].running])
        await self._empty()
        async with Redis.from_url(self.stack.redis_url) as redis:
            await redis.flushall()
        await self.stack.start(*services)
        await self.stack.whole()

    async def _survivors(self) -> list[Survivor]:
        """Those that lived through the run; connections of others take a moment to end."""
        survivors: list[Survivor] = []

        def are_as_before() -> bool:
            survivors[:] = [
                Survivor(name, before, Footprint.of(pid))
                for name, (pid, before) in self._before.items()
                if self.stack[name].pid == pid
            ]
            return not grown(survivors)

        with contextlib.suppress(AssertionError):
            await wait_until(are_as_before)
        return survivors

    async def settle(
        self, allowed: Allowed | None = None, *, finals: Sequence[int] = (), drain_seconds: float = 60.0
    ) -> Verdict:
        """Repair, wait until everything has come to rest, and hold the run to its invariants."""
        repaired = time.monotonic()
        await self.repair(drain_seconds=drain_seconds)
        if finals:
            await self.client.finals(finals)
        events = self.recorder.events
        if events:
            await self.recorder.finish()
        evidence = await gather(self.stack, self.effects, events)
        evidence.orphaned_seconds = await self._orphans.stop()
        evidence.recoveries, evidence.outages = self._recoveries, self._outages
        evidence.survivors = await self._survivors()
        verdict = check(self.ledger, evidence, replace(allowed or Allowed(), events=bool(events)))
        print(f"settled in {time.monotonic() - repaired:.1f} s: {verdict}")  # noqa: T201 - shown with a failure
        assert not verdict.violations, str(verdict)
        return verdict
