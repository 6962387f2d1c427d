"""Where the time of a task went, from the request to the moment when the client saw its end."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from headrace.demo.errors import DemoError

# Each stage ends at a time that the task carries; the last one ends when the client has seen the final update.
STAGES = {
    "accepted": "accepted_at",
    "stored": "created_at",
    "dispatched": "claimed_at",
    "started": "started_at",
    "executed": "executed_at",
    "result stored": "finished_at",
}
SEEN = "seen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Journey:
    """Seconds per stage, in order, and from the first to the last moment. All clocks are those of one machine."""

    stages: Mapping[str, float]
    total: float


def journey(view: Mapping[str, Any], *, sent: datetime, seen: datetime) -> Journey:
    """Work out the stages of a finished task. Raises DemoError if the task does not say when something happened.

    The times come from several processes and from PostgreSQL, where a statement counts from the start of its
    transaction: a stage that is recorded as over before the one before it took no time.
    """
    stages = {}
    latest = sent
    for stage, name in STAGES.items():
        if view.get(name) is None:
            raise DemoError(f"task {view['id']} does not tell its {name}")
        at = parse_time(view[name])
        stages[stage] = max(0.0, (at - latest).total_seconds())
        latest = max(latest, at)
    stages[SEEN] = max(0.0, (seen - latest).total_seconds())
    return Journey(stages=stages, total=(seen - sent).total_seconds())


def parse_time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
