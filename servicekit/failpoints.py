"""Named points in our code at which a test lets a process die, freeze or fail: they turn a race into a certainty.

A point is armed by a file of its name in the folder that `HEADRACE_FAILPOINTS` names. The file holds the action, and
optionally the replica that it is meant for: `kill`, `stop`, `raise`, `hold`, `kill management-1`. Whoever passes the
point first renames the file to `<name>.fired` and acts, so an action happens once in a whole cluster and leaves a
trace; `hold_all` alone stays armed. Outside of tests the variable is refused, and a point costs one comparison.
"""

import asyncio
import os
import signal
from collections.abc import Mapping
from pathlib import Path

VARIABLE = "HEADRACE_FAILPOINTS"
# Set by tests alone; without it the variable above is refused.
TESTING_VARIABLE = "HEADRACE_TESTING"
_HOLD_LOOK_SECONDS = 0.02

_folder: Path | None = None
_replica = ""


class FailpointError(Exception):
    """What an armed point raises: an error that no code expects."""


class FailpointsRefusedError(Exception):
    """Failpoints are set in an environment that is not a test's."""


def configure(environment: Mapping[str, str]) -> None:
    """Arm what the environment names. Raises FailpointsRefusedError outside of tests."""
    global _folder, _replica
    folder = environment.get(VARIABLE)
    if not folder:
        return
    if environment.get(TESTING_VARIABLE) != "1":
        raise FailpointsRefusedError(f"{VARIABLE} is for tests alone, and {TESTING_VARIABLE} is not 1")
    _folder, _replica = Path(folder), environment.get("HEADRACE_REPLICA", "")


def hit(name: str) -> None:
    """Act if the point is armed: `kill` and `stop` are signals to this process, `raise` raises FailpointError."""
    if _folder is not None:
        _act(_folder, name)


async def reach(name: str) -> None:
    """As `hit`; `hold` also waits here, and lets everything else go on, until the test removes `<name>.fired`.

    `hold_all` makes everybody wait who passes, until the test removes the file that armed it.
    """
    if _folder is None:
        return
    awaited = {"hold": f"{name}.fired", "hold_all": name}.get(_act(_folder, name))
    while awaited and (_folder / awaited).exists():  # noqa: ASYNC110 - the event is in another process
        await asyncio.sleep(_HOLD_LOOK_SECONDS)


def _act(folder: Path, name: str) -> str:
    action = _take(folder, name)
    if action in ("kill", "stop"):
        os.kill(os.getpid(), signal.SIGKILL if action == "kill" else signal.SIGSTOP)
    elif action == "raise":
        raise FailpointError(name)
    return action


def _take(folder: Path, name: str) -> str:
    """The action of an armed point that is meant for us, which nobody else takes from now on; else nothing."""
    armed = folder / name
    try:
        action, _, replica = armed.read_text().strip().partition(" ")
        if replica in ("", _replica):
            fired = folder / f"{name}.fired"
            if action == "hold_all":
                fired.touch()
            else:
                armed.rename(fired)
            return action
    except FileNotFoundError:
        pass
    return ""
