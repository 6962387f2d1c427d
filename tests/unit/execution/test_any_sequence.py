"""Whatever managers, workers, the result DB and time do: nothing accepted is lost, nothing is asked for twice."""

import asyncio
import contextlib
from random import Random

import hypothesis.strategies as st
from hypothesis import given, settings

from execution_service.attempts import Phase
from execution_service.rpc.streams import ManagerStream
from execution_service.workers.outcomes import Outcome
from headrace.v1 import execution_pb2, task_pb2
from servicekit.errors import Unavailable
from tests.unit.execution.factories import assignment, finished
from tests.unit.execution.world import World

ACTIONS = ("attach", "detach", "assign", "finish", "store", "judge", "recall", "live", "away", "back", "end", "cancel")


class Story:
    """Plays random events against one replica, with managers that follow the contract."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.world = World()
        self.streams: list[ManagerStream] = []
        self.open: dict[int, int] = {}
        self.totals: dict[int, tuple[int, int, int]] = {}
        self.recalled: set[int] = set()
        self.unjudged: dict[int, list[task_pb2.Report]] = {}
        self.next_id = 1
        self.accepted: set[tuple[int, int]] = set()
        self.judged: set[tuple[int, int]] = set()

    async def play(self, action: str) -> None:
        submitted = len(self.world.workers.submitted)
        closed = self.world.replica.table.is_closed
        await getattr(self, action)()
        if closed and self.world.replica.table.is_closed:
            assert len(self.world.workers.submitted) == submitted, "nothing starts beside a solitary attempt"
        for stream in [stream for stream in self.streams if stream.closed]:
            self._forget(stream)
        for stream in self.streams:
            await self._hear(stream)
        held = self.world.replica.table.unfinished("cpu")
        out = self.world.replica.demand.open("cpu")
        assert out == sum(granted - sent - returned for granted, sent, returned in self.totals.values())
        assert held + out <= self.world.workers.slots_now

    async def attach(self) -> None:
        stream = self.world.attach(f"m{self.random.randint(1, 3)}")
        self.streams.append(stream)
        self.totals[stream.number] = (0, 0, 0)
        self.unjudged[stream.number] = []

    async def detach(self) -> None:
        if self.streams:
            self.world.replica.detach(self.random.choice(self.streams), reason="test")

    async def assign(self) -> None:
        for stream in self.streams:
            granted, sent, returned = self.totals[stream.number]
            count = min(granted - sent - returned, self.random.randint(0, 3))
            if count > 0:
                self.totals[stream.number] = (granted, sent + count, returned)
                tasks = [
                    assignment(self.next_id + number, self.random.choice([1, 2]), solitary=self.random.random() < 0.1)
                    for number in range(count)
                ]
                self.next_id += count
                self.world.assign(stream, *tasks)
                self._use(stream)
                held = map(self.world.replica.table.find, [task.task_id for task in tasks])
                self.accepted.update(item.key for item in held if item)

    async def finish(self) -> None:
        outcomes = (Outcome.COMPLETED, Outcome.FAILED, Outcome.HANDED_BACK)
        running = [key for key in self.accepted if self._phase(key) is Phase.IN_POOL]
        chosen = running[: self.random.randint(0, 4)]
        self.world.replica.outcomes.finished([finished(*key, outcome=self.random.choice(outcomes)) for key in chosen])

    async def store(self) -> None:
        for run_once in (self.world.replica.earlier.run_once, self.world.replica.outcomes.writer.run_once):
            with contextlib.suppress(Unavailable):
                await run_once()

    async def judge(self) -> None:
        for stream in self.streams:
            reports, self.unjudged[stream.number] = self.unjudged[stream.number], []
            verdict = self.random.choice([task_pb2.VERDICT_ACCEPTED, task_pb2.VERDICT_STALE, task_pb2.VERDICT_UNKNOWN])
            keys = [(report.task_id, report.attempt) for report in reports]
            self.judged.update(keys)
            self.world.judge(stream, verdict, *keys)

    async def recall(self) -> None:
        for stream in self.streams:
            if stream.number in self.recalled:
                granted, sent, _ = self.totals[stream.number]
                self.totals[stream.number] = (granted, sent, granted - sent)
                self.recalled.discard(stream.number)
                self._use(stream)

    async def live(self) -> None:
        echoing = [stream for stream in self.streams if self.random.random() < 0.8]
        self.world.live(self.random.choice([0.25, 1.0, 3.0]), *echoing)

    async def away(self) -> None:
        self.world.results.away = True

    async def back(self) -> None:
        self.world.results.away = False

    async def end(self) -> None:
        if self.random.random() < 0.2:
            lost = {key for key in self.accepted if self._phase(key) in (Phase.CHECKING, Phase.IN_POOL)}
            self.accepted -= lost
            self.world.replica.take_end(self.world.session_id)
            self.world.replica.settle()

    async def cancel(self) -> None:
        self.world.replica.take_cancels(self.world.session_id, list(self.accepted)[:3])
        self.world.replica.settle()

    def _phase(self, key: tuple[int, int]) -> Phase | None:
        held = self.world.replica.table.find(key[0])
        return held.phase if held else None

    def _use(self, stream: ManagerStream) -> None:
        _, sent, returned = self.totals[stream.number]
        used = execution_pb2.DemandUse(pool="cpu", sent=sent, returned=returned)
        self.world.replica.take_demand_use(stream, [used])
        self.world.replica.settle()

    def _forget(self, stream: ManagerStream) -> None:
        self.streams.remove(stream)
        self.recalled.discard(stream.number)
        del self.totals[stream.number], self.unjudged[stream.number]

    async def _hear(self, stream: ManagerStream) -> None:
        message = await self.world.heard(stream)
        self.unjudged[stream.number].extend(message.reports)
        for grant in message.demand:
            _, sent, returned = self.totals[stream.number]
            self.totals[stream.number] = (grant.granted, sent, returned)
            if grant.recall:
                self.recalled.add(stream.number)

    async def come_to_rest(self) -> None:
        """Everything works again, for long enough."""
        await self.back()
        await self.attach()
        for _ in range(8):
            for action in ("store", "finish", "store", "judge", "recall"):
                await self.play(action)
            self.world.live(3.0, *self.streams)


@settings(max_examples=150, deadline=None)
@given(actions=st.lists(st.sampled_from(ACTIONS), max_size=60), seed=st.integers(0, 2**32))
def test_every_attempt_that_was_taken_on_is_reported_until_its_verdict(actions: list[str], seed: int) -> None:
    async def tell() -> None:
        story = Story(seed)
        for action in actions:
            await story.play(action)
        await story.come_to_rest()
        assert len(story.world.replica.table) == 0
        assert story.accepted <= story.judged
        assert story.world.replica.demand.open("cpu") == story.world.workers.slots_now

    asyncio.run(tell())
