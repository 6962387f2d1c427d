"""What is wrong with lines of a file: all of it counted, the first of it kept."""

from dataclasses import dataclass, field

from execution_service.handlers.large_files.blocks import LINE_BYTES_MAX
from execution_service.handlers.large_files.models import ERRORS_LISTED_MAX, LineError, LineErrorCode


@dataclass(slots=True)
class LineErrors:
    """The errors in the order of their lines."""

    count: int = 0
    first: list[LineError] = field(default_factory=list)

    def add(self, line: int, code: LineErrorCode, message: str) -> None:
        """Note what is wrong with the line or record that begins at `line`, counted from 1."""
        self.count += 1
        if len(self.first) < ERRORS_LISTED_MAX:
            self.first.append(LineError(line=line, code=code, message=message))

    def add_long_line(self, line: int) -> None:
        """Note a line that was skipped for its length."""
        self.add(line, LineErrorCode.LINE_TOO_LONG, f"the line has more than {LINE_BYTES_MAX} bytes")
