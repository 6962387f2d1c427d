"""The task types that exist, read from management once a second, each with a compiled validator of its data.

What was read once stays known while management is away.
"""

import asyncio
import time
from collections.abc import Iterable
from typing import Any

import structlog

from gateway.management import Management
from gateway.task_types import TaskTypeEntry, compile_entry
from headrace.v1.management_pb2 import CatalogEntry
from headrace.v1.task_pb2 import Task, TaskStatus
from servicekit.errors import FieldError, HeadraceError, NotFound, Unavailable
from servicekit.loops import BackgroundLoop
from servicekit.pointers import nearest, shown

log = structlog.stdlib.get_logger(__name__)

REFRESH_SECONDS = 1.0
_WAITING = frozenset((TaskStatus.TASK_STATUS_SCHEDULED, TaskStatus.TASK_STATUS_QUEUED, TaskStatus.TASK_STATUS_RETRYING))
# Requests for unknown types may make management be asked at most this often.
_EXTRA_REFRESH_SECONDS = 0.25


class Catalog:
    def __init__(self, management: Management) -> None:
        self._management = management
        self._entries: dict[str, TaskTypeEntry] = {}
        self._replicas: dict[str, list[str]] = {}
        # Types whose schema does not compile, by version, so that each is logged once.
        self._unusable: dict[str, str] = {}
        self._asked_at = -_EXTRA_REFRESH_SECONDS
        self._refreshing = asyncio.Lock()
        self._loop = BackgroundLoop("catalog", self.refresh, interval=REFRESH_SECONDS)
        self.loaded = False

    def start(self) -> None:
        self._loop.start()

    async def stop(self) -> None:
        await self._loop.stop()

    def problem(self, *, within: float) -> str | None:
        """A check for readiness: None when management has answered in the last `within` seconds."""
        return self._loop.problem(within=within)

    async def refresh(self) -> None:
        """Read the catalog anew; compiles only what changed."""
        async with self._refreshing:
            self._asked_at = time.monotonic()
            entries = await self._management.list_task_types()
            self._entries = dict(self._compiled(entries))
            self._replicas = {entry.task_type.name: list(entry.replicas) for entry in entries}
            # An empty catalog says only that no replica has introduced itself yet.
            self.loaded = self.loaded or bool(entries)

    async def require(self, names: Iterable[str]) -> None:
        """Make sure that the catalog was read, and read it again at once if a name is unknown."""
        if self.loaded and all(name in self._entries for name in names):
            return
        if time.monotonic() - self._asked_at >= _EXTRA_REFRESH_SECONDS:
            try:
                await self.refresh()
            except HeadraceError as error:
                log.info("catalog_not_refreshed", code=error.code)
        if not self.loaded:
            raise Unavailable("The task types are not known yet; try again soon.", code="catalog_unavailable")

    def find(self, name: str) -> TaskTypeEntry | None:
        return self._entries.get(name)

    def unknown(self, name: str, pointer: str) -> FieldError:
        hint = nearest(name, self._entries)
        return FieldError(pointer, "unknown_task_type", f"There is no task type {shown(name)!r}.{hint}")

    def describe_all(self) -> list[dict[str, Any]]:
        return [self._described(entry) for _, entry in sorted(self._entries.items())]

    def describe(self, name: str) -> dict[str, Any]:
        entry = self._entries.get(name)
        if entry is None:
            raise NotFound(self.unknown(name, "").message, code="unknown_task_type")
        return self._described(entry)

    def waiting_notice(self, task: Task) -> str | None:
        """Why a task that waits cannot be run now: no live replica serves its type."""
        waits = task.status in _WAITING and self.loaded and task.type and not self._replicas.get(task.type)
        return f"No live replica serves the task type {task.type!r}; the task waits for one." if waits else None

    def _described(self, entry: TaskTypeEntry) -> dict[str, Any]:
        return {**entry.description, "replicas": self._replicas.get(entry.name, [])}

    def _compiled(self, entries: Iterable[CatalogEntry]) -> Iterable[tuple[str, TaskTypeEntry]]:
        for entry in entries:
            task_type = entry.task_type
            known = self._entries.get(task_type.name)
            if known is None or known.version != task_type.version:
                known = self._compile(entry) or known
            if known is not None:
                yield task_type.name, known

    def _compile(self, entry: CatalogEntry) -> TaskTypeEntry | None:
        """Compile a type. One whose schema is unusable is not accepted, rather than accepted unchecked."""
        task_type = entry.task_type
        if self._unusable.get(task_type.name) == task_type.version:
            return None
        try:
            compiled = compile_entry(entry)
        except ValueError as error:
            self._unusable[task_type.name] = task_type.version
            log.error(
                "task_type_unusable", task_type=task_type.name, version=task_type.version, reason=str(error)[:500]
            )
            return None
        log.info("task_type_known", task_type=task_type.name, version=task_type.version, pool=task_type.pool)
        return compiled
