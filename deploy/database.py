"""One PostgreSQL server as the tools see it: through psql, pg_dump and pg_restore, which run beside the server.

So the tools need no driver and no open port, and the programs are always of the server's own version.
"""

import contextlib
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from deploy.calls import end, finish, reason_in
from deploy.errors import DeployError
from servicekit.queries import load_queries

# Where whoever waits has given up by far.
QUERY_SECONDS = 60.0
LONG_SECONDS = 6 * 3600.0
# The database that is always there, for statements about others.
MAINTENANCE = "postgres"
_CHUNK_BYTES = 1 << 20
_END_OF_ANSWER = b"--end of answer--\n"

QUERIES = load_queries("deploy", "backup.sql")


class Place(Protocol):
    """Where a server's programs run, with rights on all of it."""

    @property
    def name(self) -> str:
        """For messages."""
        ...

    def start(
        self, program: str, *arguments: str, stdin: IO[bytes] | int = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]: ...


class Server:
    """The server at a place. Every method raises DeployError where PostgreSQL refuses or does not answer."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.name = place.name

    def ask(self, database: str, query: str, *, timeout: float = QUERY_SECONDS, **variables: str) -> str:
        """Run a query of backup.sql and return what psql printed: values, with one row to a line."""
        call = self._psql(database, variables)
        return finish(call, name=f"psql in {self.name}", timeout=timeout, stdin=QUERIES[query] + b"\n").strip()

    def numbers(self, database: str) -> "Numbers":
        return Numbers(**json.loads(self.ask(database, "numbers_given", timeout=LONG_SECONDS)))

    @contextlib.contextmanager
    def keys(self, database: str, query: str) -> Iterator[Iterator[tuple[int, int]]]:
        """The rows of a query with two numbers each, as they come. Raises at the end where the query failed."""
        with self._psql(database, {}) as call, _ending(call, after=LONG_SECONDS):
            assert call.stdout is not None
            _send(call, QUERIES[query] + b"\n\\q\n")
            yield (_two_numbers(line) for line in call.stdout)
            while call.stdout.read(_CHUNK_BYTES):
                pass
            finish(call, name=f"psql in {self.name}", timeout=QUERY_SECONDS)

    @contextlib.contextmanager
    def snapshot(self, database: str) -> Iterator["Snapshot"]:
        """One moment of a database, for as long as the context lasts."""
        with self._psql(database, {}) as call, _ending(call, after=2 * LONG_SECONDS):
            yield Snapshot(self.name, call)

    def dump(self, database: str, file: IO[bytes], *, snapshot: str) -> None:
        """Write what a snapshot sees to a file, in the custom format of pg_dump."""
        options = ("--format=custom", f"--snapshot={snapshot}", "--lock-wait-timeout=30s", "--no-owner", "--no-acl")
        # Through a pipe: into a file it would add a second table of contents behind the first.
        with (
            self._place.start("pg_dump", *options, f"--dbname={database}") as call,
            _ending(call, after=LONG_SECONDS),
        ):
            assert call.stdout is not None
            shutil.copyfileobj(call.stdout, file, _CHUNK_BYTES)
            file.flush()
            finish(call, name=f"pg_dump in {self.name}", timeout=QUERY_SECONDS)

    def read_through(self, path: Path) -> None:
        """Read a dump to its end, and raise where that is not possible."""
        with path.open("rb") as file:
            call = self._place.start("pg_restore", "--file=/dev/null", stdin=file)
            finish(call, name=f"pg_restore in {self.name}", timeout=LONG_SECONDS)

    def load(self, database: str, path: Path) -> None:
        """Make a database (anew, where there is one of that name) and load a dump into it: all of it, or raise."""
        self.drop(database)
        self.ask(MAINTENANCE, "create_database", name=database)
        with path.open("rb") as file:
            options = ("--exit-on-error", "--no-owner", "--no-acl", f"--dbname={database}")
            call = self._place.start("pg_restore", *options, stdin=file)
            finish(call, name=f"pg_restore in {self.name}", timeout=LONG_SECONDS)

    def drop(self, database: str) -> None:
        self.ask(MAINTENANCE, "drop_database", name=database)

    def has_database(self, name: str) -> bool:
        return name in json.loads(self.ask(MAINTENANCE, "list_databases"))

    def has_table(self, database: str, table: str) -> bool:
        return self.has_database(database) and self.ask(database, "has_table", table=table) == "t"

    def has_rows(self, database: str, table: str) -> bool:
        return self.has_table(database, table) and self.ask(database, "has_rows", table=table) == "t"

    def version(self) -> str:
        """The server's version, such as `17.5`."""
        return self.ask(MAINTENANCE, "server_version").split()[0]

    def schema(self, database: str) -> dict[str, int]:
        """The version of each package that has tables in a database."""
        return parse_schema(self.ask(database, "schema_versions"))

    def rows(self, database: str) -> dict[str, int]:
        """How many rows each table of a database has."""
        return parse_rows(self.ask(database, "count_rows", timeout=LONG_SECONDS))

    def put_in_place(self, fresh: str, *, name: str, kept: str) -> None:
        """Rename `fresh` to `name`, and what had that name to `kept`, in one transaction. Ends sessions in both."""
        self.ask(MAINTENANCE, "put_in_place", fresh=fresh, name=name, kept=kept)

    def _psql(self, database: str, variables: dict[str, str]) -> subprocess.Popen[bytes]:
        options = ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]
        options += [f"--set={name}={value}" for name, value in variables.items()]
        return self._place.start("psql", *options, f"--dbname={database}", stdin=subprocess.PIPE)


