"""`python -m deploy.roll SERVICE...`: new replicas for old ones, one after the other, without a failed request.

Each new one is made of the image and configuration that are there now, and has to be healthy before an old one is told
to stop; that one finishes or hands back what it has. Where a new one does not become healthy it is removed again, and
the rest stays as it was.
"""

import argparse
import time

from deploy.compose import Compose, Container
from deploy.errors import DeployError, run_tool

# In the order of an upgrade: those that own the schema first, those whom clients see last.
SERVICES = ("management", "execution", "gateway")
HEALTHY_SECONDS = 120.0
# Longer than any grace of docker-compose.yml.
STOP_SECONDS = 180.0
_POLL_SECONDS = 0.5
_ENDED = ("restarting", "exited", "dead")
_LOG_LINES = 3


def roll(compose: Compose, service: str) -> None:
    """Replace all containers of `service`. Raises DeployError; the service runs on then, if with old replicas."""
    olds = compose.containers(service)
    if not olds:
        raise DeployError(f"{service} has no container; `docker compose up -d` starts it")
    stopped = [container.name for container in olds if not container.running]
    if stopped:
        raise DeployError(f"{', '.join(stopped)} of {service} does not run; `docker compose up -d` starts it")
    for number, old in enumerate(olds, start=1):
        new = _add(compose, service, count=len(olds) + 1)
        compose.docker("stop", old.container_id, timeout=STOP_SECONDS)
        compose.docker("rm", old.container_id)
        print(f"{service}: {number} of {len(olds)}: {new.name} for {old.name}")


def _add(compose: Compose, service: str, *, count: int) -> Container:
    """Start one more container and return it when it is healthy."""
    known = {container.container_id for container in compose.containers(service)}
    try:
        compose.run("up", "--detach", "--no-deps", "--no-recreate", "--scale", f"{service}={count}", service)
        return _wait_for_new(compose, service, known)
    except DeployError:
        for container in compose.containers(service):
            if container.container_id not in known:
                compose.docker("rm", "--force", container.container_id)
        raise


def _wait_for_new(compose: Compose, service: str, known: set[str]) -> Container:
    deadline = time.monotonic() + HEALTHY_SECONDS
    while True:
        new = [container for container in compose.containers(service) if container.container_id not in known]
        if len(new) == 1 and new[0].health == "healthy":
            return new[0]
        for container in new:
            if container.state in _ENDED:
                log = compose.docker("logs", "--tail", str(_LOG_LINES), container.container_id)
                raise DeployError(f"{container.name} ends as soon as it is started; its log says: {log.strip()}")
        if time.monotonic() >= deadline:
            states = ", ".join(f"{container.name} is {container.health or container.state}" for container in new)
            raise DeployError(f"{service}: not healthy after {HEALTHY_SECONDS:g} s: {states or 'no new container'}")
        time.sleep(_POLL_SECONDS)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.roll", description=__doc__)
    parser.add_argument("services", nargs="+", choices=SERVICES, metavar="SERVICE", help=", ".join(SERVICES))
    compose = Compose()
    for service in parser.parse_args().services:
        roll(compose, service)


if __name__ == "__main__":
    run_tool(main)
