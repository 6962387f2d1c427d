"""The end of what each running attempt has printed and logged, as people read it."""

from datetime import UTC, datetime

from execution_service.workers.failures import clean_text
from execution_service.workers.frames import OUTPUT_LEVEL, LogLine
from execution_service.workers.handler_log import fields_of

LOG_BYTES_MAX = 64 * 1024

Key = tuple[int, int]


class AttemptLogs:
    """Keeps the last 64 KiB of each attempt until it has ended."""

    def __init__(self) -> None:
        self._logs: dict[Key, bytes] = {}

    def add(self, key: Key, text: bytes) -> None:
        """Add to the end of an attempt's log."""
        if text:
            self._logs[key] = (self._logs.get(key, b"") + text)[-LOG_BYTES_MAX:]

    def take(self, key: Key) -> str:
        """Return the log of an attempt, empty if it left none, and forget it."""
        log = self._logs.pop(key, None)
        return clean_text(log.decode("utf-8", "replace"), LOG_BYTES_MAX) if log is not None else ""

    def __len__(self) -> int:
        return len(self._logs)


def rendered(line: LogLine) -> bytes:
    """Return the line as it stands in an attempt's log."""
    if line.level == OUTPUT_LEVEL:
        return line.event.encode() + b"\n"
    at = datetime.fromtimestamp(line.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    fields = fields_of(line)
    traceback = fields.pop("traceback", None)
    words = [at, line.level, line.event, *(f"{name}={value!r}" for name, value in fields.items())]
    block = f"\n{traceback.rstrip()}" if isinstance(traceback, str) else ""
    return f"{' '.join(words)}{block}\n".encode("utf-8", "replace")
