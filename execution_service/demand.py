"""How much work this replica asks for, and from which manager. Pure: no clock, no streams, no waiting.

Demand is kept as running totals per stream and pool (granted, sent, returned), so nothing is counted twice and
nothing leaks: what is open on a stream is granted - sent - returned, and a stream that ends is forgotten with it.
"""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

PREFETCH_SECONDS = 0.05
PREFETCH_MAX = 2_000
# Demand that lay unused this long is moved when another manager has none.
IDLE_SECONDS = 1.0
# A manager may answer that it cannot give back what it is claiming for right now: it is asked again, but not at once.
RECALL_SECONDS = 1.0
# A manager that does not answer at all does not read what we send.
RECALL_UNANSWERED_SECONDS = 5.0
# About this many of the latest assignments decide what may come next.
RECENT_TASKS = 200
# What came before says nothing of what comes after a pause of this length.
RECENT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Target:
    """What may be held and asked for of one pool: what runs at once, and what waits so that nobody idles."""

    slots: int
    prefetch: int = 0

    @property
    def total(self) -> int:
        return self.slots + self.prefetch

    @property
    def step(self) -> int:
        """Grants are made for this many at least: with short tasks one message must serve many of them.

        It is a part of the prefetch alone, so waiting for it never leaves a slot without work.
        """
        return max(1, self.prefetch // 4)


NOTHING = Target(0)


def prefetch(slots: int, mean_seconds: float, *, long_part: float = 0.0) -> int:
    """Tasks worth about PREFETCH_SECONDS for each of the slots.

    Where a part of what comes is long, so few that this takes no more than half of the slots.
    """
    count = min(PREFETCH_MAX, int(slots * PREFETCH_SECONDS / max(mean_seconds, 1e-6)))
    return min(count, int(slots / (2 * long_part))) if long_part else count


class RecentTypes:
    """Which types a pool was given lately: those may come next."""

    def __init__(self) -> None:
        self._weights: dict[str, float] = {}
        self._noted_at = float("-inf")

    def note(self, counts: Mapping[str, int], *, now: float) -> None:
        keep = 0.5 ** (sum(counts.values()) / (RECENT_TASKS / 2))
        faded = {name: weight * keep for name, weight in self._weights.items() if weight * keep >= 0.1}
        for name, count in counts.items():
            faded[name] = faded.get(name, 0.0) + min(count, RECENT_TASKS)
        self._weights = faded
        self._noted_at = now

    def prefetch(self, slots: int, mean_of: Callable[[str], float | None], *, now: float) -> int:
        """How much to ask for beyond what starts at once, with `slots` that no long task takes.

        None after a pause: more than starts at once is worth holding only while tasks keep coming. Types that were
        never measured count as long.
        """
        if slots <= 0 or now - self._noted_at >= RECENT_SECONDS:
            return 0
        total = sum(self._weights.values())
        means = ((weight, mean_of(name)) for name, weight in self._weights.items())
        short = [(weight, mean) for weight, mean in means if mean is not None and mean <= PREFETCH_SECONDS]
        weight = sum(weight for weight, _ in short)
        if not weight:
            return 0
        mean = sum(weight * mean for weight, mean in short) / weight
        return prefetch(slots, mean, long_part=(total - weight) / total)


@dataclass(slots=True)
class Line:
    """The account of one stream for one pool."""

    granted: int = 0
    # What the manager says, or what we have received if that is more: its totals follow its assignments.
    sent: int = 0
    received: int = 0
    returned: int = 0
    # Asked back, and not answered yet.
    recalled: bool = False
    recalled_at: float = float("-inf")
    # Its demand was asked back for lying unused, and it has used none since.
    idle: bool = False
    # Open demand lies unused since then.
    unused_since: float = 0.0

    @property
    def open(self) -> int:
        return max(0, self.granted - self.sent - self.returned)

    def use(self, sent: int, now: float) -> None:
        if sent > self.sent:
            self.sent = sent
            self.idle = False
            self.unused_since = now
        if not self.open:
            self.recalled = False


@dataclass(frozen=True, slots=True)
class Grant:
    """What to tell one stream of one pool."""

    stream: int
    pool: str
    granted: int
    recall: bool


@dataclass(slots=True)
class _Plan:
    """One round of decisions about one pool."""

    pool: str
    target: Target
    held: int
    now: float
    changed: dict[int, Grant] = field(default_factory=dict)

    def grant(self, stream: int, line: Line, count: int) -> None:
        if count <= 0:
            return
        if line.open == 0:
            line.unused_since = self.now
        line.granted += count
        line.recalled_at = float("-inf")
        self.changed[stream] = Grant(stream, self.pool, line.granted, recall=False)

    def recall(self, stream: int, line: Line) -> None:
        if line.open and not line.recalled and self.now - line.recalled_at >= RECALL_SECONDS:
            line.recalled, line.recalled_at = True, self.now
            self.changed[stream] = Grant(stream, self.pool, line.granted, recall=True)


class DemandBook:
    """The accounts of all streams. held + open never exceeds the target that a grant was made under."""

    def __init__(self, pools: Collection[str]) -> None:
        self._lines: dict[str, dict[int, Line]] = {pool: {} for pool in pools}

    def add_stream(self, stream: int) -> None:
        for lines in self._lines.values():
            lines[stream] = Line()

    def remove_stream(self, stream: int) -> None:
        """Forget a stream; the demand that was open on it may be granted to others at once."""
        for lines in self._lines.values():
            lines.pop(stream, None)

    def use(self, stream: int, pool: str, *, sent: int, returned: int, now: float) -> None:
        """Take a stream's running totals, which also answer a recall. A total never goes back."""
        line = self._lines.get(pool, {}).get(stream)
        if line is None:
            return
        line.returned = max(line.returned, returned)
        line.recalled = False
        line.use(sent, now)

    def receive(self, stream: int, counts: Mapping[str, int], *, now: float) -> None:
        """Count assignments as they come, so that none is counted as held and as open demand at once."""
        for pool, count in counts.items():
            line = self._lines.get(pool, {}).get(stream)
            if line is not None:
                line.received += count
                line.use(line.received, now)

    def ignores_recall(self, stream: int, now: float) -> bool:
        """Whether a recall on this stream has waited too long for its answer."""
        lines = [lines[stream] for lines in self._lines.values() if stream in lines]
        return any(line.recalled and now - line.recalled_at >= RECALL_UNANSWERED_SECONDS for line in lines)

    def open(self, pool: str) -> int:
        """Demand that is out on all streams."""
        return sum(line.open for line in self._lines[pool].values())

    def line(self, stream: int, pool: str) -> Line:
        return self._lines[pool][stream]

    def plan(self, pool: str, target: Target, *, held: int, fit: Collection[int], now: float) -> list[Grant]:
        """Decide what to grant and what to ask back, and book it as done."""
        lines = self._lines[pool]
        plan = _Plan(pool, target, held, now)
        able = {stream: line for stream, line in lines.items() if stream in fit}
        for stream, line in lines.items():
            if stream not in able:
                plan.recall(stream, line)
        excess = held + self.open(pool) - target.total
        # Beside a prefetch a little excess is work for some milliseconds; without one it has no slot to run in.
        tolerated = target.total // 2 if target.prefetch else 0
        if excess > tolerated or not target.total:
            # The target fell: work that was asked for on the old one would wait here behind long tasks.
            for stream, line in able.items():
                plan.recall(stream, line)
        elif excess < 0:
            self._distribute(plan, able, free=-excess)
        _move_unused(plan, able)
        return list(plan.changed.values())

    def _distribute(self, plan: _Plan, able: Mapping[int, Line], *, free: int) -> None:
        takers = {stream: line for stream, line in able.items() if not line.recalled}
        newcomer = any(line.granted == 0 for line in takers.values())
        if not takers or (free < plan.target.step and not newcomer):
            return
        busy = {stream: line for stream, line in takers.items() if not line.idle} or takers
        idle = {stream: line for stream, line in takers.items() if stream not in busy}
        # A manager that left its demand unused keeps a foot in the door; the rest is for those who use theirs.
        foot = max(1, plan.target.total // (4 * len(takers)))
        wanted = plan.target.total - plan.held
        fair = max(1, math.ceil((wanted - foot * len(idle)) / len(busy)))
        for goal, group in ((fair, busy), (foot, idle)):
            for stream, line in sorted(group.items(), key=lambda item: item[1].open):
                count = min(free, goal - line.open)
                if count > 0:
                    plan.grant(stream, line, count)
                    free -= count


def _move_unused(plan: _Plan, able: Mapping[int, Line]) -> None:
    """Ask back what lay unused while another manager that could use it has nothing."""
    starving = {stream for stream, line in able.items() if line.open == 0}
    if not starving:
        return
    for stream, line in able.items():
        if line.open and plan.now - line.unused_since >= IDLE_SECONDS:
            line.idle = True
            plan.recall(stream, line)
