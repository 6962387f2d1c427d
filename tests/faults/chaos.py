"""F85, the soak: `python -m tests.faults.chaos` breaks a cluster at random for minutes, and counts what that cost.

Every quarter of a second it may kill a process, freeze one for 1 to 12 s, restart Redis or a PostgreSQL server, break
a link, or submit a task that harms its worker, while clients submit tasks as they go. What was killed is started again
after a moment, as a supervisor would. The seed decides the whole schedule of faults and is printed: `--seed` replays.

Prints what was attempted, acknowledged, lost, doubled and left stuck, and how long recoveries took; ends with 1 if an
invariant does not hold. The folder with logs and data of a failed run is kept.
"""

import argparse
import asyncio
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.faults.harness.checker import Allowed, Verdict
from tests.faults.harness.client import Task
from tests.faults.harness.proxy import Faults
from tests.faults.harness.run import Run
from tests.faults.harness.stack import Sizes, Stack
from tests.support.side_effects import Line

SIZES = Sizes(gateways=2, managers=2, executors=3, workers=3)
TICK_SECONDS = 0.25
BATCH = 50
# Some wait for a gateway that is frozen while others go on.
CLIENTS = 8
# Tasks that were lost with two replicas run one after the other, with nothing beside them.
DRAIN_SECONDS = 600.0
# What a tick brings, with its probability.
CHANCES = (("kill", 0.08), ("freeze", 0.03), ("redis", 0.02), ("postgres", 0.01), ("link", 0.03), ("toxic", 0.05))
MORTALS = (
    "gateway-0",
    "gateway-1",
    "management-0",
    "management-1",
    "execution-0",
    "execution-1",
    "execution-2",
    "consul",
)
# How long the handlers of good tasks take, with weights.
SECONDS = ((0.0, 90), (0.2, 9), (2.0, 1))
TOXIC: tuple[Task, ...] = (
    {"type": "crash", "data": {"signal": int(signal.SIGKILL)}},
    {"type": "crash", "data": {"signal": int(signal.SIGSEGV), "times": 1}},
    {"type": "crash", "data": {"exit_code": 0}},
    {"type": "fail", "data": {"times": 1}},
    {"type": "fail", "data": {}},
    {"type": "fail", "data": {"permanent": True}},
    {"type": "ignore_sigterm", "data": {"seconds": 30}, "timeout": 1},
)
GOOD_TYPE = "append_line"
# Losses after which a task is given up as one that kills replicas: in a soak, good ones can have such bad luck.
LOSSES_MAX = 3


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of the schedule: when (from the start), what, to whom, and for how long."""

    at: float
    kind: str
    target: str
    seconds: float
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.at:7.2f} {self.kind} {self.target} {self.detail} {self.seconds:.1f} s".replace("  ", " ")


def schedule(seed: int, *, seconds: float, links: Sequence[str]) -> list[Fault]:
    """All faults of a run; the same seed gives the same."""
    rng = random.Random(seed)
    return list(_faults(rng, seconds, links))


def _faults(rng: random.Random, seconds: float, links: Sequence[str]) -> Iterator[Fault]:
    kinds = [kind for kind, _ in CHANCES]
    weights = [chance for _, chance in CHANCES]
    at = 0.0
    while (at := at + TICK_SECONDS) < seconds:
        [kind] = rng.choices([*kinds, ""], [*weights, 1 - sum(weights)])
        if kind == "kill":
            yield Fault(at, kind, rng.choice(MORTALS), rng.uniform(0.1, 2.0))
        elif kind == "freeze":
            yield Fault(at, kind, rng.choice(MORTALS), rng.uniform(1.0, 12.0))
        elif kind == "redis":
            yield Fault(at, kind, "redis", rng.uniform(0.1, 2.0))
        elif kind == "postgres":
            yield Fault(at, kind, rng.choice(("postgres", "results")), rng.uniform(0.1, 2.0))
        elif kind == "link":
            detail = rng.choice(("blackhole", "reset", "refuse", "delay", "lose reply"))
            yield Fault(at, kind, rng.choice(links), rng.uniform(0.5, 5.0), detail)
        elif kind == "toxic":
            yield Fault(at, kind, str(rng.randrange(len(TOXIC))), 0.0)


@dataclass(slots=True)
class Struck:
    """A fault that happened, by the monotonic clock."""

    fault: Fault
    at: float


class Monkey:
    """Carries the schedule out, and undoes each fault after its time."""

    def __init__(self, run: Run) -> None:
        self.struck: list[Struck] = []
        self._run = run
        self._stack = run.stack
        # Who is being killed or frozen now: one fault at a time is enough for each.
        self._busy: set[str] = set()
        self._undoing: set[asyncio.Task[None]] = set()

    async def carry_out(self, faults: Sequence[Fault]) -> None:
        began = time.monotonic()
        for fault in faults:
            await asyncio.sleep(max(0.0, began + fault.at - time.monotonic()))
            if fault.target not in self._busy:
                self._strike(fault)
        await asyncio.gather(*self._undoing)

    def _strike(self, fault: Fault) -> None:
        acts: dict[str, Callable[[Fault], Coroutine[Any, Any, None]]] = {
            "freeze": self._freeze,
            "link": self._break_link,
            "toxic": self._submit_toxic,
        }
        self.struck.append(Struck(fault, time.monotonic()))
        self._busy.add(fault.target)
        task = asyncio.create_task(acts.get(fault.kind, self._kill)(fault))
        self._undoing.add(task)
        task.add_done_callback(lambda _: self._busy.discard(fault.target))

    async def _kill(self, fault: Fault) -> None:
        self._stack.kill(fault.target)
        await asyncio.sleep(fault.seconds)
        await self._stack.start(fault.target)

    async def _freeze(self, fault: Fault) -> None:
        self._stack.freeze(fault.target)
        await asyncio.sleep(fault.seconds)
        self._stack.thaw(fault.target)

    async def _break_link(self, fault: Fault) -> None:
        link = self._stack.link(*fault.target.split(">"))
        if fault.detail == "reset":
            link.reset()
            return
        link.faults = {
            "blackhole": Faults(blackhole_up=True, blackhole_down=True),
            "refuse": Faults(refuse=True),
            "delay": Faults(delay=0.2, jitter=0.1),
            "lose reply": Faults(lose_replies=1),
        }[fault.detail]
        if fault.detail == "refuse":
            link.reset()
        await asyncio.sleep(fault.seconds)
        link.heal()

    async def _submit_toxic(self, fault: Fault) -> None:
        await self._run.client.try_submit([TOXIC[int(fault.target)]])


@dataclass(slots=True)
class Soak:
    """One run: `count` tasks over `seconds`."""

    seed: int
    count: int
    seconds: float
    say: Callable[[str], None]

    async def run(self, folder: Path) -> bool:
        """Break a cluster in `folder`; tell whether every invariant held."""
        async with Stack(folder / "stack", SIZES, seed=self.seed) as stack, Run(stack, folder / "run") as run:
            links = sorted(f"{source}>{target}" for source, target in stack.link_names())
            faults = schedule(self.seed, seconds=self.seconds, links=links)
            monkey = Monkey(run)
            clients = [
                asyncio.create_task(self._submit(run, random.Random(f"{self.seed} {n}"))) for n in range(CLIENTS)
            ]
            await monkey.carry_out(faults)
            await asyncio.gather(*clients)
            self._tell_faults(monkey.struck)
            calm = time.monotonic()
            verdict = await self._settle(run)
            if verdict is None:
                return False
            self.say(f"at rest {time.monotonic() - calm:.1f} s after the last fault was undone")
            self._tell_recoveries(run.effects.lines(), await _losses(stack), monkey.struck)
            return not verdict.violations and await self._good_ones_are_unharmed(stack)

    async def _submit(self, run: Run, rng: random.Random) -> None:
        """Submit what is one client's part, evenly over the time of the run."""
        began, batches = time.monotonic(), self.count // BATCH // CLIENTS
        for number in range(batches):
            await asyncio.sleep(max(0.0, began + number * self.seconds / batches - time.monotonic()))
            [seconds] = rng.choices([each for each, _ in SECONDS], [weight for _, weight in SECONDS])
            await run.client.try_submit(run.tasks(BATCH, seconds=seconds))

    async def _settle(self, run: Run) -> Verdict | None:
        endless = 10**9
        allowed = Allowed(reruns=endless, charged=endless, statuses=("completed", "failed"))
        try:
            return await run.settle(allowed, drain_seconds=DRAIN_SECONDS)
        except AssertionError as error:
            self.say(str(error))
            return None

    def _tell_faults(self, struck: Sequence[Struck]) -> None:
        counts = Counter(each.fault.kind for each in struck)
        self.say(f"{len(struck)} faults: " + ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items())))

    def _tell_recoveries(self, lines: Sequence[Line], losses: Sequence["Loss"], struck: Sequence[Struck]) -> None:
        starts = {(line.task_id, line.attempt): line.at for line in lines if line.event == "start"}
        first = [loss for loss in losses if loss.number == 1]
        for kind in ("kill", "freeze"):
            times = list(_recoveries(kind, starts, first, struck))
            self.say(f"started elsewhere after a {kind} of its replica: {_spread(times)}")
        alone = [loss for loss in losses if loss.number == 2]
        times = [time for kind in ("kill", "freeze") for time in _recoveries(kind, starts, alone, struck)]
        self.say(f"started alone after its second loss: {_spread(times)}")
        ends = sorted(line.at for line in lines if line.event == "end")
        pauses = [later - earlier for earlier, later in pairwise(ends)]
        self.say(f"longest time in which no task ended: {max(pauses, default=0.0):.1f} s")

    async def _good_ones_are_unharmed(self, stack: Stack) -> bool:
        """Good tasks are charged nothing, and fail only where three replicas were lost under them."""
        query = (
            "SELECT count(*), count(*) FILTER (WHERE failures + worker_deaths > 0 OR (status <> 'completed' AND {}))"
        )
        [(count, harmed)] = await stack.query(
            f"{query.format(f'replica_losses < {LOSSES_MAX}')} FROM tasks WHERE type = '{GOOD_TYPE}'"
        )
        [(given_up,)] = await stack.query(
            f"SELECT count(*) FROM tasks WHERE type = '{GOOD_TYPE}' AND status = 'failed'"
        )
        self.say(f"good tasks {count}, harmed by others {harmed}, given up after {LOSSES_MAX} lost replicas {given_up}")
        return harmed == 0


