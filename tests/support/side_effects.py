"""The file in which the probe tasks count their side effects."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Line:
    task_id: int
    attempt: int
    event: str
    pid: int
    # Seconds of the machine's monotonic clock.
    at: float


class SideEffects:
    """Tasks of type `append_line` write here, outside of everything that Headrace keeps."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def data(self, seconds: float) -> dict[str, object]:
        """Data for an `append_line` task."""
        return {"path": str(self.path), "seconds": seconds}

    def lines(self) -> list[Line]:
        if not self.path.exists():
            return []
        rows = [line.split() for line in self.path.read_text().splitlines()]
        return [Line(int(row[0]), int(row[1]), row[2], int(row[3]), float(row[4])) for row in rows]

    def starts(self) -> Counter[int]:
        """How often each task was started."""
        return Counter(line.task_id for line in self.lines() if line.event == "start")

    def started_attempts(self) -> Counter[tuple[int, int]]:
        """How often each attempt was started: once, or something is wrong."""
        return Counter((line.task_id, line.attempt) for line in self.lines() if line.event == "start")
