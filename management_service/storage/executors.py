"""Sessions of execution replicas, managers' own rows and the catalog in the task database."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

import psycopg

from headrace.v1.task_pb2 import TaskType
from management_service.storage.records import CatalogRow, LiveSession, Session
from servicekit.postgres import Database
from servicekit.queries import load_queries

QUERIES = load_queries("management_service.storage", "executors.sql")


class ExecutorRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def open_session(self, session: Session) -> bool:
        """Make the session's row and save its types; return whether the session lives (it may be ended already)."""
        params = {
            "session_id": session.session_id,
            "replica": session.replica,
            "address": session.address,
            "types": sorted(task_type.name for task_type in session.task_types),
            "beat": session.beat,
        }
        types = _type_columns(sorted(session.task_types, key=lambda task_type: task_type.name))

        async def work(connection: psycopg.AsyncConnection) -> bool:
            async with connection.transaction():
                await connection.execute(QUERIES["save_task_types"], types)
                cursor = await connection.execute(QUERIES["open_session"], params)
                row = await cursor.fetchone()
            return row is not None and not row[0]

        return await self._database.run(work)

    async def raise_beats(self, beats: Mapping[int, int]) -> set[int]:
        """Write heartbeat numbers by session; return the sessions that took them (the others ended or are unknown)."""
        session_ids = sorted(beats)
        params = {"session_ids": session_ids, "beats": [beats[session_id] for session_id in session_ids]}
        return {row[0] for row in await self._database.fetch(QUERIES["raise_beats"], params)}

    async def scan_sessions(self, *, manager_id: str, replica: str) -> list[LiveSession]:
        """Write the manager's own row and read every live session, in one statement."""
        params = {"manager_id": manager_id, "replica": replica}
        return [LiveSession(*row) for row in await self._database.fetch(QUERIES["scan_sessions"], params)]

    async def end_session(self, session_id: int, *, beat: int) -> bool:
        """End the session unless somebody heard it after `beat`; return whether it was us who ended it."""
        return bool(await self._database.fetch(QUERIES["end_session"], {"session_id": session_id, "beat": beat}))

    async def close_session(self, session_id: int) -> bool:
        """End a session that said good-bye; return whether it was us who ended it."""
        return bool(await self._database.fetch(QUERIES["close_session"], {"session_id": session_id}))

    async def forget_old_rows(self, *, retention: timedelta) -> None:
        await self._database.execute(QUERIES["forget_old_rows"], {"retention": retention})

    async def list_task_types(self) -> list[CatalogRow]:
        return [CatalogRow(*row) for row in await self._database.fetch(QUERIES["list_task_types"], {})]

    async def count_live(self) -> tuple[int, int]:
        """Return the numbers of live execution sessions and of managers that scanned in the last 5 s."""
        [(executors, managers)] = await self._database.fetch(QUERIES["count_live"], {})
        return executors, managers


def _type_columns(task_types: Sequence[TaskType]) -> dict[str, list[str] | list[int] | list[bytes]]:
    return {
        "names": [task_type.name for task_type in task_types],
        "pools": [task_type.pool for task_type in task_types],
        "descriptions": [task_type.description for task_type in task_types],
        "data_schemas": [task_type.data_schema for task_type in task_types],
        "result_schemas": [task_type.result_schema for task_type in task_types],
        "timeouts": [task_type.timeout_ms for task_type in task_types],
        "max_attempts": [task_type.max_attempts for task_type in task_types],
        "versions": [task_type.version for task_type in task_types],
        "details": [
            TaskType(limits=task_type.limits, errors=task_type.errors).SerializeToString() for task_type in task_types
        ],
    }
