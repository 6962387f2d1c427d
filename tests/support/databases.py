"""Both databases of a deployment on a server of the tests, with PostgreSQL's own programs beside it."""

import json
import os
import subprocess
from pathlib import Path
from typing import IO

import psycopg
from psycopg.conninfo import conninfo_to_dict

from deploy import calls
from deploy.database import MAINTENANCE, Server
from deploy.manifest import MANIFEST
from deploy.stores import RESULTS, STORES, TASKS, Servers, Store
from headrace.local.postgres import PostgresServer
from headrace.local.programs import find_postgres
from servicekit.migrations import migrate


class ProgramsHere:
    """A Place: the programs run on this machine and reach the server as a container's would."""

    def __init__(self, name: str, dsn: str) -> None:
        self.name = name
        login = conninfo_to_dict(dsn)
        self._folder = find_postgres(None).folder
        self._env = {
            "PATH": os.defpath,
            "PGHOST": str(login["host"]),
            "PGPORT": str(login["port"]),
            "PGUSER": str(login["user"]),
            "PGPASSWORD": str(login["password"]),
        }

    def start(
        self, program: str, *arguments: str, stdin: IO[bytes] | int = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        return calls.start([str(self._folder / program), *arguments], stdin=stdin, env=self._env)


class Databases:
    """The two databases, looked at and changed behind the tools' back."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self.servers = Servers(*(Server(self.place(store)) for store in STORES))

    def place(self, store: Store) -> ProgramsHere:
        return ProgramsHere(store.service, self.dsn(MAINTENANCE))

    def dsn(self, database: str) -> str:
        return self._server.dsn(database)

    def ask(self, database: str, statement: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self.dsn(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def add_completed(self, *task_ids: int) -> None:
        """Tasks that completed in attempt 1, with their results."""
        for task_id in task_ids:
            self.ask(RESULTS.database, f"INSERT INTO results VALUES ({task_id}, 1, 'of {task_id}')")
            self.ask(
                TASKS.database,
                "INSERT INTO tasks (task_id, type, pool, status, priority, attempt, max_attempts, result_attempt,"
                "                   timeout_ms, run_at, finished_at, data)"
                f" VALUES ({task_id}, 'noop', 'cpu', 'completed', 4, 1, 3, 1, 1000, now(), now(), '{{}}')",
            )

    def task_ids(self) -> list[object]:
        """Tasks that are not removed."""
        rows = self.ask(TASKS.database, "SELECT task_id FROM tasks WHERE removed_at IS NULL ORDER BY task_id")
        return [task_id for (task_id,) in rows]

    def result_ids(self) -> list[object]:
        return [task_id for (task_id,) in self.ask(RESULTS.database, "SELECT task_id FROM results ORDER BY task_id")]

    def names(self) -> list[str]:
        """All databases that belong to the two."""
        rows = self.ask(MAINTENANCE, "SELECT datname FROM pg_database WHERE datname LIKE 'headrace%' ORDER BY datname")
        return [str(name) for (name,) in rows]

    async def reset(self) -> None:
        """Have both as the services make them, without a row, and no other."""
        for name in self.names():
            if name not in (store.database for store in STORES):
                self.ask(MAINTENANCE, f'DROP DATABASE "{name}" WITH (FORCE)')
        for store in STORES:
            if store.database not in self.names():
                self.ask(MAINTENANCE, f'CREATE DATABASE "{store.database}"')
            await migrate(self.dsn(store.database), store.package)
        self.ask(TASKS.database, "TRUNCATE tasks, ended_attempts, outbox RESTART IDENTITY")
        self.ask(TASKS.database, "UPDATE id_blocks SET high = 1")
        self.ask(RESULTS.database, "TRUNCATE results")

    def drop(self) -> None:
        for name in self.names():
            self.ask(MAINTENANCE, f'DROP DATABASE "{name}" WITH (FORCE)')


def change_manifest(folder: Path, store: str, **fields: object) -> None:
    """Say something else of a dump."""
    path = folder / MANIFEST
    content = json.loads(path.read_text())
    for name, value in fields.items():
        content["dumps"][store][name] = content["dumps"][store][name] | value if name == "rows" else value
    path.write_text(json.dumps(content))
