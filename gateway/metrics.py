"""A few counters in the Prometheus text format, written by hand: they need no library."""

from collections import Counter
from collections.abc import Iterable, Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = Mapping[str, str]
Sample = tuple[Labels, float]


class Metrics:
    """What happens at the HTTP edge. Labels never hold what a caller wrote."""

    def __init__(self) -> None:
        # By method, route and status.
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.seconds: Counter[str] = Counter()

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        self.requests[method, route, status] += 1
        self.seconds[route] += seconds  # type: ignore[assignment]

    def request_samples(self) -> Iterable[Sample]:
        for (method, route, status), count in sorted(self.requests.items()):
            yield {"method": method, "route": route, "status": str(status)}, count

    def seconds_samples(self) -> Iterable[Sample]:
        for route, seconds in sorted(self.seconds.items()):
            yield {"route": route}, seconds


def exposition(families: Iterable[tuple[str, str, str, Iterable[Sample]]]) -> str:
    """Render families of (name, type, help, samples)."""
    lines: list[str] = []
    for name, kind, text, samples in families:
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
        lines += [
            f"{name}{_labels(labels)} {value:g}" if value % 1 else f"{name}{_labels(labels)} {int(value)}"
            for labels, value in samples
        ]
    return "\n".join(lines) + "\n"


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
