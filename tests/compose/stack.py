"""The containers of one stack, as an operator handles them: by `docker compose` and `docker`."""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
COMMAND_SECONDS = 900.0
HEALTHY_SECONDS = 120.0
_POLL_SECONDS = 0.2


class CommandError(Exception):
    """A command failed; the text has what it wrote."""


@dataclass(frozen=True, slots=True)
class Container:
    id: str
    name: str
    image: str
    status: str
    health: str
    exit_code: int

    @property
    def host(self) -> str:
        """Its host name."""
        return self.id[:12]

    @property
    def is_healthy(self) -> bool:
        return self.status == "running" and self.health == "healthy"


class Stack:
    """One stack, told apart by the name of its project.

    `files` are compose files below `folder`, in which commands run. `subnet` is that of its control network, and no
    other stack's on this machine.
    """

    def __init__(
        self,
        project: str,
        files: Sequence[str],
        *,
        port: int,
        subnet: str,
        folder: Path = ROOT,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.project = project
        self.folder = folder
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        self.environment = {
            **os.environ,
            "COMPOSE_FILE": os.pathsep.join(files),
            "COMPOSE_PROJECT_NAME": project,
            "HEADRACE_PUBLISH": f"127.0.0.1:{port}",
            "HEADRACE_SUBNET": subnet,
            **(environment or {}),
        }

    async def up(self) -> None:
        """Start all of it and wait until it is healthy."""
        await self.compose("up", "--detach", "--wait", "--wait-timeout", "300")

    async def down(self) -> None:
        """Remove it with its data."""
        await self.compose("down", "--volumes", "--remove-orphans", "--timeout", "20")

    async def compose(self, *arguments: str, timeout: float = COMMAND_SECONDS) -> str:
        return await self.run("docker", "compose", *arguments, timeout=timeout)

    async def docker(self, *arguments: str, timeout: float = COMMAND_SECONDS) -> str:
        return await self.run("docker", *arguments, timeout=timeout)

    async def run(self, *command: str, timeout: float = COMMAND_SECONDS) -> str:
        """Run a command in the folder and return what it wrote. Raises CommandError."""
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=self.folder,
            env=self.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(timeout):
                output, errors = await process.communicate()
        except TimeoutError:
            process.kill()
            raise CommandError(f"{' '.join(command)}: not within {timeout} s") from None
        if process.returncode != 0:
            raise CommandError(f"{' '.join(command)}: {process.returncode}\n{output.decode()}{errors.decode()}")
        return output.decode()

    async def containers(self, service: str) -> list[Container]:
        """Those of a service, in the order in which they were made, whatever state they are in."""
        ids = (await self.compose("ps", "--all", "--quiet", service)).split()
        if not ids:
            return []
        found = json.loads(await self.docker("inspect", *ids))
        return [_container(entry) for entry in sorted(found, key=lambda entry: str(entry["Created"]))]

    async def only(self, service: str) -> Container:
        [container] = await self.containers(service)
        return container

    async def wait_healthy(self, service: str, count: int, *, timeout: float = HEALTHY_SECONDS) -> list[Container]:
        """Wait until the service has `count` containers and all are healthy."""
        deadline = time.monotonic() + timeout
        while True:
            containers = await self.containers(service)
            if len(containers) == count and all(container.is_healthy for container in containers):
                return containers
            if time.monotonic() >= deadline:
                logs = await self.docker("logs", "--tail", "20", containers[-1].id) if containers else ""
                raise AssertionError(f"{service}: not {count} healthy within {timeout} s: {containers}\n{logs}")
            await asyncio.sleep(_POLL_SECONDS)

    async def crash(self, container: Container) -> None:
        """Kill every process in it at once, as the kernel would. It is up to its restart policy then.

        `docker kill` would count as the wish that it stays down.
        """
        with contextlib.suppress(CommandError):  # the shell is among the killed
            await self.docker("exec", container.id, "sh", "-c", "kill -9 -1")

    async def scale(self, service: str, count: int) -> None:
        """As an operator does it: those that are there stay as they are."""
        await self.compose("up", "--detach", "--no-deps", "--no-recreate", "--scale", f"{service}={count}", service)


def _container(entry: dict[str, Any]) -> Container:
    state = entry["State"]
    return Container(
        id=entry["Id"],
        name=entry["Name"].lstrip("/"),
        image=entry["Image"],
        status=state["Status"],
        health=state.get("Health", {}).get("Status", "none"),
        exit_code=state["ExitCode"],
    )