@dataclass(frozen=True, slots=True)
class Loss:
    """An attempt that was lost with its replica."""

    task_id: int
    attempt: int
    replica: str
    # Which loss of its task it is. After the second one a task waits until a replica has nothing else to do.
    number: int


async def _losses(stack: Stack) -> list[Loss]:
    rows = await stack.query(
        "SELECT a.task_id, a.attempt, e.replica, row_number() OVER (PARTITION BY a.task_id ORDER BY a.attempt)"
        " FROM ended_attempts a JOIN executors e USING (session_id) WHERE a.outcome = 'replica_lost'"
    )
    return [Loss(int(str(row[0])), int(str(row[1])), str(row[2]), int(str(row[3]))) for row in rows]


def _recoveries(
    kind: str, starts: dict[tuple[int, int], float], losses: Sequence[Loss], struck: Sequence[Struck]
) -> Iterator[float]:
    """Seconds from the fault of a replica to the next start of each attempt that had begun there."""
    for loss in losses:
        begun, again = starts.get((loss.task_id, loss.attempt)), starts.get((loss.task_id, loss.attempt + 1))
        if begun is None or again is None:
            continue
        blows = [each for each in struck if each.fault.target == loss.replica and begun <= each.at <= again]
        if blows and blows[0].fault.kind == kind:
            yield again - blows[0].at


def _spread(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{len(values)} attempts {' '.join(f'{value:.1f} s' for value in values)}".strip()
    hundredths = statistics.quantiles(values, n=100)
    return f"{len(values)} attempts, p50 {hundredths[49]:.1f} s, p99 {hundredths[98]:.1f} s, max {max(values):.1f} s"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.chaos", description="The soak: F85.")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3)))
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=180.0, help="how long faults and submissions go on")
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="headrace-chaos-"))
    _say(f"F85 seed {options.seed}, {options.tasks} tasks over {options.seconds:g} s, in {folder}")
    soak = Soak(options.seed, options.tasks, options.seconds, _say)
    good = asyncio.run(soak.run(folder))
    if good:
        shutil.rmtree(folder, ignore_errors=True)
    _say(f"F85 seed {options.seed}: {'every invariant held' if good else f'broken; see {folder}'}")
    return 0 if good else 1


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a program for people


if __name__ == "__main__":
    sys.exit(main())
