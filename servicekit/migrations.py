"""Brings a database to the newest schema that this version knows, while other replicas do the same.

A package keeps numbered files `NNN_name.sql` in its folder `migrations/`. They run forward only, each in its own
transaction, once. A schema newer than we know is fine: migrations only add what older code does not need to know.
"""

import asyncio
import random
import re
import time
from dataclasses import dataclass
from importlib import resources

import psycopg
import structlog
from psycopg import conninfo, errors

from servicekit.postgres import reason_of
from servicekit.queries import load_queries

log = structlog.stdlib.get_logger(__name__)

_FILE = re.compile(r"(\d{3})_([a-z0-9_]+)\.sql")
# Any number will do that nobody else takes in this database.
_LOCK_KEY = 0x68656164
_POLL_SECONDS = 0.25
_AWAY_SECONDS_MIN, _AWAY_SECONDS_MAX = 0.2, 2.0
_LOG_AGAIN_SECONDS = 10.0
# A statement that needs a table waits half a second for it, so that it never makes others queue up behind it for long.
_LOCK_TIMEOUT = "500ms"
_LOCK_TRIES_MAX = 120

_QUERIES = load_queries("servicekit", "migrations.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    version: int
    name: str
    sql: bytes


class ServerAway(Exception):  # noqa: N818 - never leaves this module
    """The server cannot be reached, or the connection was lost: begin again."""


async def migrate(dsn: str, package: str) -> None:
    """Apply what is missing and return. Waits while the server is away or another replica migrates.

    A migration that fails for its own sake raises psycopg.Error and leaves the schema as the one before it did.
    """
    known = read_migrations(package)
    pause, logged_at = _AWAY_SECONDS_MIN, -_LOG_AGAIN_SECONDS
    while True:
        try:
            return await _migrate_once(dsn, package, known)
        except ServerAway as error:
            if time.monotonic() - logged_at >= _LOG_AGAIN_SECONDS:
                logged_at = time.monotonic()
                log.warning("migration_waits_for_database", package=package, reason=str(error))
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(2 * pause, _AWAY_SECONDS_MAX)


def read_migrations(package: str) -> list[Migration]:
    """The migrations of a package in order. Two of the same number are a ValueError, as is any other file name."""
    found: dict[int, Migration] = {}
    for file in resources.files(package).joinpath("migrations").iterdir():
        if not file.name.endswith(".sql"):
            continue
        match = _FILE.fullmatch(file.name)
        if match is None or int(match[1]) in found:
            raise ValueError(f"{package}/migrations/{file.name}: not NNN_name.sql, or its number is taken")
        found[int(match[1])] = Migration(int(match[1]), match[2], file.read_bytes())
    return [found[version] for version in sorted(found)]


async def _migrate_once(dsn: str, package: str, known: list[Migration]) -> None:
    try:
        conn = await psycopg.AsyncConnection.connect(_without_timeouts(dsn), autocommit=True)
    except psycopg.OperationalError as error:
        raise ServerAway(reason_of(error)) from error
    async with conn:
        try:
            await _migrate_on(conn, package, known)
        except psycopg.Error as error:
            if conn.closed:
                raise ServerAway(reason_of(error)) from error
            raise


def _without_timeouts(dsn: str) -> str:
    options = conninfo.conninfo_to_dict(dsn).get("options") or ""
    return conninfo.make_conninfo(
        dsn, options=f"{options} -c statement_timeout=0".strip(), connect_timeout=3, application_name="migrations"
    )


async def _migrate_on(conn: psycopg.AsyncConnection, package: str, known: list[Migration]) -> None:
    await _lock(conn)
    await conn.execute(_QUERIES["create_table"])
    rows = await (await conn.execute(_QUERIES["select_versions"], {"package": package})).fetchall()
    applied = {version for (version,) in rows}
    if newer := applied - {migration.version for migration in known}:
        log.info("schema_is_newer", package=package, versions=sorted(newer))
    for migration in known:
        if migration.version not in applied:
            await _apply(conn, package, migration)


async def _lock(conn: psycopg.AsyncConnection) -> None:
    """Take the lock by asking again and again: a session that waits inside the server can deadlock with an index
    that another one builds.
    """
    while True:
        row = await (await conn.execute(_QUERIES["try_lock"], {"key": _LOCK_KEY})).fetchone()
        if row == (True,):
            return
        await asyncio.sleep(_POLL_SECONDS)


async def _apply(conn: psycopg.AsyncConnection, package: str, migration: Migration) -> None:
    for tries in range(1, _LOCK_TRIES_MAX + 1):
        try:
            async with conn.transaction():
                await conn.execute(_QUERIES["set_lock_timeout"], {"timeout": _LOCK_TIMEOUT})
                await conn.execute(migration.sql)
                await conn.execute(
                    _QUERIES["insert_version"],
                    {"package": package, "version": migration.version, "name": migration.name},
                )
        except (errors.LockNotAvailable, errors.DeadlockDetected):
            if tries == _LOCK_TRIES_MAX:
                raise
            await asyncio.sleep(random.uniform(0.1, 0.5))
        else:
            log.info("migration_applied", package=package, version=migration.version, name=migration.name, tries=tries)
            return
