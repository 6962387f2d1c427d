"""The PostgreSQL of a local cluster: it starts, keeps what it acknowledged, and ends with its parent."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from headrace.local import programs
from headrace.local.errors import LocalClusterError
from headrace.local.postgres import PostgresServer
from tests.support.processes import has_ended, start_under_a_parent
from tests.support.servers import RunningServer
from tests.support.waiting import wait_until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PostgresServer]:
    made = PostgresServer(tmp_path / "server")
    made.prepare(databases=("first", "second"))
    yield made
    made.close()


@pytest.fixture
def running(server: PostgresServer, tmp_path: Path) -> Iterator[RunningServer]:
    started = RunningServer(server, log=tmp_path / "postgres.log")
    started.start()
    yield started
    started.stop()


def query(dsn: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def test_the_databases_are_there_from_the_first_start(server: PostgresServer, running: RunningServer) -> None:
    for database in ("first", "second"):
        assert query(server.dsn(database), "SELECT current_database()") == [(database,)]


def test_what_was_committed_survives_a_kill(server: PostgresServer, running: RunningServer) -> None:
    query(server.dsn("first"), "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
    running.kill()
    server.prepare()
    running.start()
    assert query(server.dsn("first"), "SELECT count(*) FROM kept") == [(1000,)]


def test_a_second_server_object_finds_the_data_again(
    server: PostgresServer, running: RunningServer, tmp_path: Path
) -> None:
    query(server.dsn("first"), "CREATE TABLE kept AS SELECT 1 AS n")
    running.stop()
    again = PostgresServer(tmp_path / "server")
    again.prepare()
    restarted = RunningServer(again, log=tmp_path / "again.log")
    restarted.start()
    try:
        assert query(again.dsn("first"), "SELECT n FROM kept") == [(1,)]
    finally:
        restarted.close()


def test_a_commit_is_on_disk_before_it_is_acknowledged(server: PostgresServer, running: RunningServer) -> None:
    for name in ("fsync", "synchronous_commit", "full_page_writes"):
        assert query(server.dsn("first"), f"SHOW {name}") == [("on",)]


def test_nobody_comes_in_without_the_password(server: PostgresServer, running: RunningServer) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"host=127.0.0.1 port={server.port} user=headrace dbname=first password=wrong")


async def test_the_server_ends_with_its_parent(server: PostgresServer) -> None:
    parent, child = start_under_a_parent(server.command())
    await wait_until(server.ready)
    parent.kill()
    parent.wait()
    await wait_until(lambda: has_ended(child))


def test_a_pid_that_went_to_another_program_does_not_keep_the_server_down(
    server: PostgresServer, running: RunningServer, tmp_path: Path
) -> None:
    running.kill()
    pid_file = tmp_path / "server" / "data" / "postmaster.pid"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        pid_file.write_text("\n".join([str(stranger.pid), *pid_file.read_text().splitlines()[1:]]) + "\n")
        server.prepare()
        assert not pid_file.exists()
        running.start()


def test_data_of_another_major_version_is_refused(server: PostgresServer, tmp_path: Path) -> None:
    (tmp_path / "server" / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(LocalClusterError, match="written by PostgreSQL 9, but only"):
        PostgresServer(tmp_path / "server")


def test_an_interrupted_creation_is_repeated(tmp_path: Path) -> None:
    (tmp_path / "server" / "data.new").mkdir(parents=True)
    (tmp_path / "server" / "data.new" / "PG_VERSION").write_text("half")
    server = PostgresServer(tmp_path / "server")
    server.prepare()
    assert (tmp_path / "server" / "data" / "PG_VERSION").exists()
    server.close()


def test_a_server_on_the_path_serves_where_no_bundled_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_package_folder", lambda name: None)
    try:
        server = PostgresServer(tmp_path / "server")
    except LocalClusterError:
        pytest.skip("no PostgreSQL is installed besides the bundled one")
    server.prepare(databases=("first",))
    running = RunningServer(server, log=tmp_path / "postgres.log")
    running.start()
    try:
        assert query(server.dsn("first"), "SELECT 1") == [(1,)]
    finally:
        running.close()