@dataclass(frozen=True, slots=True)
class Numbers:
    """The highest task id and the newest block of ids; the highest outbox id and its sequence."""

    task_id: int
    block: int
    outbox_id: int
    outbox_sequence: int


class Snapshot:
    """A session of psql that holds a transaction open."""

    def __init__(self, server: str, session: subprocess.Popen[bytes]) -> None:
        self._server = server
        self._session = session
        self.snapshot_id = self._ask("begin_snapshot").strip()

    def schema(self) -> dict[str, int]:
        """The version of each package that has tables here."""
        return parse_schema(self._ask("schema_versions"))

    def rows(self) -> dict[str, int]:
        """How many rows each table has."""
        return parse_rows(self._ask("count_rows"))

    def _ask(self, query: str) -> str:
        assert self._session.stdout is not None
        _send(self._session, QUERIES[query] + b"\n\\echo " + _END_OF_ANSWER)
        lines = []
        while (line := self._session.stdout.readline()) != _END_OF_ANSWER:
            if not line:
                raise self._failure()
            lines.append(line)
        return b"".join(lines).decode()

    def _failure(self) -> DeployError:
        assert self._session.stderr is not None
        reason = reason_in(self._session.stderr.read()) or "it ended"
        return DeployError(f"`psql in {self._server}` failed: {reason}")


def parse_schema(answer: str) -> dict[str, int]:
    schema: dict[str, int] = json.loads(answer)
    return schema


def parse_rows(answer: str) -> dict[str, int]:
    pairs = (line.rsplit("|", 1) for line in answer.splitlines())
    return {table: int(count) for table, count in pairs}


def _two_numbers(line: bytes) -> tuple[int, int]:
    first, _, second = line.partition(b"\t")
    return int(first), int(second)


def _send(session: subprocess.Popen[bytes], statement: bytes) -> None:
    """Hand a statement, shorter than a pipe is, to psql. Where that has ended, its output says so."""
    assert session.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        os.write(session.stdin.fileno(), statement)


@contextlib.contextmanager
def _ending(call: subprocess.Popen[bytes], *, after: float) -> Iterator[None]:
    """See to it that a program ends with the context, and at the latest after so many seconds."""
    timer = threading.Timer(after, end, [call])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        end(call)
