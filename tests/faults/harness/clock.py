"""A wall clock that a test sets: compiled here, preloaded into the processes that are to live by it."""

import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

SOURCE = Path(__file__).with_name("clock_shim.c")


def compiler() -> str | None:
    """The C compiler of this machine, None where there is none."""
    return shutil.which("gcc") or shutil.which("cc")


class WallClock:
    """Use it as a context; processes with `environment` run by it. Monotonic clocks are left alone."""

    def __init__(self) -> None:
        # Servers run as other users and have to get at it: not below a private folder.
        self._folder = Path(tempfile.mkdtemp(prefix="headrace-clock-"))
        self._folder.chmod(0o755)
        self._shift = self._folder / "shift"
        self._library = self._folder / "clock_shim.so"

    def __enter__(self) -> Self:
        self.shift(0)
        self._shift.chmod(0o644)
        gcc = compiler()
        assert gcc is not None, "there is no C compiler"
        subprocess.run([gcc, "-shared", "-fPIC", "-O1", "-o", str(self._library), str(SOURCE), "-ldl"], check=True)
        self._library.chmod(0o755)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def environment(self) -> Mapping[str, str]:
        return {"LD_PRELOAD": str(self._library), "CLOCK_SHIM_FILE": str(self._shift)}

    def shift(self, seconds: int) -> None:
        """Set the clock to so many seconds before or after the true time, at once."""
        content = struct.pack("=q", seconds)
        if not self._shift.exists():
            self._shift.write_bytes(content)
            return
        with self._shift.open("r+b") as file:  # in place: it is mapped
            file.write(content)
