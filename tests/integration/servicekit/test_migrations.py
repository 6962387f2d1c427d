"""The migration runner: several replicas at once, servers that come late, schemas from the future."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from servicekit.migrations import migrate, read_migrations

MakePackage = Callable[..., str]


@pytest.fixture
def make_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakePackage:
    """Makes a package with the given migration files and returns its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(name: str, **files: str) -> str:
        folder = tmp_path / name / "migrations"
        folder.mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "__init__.py").touch()
        for file, sql in files.items():
            (folder / f"{file.removeprefix('_')}.sql").write_text(sql)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    return make


async def fetch(dsn: str, query: str) -> list[tuple[object, ...]]:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        return await (await conn.execute(query.encode())).fetchall()


async def versions(dsn: str) -> list[tuple[object, ...]]:
    return await fetch(dsn, "SELECT package, version, name FROM schema_migrations ORDER BY package, version")


async def test_migrations_run_once_and_in_order(postgres_dsn: str, make_package: MakePackage) -> None:
    package = make_package(
        "one",
        _002_fill="INSERT INTO a VALUES (1); INSERT INTO a VALUES (2);",
        _001_make="CREATE TABLE a (n int)",
    )
    await migrate(postgres_dsn, package)
    await migrate(postgres_dsn, package)

    assert await versions(postgres_dsn) == [("one", 1, "make"), ("one", 2, "fill")]
    assert await fetch(postgres_dsn, "SELECT n FROM a ORDER BY n") == [(1,), (2,)]


async def test_replicas_that_start_together_migrate_once(postgres_dsn: str, make_package: MakePackage) -> None:
    package = make_package(
        "many", _001_make="CREATE TABLE a (n int); SELECT pg_sleep(0.3)", _002_next="CREATE TABLE b ()"
    )

    await asyncio.gather(*(migrate(postgres_dsn, package) for _ in range(4)))

    assert await versions(postgres_dsn) == [("many", 1, "make"), ("many", 2, "next")]


async def test_two_packages_may_share_a_database(postgres_dsn: str, make_package: MakePackage) -> None:
    for package in (
        make_package("first", _001_a="CREATE TABLE a ()"),
        make_package("other", _001_b="CREATE TABLE b ()"),
    ):
        await migrate(postgres_dsn, package)

    assert await versions(postgres_dsn) == [("first", 1, "a"), ("other", 1, "b")]


async def test_a_newer_schema_is_accepted(postgres_dsn: str, make_package: MakePackage) -> None:
    package = make_package("newer", _001_a="CREATE TABLE a ()")
    await migrate(postgres_dsn, package)
    await fetch(postgres_dsn, "INSERT INTO schema_migrations VALUES ('newer', 2, 'future') RETURNING 1")

    await migrate(postgres_dsn, package)

    assert len(await versions(postgres_dsn)) == 2


async def test_a_migration_that_fails_leaves_the_ones_before_it(postgres_dsn: str, make_package: MakePackage) -> None:
    package = make_package("broken", _001_a="CREATE TABLE a ()", _002_b="CREATE TABLE b (); SELECT 1 / 0")

    with pytest.raises(psycopg.errors.DivisionByZero):
        await migrate(postgres_dsn, package)

    assert await versions(postgres_dsn) == [("broken", 1, "a")]
    assert await fetch(postgres_dsn, "SELECT to_regclass('b')") == [(None,)]


async def test_a_locked_table_is_waited_for_in_short_tries(postgres_dsn: str, make_package: MakePackage) -> None:
    package = make_package("locked", _001_b="ALTER TABLE a ADD COLUMN n int")
    async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as conn:
        await conn.execute("CREATE TABLE a ()")
    async with await psycopg.AsyncConnection.connect(postgres_dsn) as holder:
        await holder.execute("LOCK TABLE a IN ACCESS SHARE MODE")
        migration = asyncio.create_task(migrate(postgres_dsn, package))
        done, _ = await asyncio.wait([migration], timeout=0.8)
        assert not done
    await migration
    assert await versions(postgres_dsn) == [("locked", 1, "b")]


async def test_a_lost_connection_begins_again(postgres_dsn: str, make_package: MakePackage) -> None:
    package = make_package("lost", _001_a="CREATE TABLE a (); SELECT pg_sleep(0.4)")
    migration = asyncio.create_task(migrate(postgres_dsn, package))
    end = """SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
              WHERE application_name = 'migrations' AND query LIKE '%pg_sleep(0.4)'"""
    while not await fetch(postgres_dsn, end):
        assert not migration.done()
    await migration
    assert await versions(postgres_dsn) == [("lost", 1, "a")]


async def test_a_server_that_is_away_is_waited_for(make_package: MakePackage) -> None:
    package = make_package("away", _001_a="CREATE TABLE a ()")
    waiting = asyncio.create_task(migrate("postgresql://nobody@127.0.0.1:1/none", package))
    done, _ = await asyncio.wait([waiting], timeout=0.5)
    assert not done
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


@pytest.mark.parametrize("name", ["_1_short", "_001_Upper", "_0001_long"])
def test_a_file_with_another_name_is_refused(make_package: MakePackage, name: str) -> None:
    package = make_package("named", **{name: "SELECT 1"})
    with pytest.raises(ValueError, match="NNN_name"):
        read_migrations(package)


def test_two_migrations_with_one_number_are_refused(make_package: MakePackage) -> None:
    package = make_package("twice", _001_a="SELECT 1", _001_b="SELECT 1")
    with pytest.raises(ValueError, match="taken"):
        read_migrations(package)
