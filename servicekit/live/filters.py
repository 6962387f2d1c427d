"""What a reader wants to hear of."""

from dataclasses import dataclass, field

from headrace.v1.task_pb2 import TaskUpdate

TASK_IDS_MAX = 1_000
TYPES_MAX = 20


@dataclass(frozen=True, slots=True)
class Filter:
    """Empty sets stand for everything."""

    types: frozenset[str] = field(default_factory=frozenset)
    # Numbers of TaskStatus.
    statuses: frozenset[int] = field(default_factory=frozenset)
    task_ids: frozenset[int] = field(default_factory=frozenset)

    def wants(self, update: TaskUpdate) -> bool:
        return (
            (not self.task_ids or update.task_id in self.task_ids)
            and (not self.types or update.type in self.types)
            and (not self.statuses or update.status in self.statuses)
        )
