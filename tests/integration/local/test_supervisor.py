"""The supervisor with small programs of the tests' own."""

import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headrace.local import supervisor as supervisor_module
from headrace.local.errors import LocalClusterError
from headrace.local.process import Command
from headrace.local.supervisor import Ended, Program, RestartPolicy, Supervisor
from tests.support.processes import has_ended
from tests.support.waiting import wait_until

QUICK = RestartPolicy(first_wait=0.01, longest_wait=0.02)
ALL_AT_ONCE = (("fake", 5.0),)

WAITS = "import signal; print('up', flush=True); signal.pause()"
IGNORES_SIGTERM = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
)
HAS_A_CHILD = """
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
print("up", child.pid, flush=True)
signal.pause()
"""
TELLS_ITS_END = """
import pathlib, signal, sys
def end(*_):
    with pathlib.Path(sys.argv[1]).open("a") as ends:
        ends.write(sys.argv[2] + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
while True:
    signal.pause()
"""


class Watched:
    """A supervisor, and what it told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ends: list[Ended] = []
        self.changes = 0
        self.supervisor = Supervisor(on_change=self._count, on_end=self.ends.append, policy=QUICK)

    def program(self, code: str, *arguments: str, name: str = "fake-0", role: str = "fake") -> Program:
        command = Command(argv=(sys.executable, "-c", code, *arguments), env=os.environ)
        log = self.folder / f"{name}.log"
        return Program(role=role, program_id=name, command=command, address="127.0.0.1:1", log=log)

    async def start(self, *programs: Program) -> None:
        """Start programs and return when each of them runs its code."""
        await self.supervisor.start(*programs)
        await wait_until(lambda: all("up" in program.log.read_text() for program in programs))

    def pid(self, number: int = 0) -> int:
        return self.supervisor.processes[number].pid

    def _count(self) -> None:
        self.changes += 1


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    made = Watched(tmp_path)
    yield made
    await made.supervisor.stop((*ALL_AT_ONCE, ("other", 5.0)))


async def test_a_program_that_was_killed_is_started_again(watched: Watched) -> None:
    await watched.start(watched.program(WAITS))
    first = watched.pid()
    os.kill(first, signal.SIGKILL)
    await wait_until(lambda: watched.pid() != first)
    assert [(end.reason, end.wait) for end in watched.ends] == [("was killed by SIGKILL", 0.0)]
    assert watched.changes == 2


async def test_a_program_that_keeps_ending_is_started_after_growing_waits(watched: Watched) -> None:
    await watched.start(watched.program("import sys; print('up'); sys.exit(3)"))
    await wait_until(lambda: len(watched.ends) >= 4)
    assert [end.wait for end in watched.ends[:4]] == [0.0, 0.01, 0.02, 0.02]
    assert {end.reason for end in watched.ends} == {"exited with 3"}


async def test_a_stopped_program_stays_stopped(watched: Watched) -> None:
    await watched.start(watched.program(WAITS))
    await watched.supervisor.stop(ALL_AT_ONCE)
    assert has_ended(watched.pid())
    assert watched.ends == []


async def test_programs_are_stopped_role_after_role(watched: Watched, tmp_path: Path) -> None:
    ends = tmp_path / "ends"
    names = (("late-0", "other"), ("early-0", "fake"), ("early-1", "fake"))
    await watched.start(
        *(watched.program(TELLS_ITS_END, str(ends), name, name=name, role=role) for name, role in names)
    )
    await watched.supervisor.stop((("fake", 5.0), ("other", 5.0)))
    lines = ends.read_text().splitlines()
    assert (set(lines[:2]), lines[2:]) == ({"early-0", "early-1"}, ["late-0"])


async def test_a_program_that_does_not_listen_is_killed_at_its_deadline(watched: Watched) -> None:
    await watched.start(watched.program(IGNORES_SIGTERM))
    began = time.monotonic()
    await watched.supervisor.stop((("fake", 0.3),))
    assert 0.3 <= time.monotonic() - began < 3
    assert has_ended(watched.pid())


async def test_what_a_killed_program_left_behind_is_killed_too(watched: Watched) -> None:
    program = watched.program(HAS_A_CHILD)
    await watched.start(program)
    grandchild = int(program.log.read_text().split()[1])
    await watched.supervisor.stop((("fake", 0.1),))
    await wait_until(lambda: has_ended(grandchild))


async def test_stopping_does_not_wait_for_the_next_restart(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    slow = RestartPolicy(first_wait=60.0, longest_wait=60.0)
    supervisor = Supervisor(on_change=lambda: None, on_end=watched.ends.append, policy=slow)
    await supervisor.start(watched.program("pass"))
    await wait_until(lambda: len(watched.ends) == 2)
    began = time.monotonic()
    await supervisor.stop(ALL_AT_ONCE)
    assert time.monotonic() - began < 3


async def test_a_program_that_cannot_be_prepared_is_not_started(watched: Watched) -> None:
    def refuse() -> None:
        raise LocalClusterError("no disk")

    program = watched.program(WAITS)
    unprepared = Program(
        role="fake", program_id="fake-0", command=program.command, address="", log=program.log, prepare=refuse
    )
    with pytest.raises(LocalClusterError, match="fake-0 cannot be started: no disk"):
        await watched.supervisor.start(unprepared)


async def test_a_large_log_makes_room_for_a_new_one(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "LOG_BYTES_MAX", 10)
    program = watched.program(WAITS)
    program.log.write_text("what an earlier run wrote")
    await watched.start(program)
    assert program.log.with_suffix(".old").read_text() == "what an earlier run wrote"
    assert program.log.read_text() == "up\n"
