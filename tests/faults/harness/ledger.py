"""What clients were promised: one entry for each request that was to store tasks, written before and after."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

# acked: 2xx. refused: an answer that says no (4xx, 503). unknown: no answer, the tasks may exist or not.
Outcome = Literal["acked", "refused", "unknown"]


@dataclass(slots=True)
class Entry:
    op: int
    key: str | None
    count: int
    sent_at: float
    outcome: Outcome = "unknown"
    status: int = 0
    task_ids: list[int] = field(default_factory=list)
    durability: str = ""
    seconds: float = 0.0


class Ledger:
    """The entries of a run; also a file of JSON lines, so that a failing run can be read afterwards."""

    def __init__(self, path: Path) -> None:
        self.entries: list[Entry] = []
        self._path = path
        self._numbers = itertools.count(1)

    def begin(self, *, key: str | None, count: int, now: float) -> Entry:
        entry = Entry(next(self._numbers), key, count, now)
        self.entries.append(entry)
        return entry

    def end(self, entry: Entry) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(asdict(entry)) + "\n")

    @property
    def acked(self) -> list[int]:
        """The ids that were promised, each once."""
        return list(dict.fromkeys(task_id for entry in self.entries for task_id in entry.task_ids))

    def of_key(self, key: str) -> Sequence[Entry]:
        return [entry for entry in self.entries if entry.key == key]
