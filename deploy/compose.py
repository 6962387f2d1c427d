"""Calls `docker compose` for the tools of this folder.

Runs in the folder of the project with the caller's environment, so `COMPOSE_FILE`, `COMPOSE_PROJECT_NAME`, `.env` and
`DOCKER_HOST` mean what they mean on a command line there.
"""

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from deploy.calls import finish, start
from deploy.errors import DeployError

PROJECT_FOLDER = Path(__file__).resolve().parent.parent
# Long enough for a busy engine; a call that takes its time says so itself.
CALL_SECONDS = 60.0
_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Container:
    """One container of a service, running or not."""

    container_id: str
    name: str
    service: str
    # `running`, `exited`, `created`, `restarting`, `paused`, `dead`.
    state: str
    # `healthy`, `unhealthy`, `starting`; empty where it has no health check, or does not run.
    health: str

    @property
    def running(self) -> bool:
        return self.state == "running"

    @property
    def healthy(self) -> bool:
        """Whether it runs and, where it has a health check, passes it."""
        return self.running and self.health in ("", "healthy")


class Compose:
    """The project of `docker-compose.yml`, or of the files that COMPOSE_FILE names."""

    def __init__(self, folder: Path = PROJECT_FOLDER) -> None:
        self._folder = folder

    def run(self, *arguments: str, timeout: float = CALL_SECONDS, name: str | None = None) -> str:
        """Run `docker compose ARGUMENTS` and return what it printed.

        Raises DeployError with the last lines of its stderr where it fails, and where it takes longer than `timeout`;
        it has ended by then. `name` stands for it in messages.
        """
        name = name or " ".join(("docker compose", *arguments[:4]))
        return finish(self.start(*arguments), name=name, timeout=timeout)

    def start(self, *arguments: str, stdin: IO[bytes] | int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        """Start `docker compose ARGUMENTS`. Whoever starts it sees to it that it ends, with `calls.end`."""
        return start(["docker", "compose", *arguments], stdin=stdin, folder=self._folder)

    def docker(self, *arguments: str, timeout: float = CALL_SECONDS) -> str:
        """Run `docker ARGUMENTS`, for what concerns one container, and return what it printed. Raises DeployError."""
        call = start(["docker", *arguments], folder=self._folder)
        return finish(call, name=" ".join(("docker", *arguments[:3])), timeout=timeout)

    def containers(self, *services: str) -> list[Container]:
        """The containers of these services (without any: of all), running or not, in the order of their names."""
        output = self.run("ps", "--all", "--no-trunc", "--format", "json", *services)
        return sorted(_parse_containers(output), key=lambda container: _number_last(container.name))

    def wait_healthy(self, *services: str, timeout: float) -> list[Container]:
        """Wait until each service has containers and all of them are healthy, and return them.

        Raises DeployError that names those that are not, when `timeout` has passed.
        """
        deadline = time.monotonic() + timeout
        while True:
            containers = self.containers(*services)
            missing = sorted(set(services) - {container.service for container in containers})
            sick = [container for container in containers if not container.healthy]
            if not missing and not sick:
                return containers
            if time.monotonic() >= deadline:
                states = [f"{container.name} is {container.health or container.state}" for container in sick]
                states += [f"{service} has no container" for service in missing]
                raise DeployError(f"not healthy after {timeout:g} s: {', '.join(states)}")
            time.sleep(_POLL_SECONDS)


def _parse_containers(output: str) -> Iterator[Container]:
    for entry in _entries(output):
        yield Container(entry["ID"], entry["Name"], entry["Service"], entry["State"], entry.get("Health") or "")


def _entries(output: str) -> Iterator[dict[str, str]]:
    """Read one object per line, or an array, which versions of compose before 2.21 print."""
    for line in output.splitlines():
        if line.strip():
            value = json.loads(line)
            yield from value if isinstance(value, list) else [value]


def _number_last(name: str) -> tuple[str, int]:
    """Order for names such as `headrace-gateway-10`, which comes after `headrace-gateway-9`."""
    head, _, tail = name.rpartition("-")
    return (head, int(tail)) if tail.isdigit() else (name, 0)
