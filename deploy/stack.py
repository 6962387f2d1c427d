"""What a restore does to the running stack around the databases: services stopped and started, Redis told."""

from collections.abc import Sequence
from typing import Protocol

from deploy.compose import Compose
from servicekit import redis_keys

# Everything that talks to the databases, or takes in tasks for them.
SERVICES = ("gateway", "management", "execution")
_STORES = ("tasks-db", "results-db", "redis")
_START_SECONDS = 180.0
# Longer than the longest grace period.
_STOP_SECONDS = 120.0

# What is known of single tasks goes: their cached reads and tombstones, and the updates that live streams keep, whose
# revisions the restored tasks have not come to yet. The stream is not deleted, and keeps one entry that tells nothing:
# its ids go on, and a reader that comes back with a cursor from before it is told to begin anew.
# Everything else stays: submissions that are not stored yet with their markers and counts, and the highest id.
_FORGET_TASKS = """
redis.call('XADD', KEYS[1], 'MAXLEN', 1, '*', ARGV[1], '')
local cursor = '0'
repeat
    local found = redis.call('SCAN', cursor, 'MATCH', ARGV[2], 'COUNT', 1000)
    cursor = found[1]
    for _, key in ipairs(found[2]) do redis.call('UNLINK', key) end
until cursor == '0'
"""
FORGET_TASKS = (
    "EVAL",
    _FORGET_TASKS,
    "1",
    redis_keys.UPDATES,
    redis_keys.UPDATES_FIELD.decode(),
    redis_keys.CACHED_TASKS,
)
# The password is read where it lies.
_LOG_IN = 'REDISCLI_AUTH="$(cat /run/secrets/redis_password)" exec redis-cli -e "$@"'


class Stack(Protocol):
    """The part of the stack that is not PostgreSQL."""

    def start_stores(self) -> None:
        """Have both databases and Redis run and answer."""
        ...

    def running_services(self) -> Sequence[str]:
        """The services that run and use them."""
        ...

    def stop_services(self, services: Sequence[str]) -> None: ...

    def start_services(self, services: Sequence[str]) -> None:
        """Start services that were stopped, and return when they are healthy."""
        ...

    def forget_tasks(self) -> None:
        """Remove from Redis what a restored database contradicts."""
        ...


class ComposeStack:
    """The stack of a compose project."""

    def __init__(self, compose: Compose) -> None:
        self._compose = compose

    def start_stores(self) -> None:
        self._compose.run("up", "--detach", "--no-recreate", *_STORES, timeout=_START_SECONDS)
        self._compose.wait_healthy(*_STORES, timeout=_START_SECONDS)

    def running_services(self) -> Sequence[str]:
        running = {container.service for container in self._compose.containers(*SERVICES) if container.running}
        return [service for service in SERVICES if service in running]

    def stop_services(self, services: Sequence[str]) -> None:
        if services:
            self._compose.run("stop", *services, timeout=_STOP_SECONDS)

    def start_services(self, services: Sequence[str]) -> None:
        if services:
            self._compose.run("start", *services, timeout=_START_SECONDS)
            self._compose.wait_healthy(*services, timeout=_START_SECONDS)

    def forget_tasks(self) -> None:
        self._compose.run("exec", "-T", "redis", "sh", "-c", _LOG_IN, "sh", *FORGET_TASKS, name="redis-cli in redis")
