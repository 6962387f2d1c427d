"""`python -m deploy.backup [FOLDER]`: both databases of the running stack, as they were at one moment.

Nothing is stopped. Each dump is what one transaction sees. That of the tasks is begun first and that of the results
right after it: a result is stored before its task completes, so every completed task of the one has its result in the
other. Tasks that somebody removed between the two have lost theirs; they are named in the manifest, and a restore
removes them again.

The folder appears under its name when everything in it has been written, read back and synced to disk. What an
interrupted backup leaves, if anything, has another name and no manifest.

Redis is not part of it: it holds what was accepted and not stored yet (seconds, usually), and a copy of what else it
holds would be of no use. The secrets are not part of it either.
"""

import argparse
import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import headrace
from deploy.compose import PROJECT_FOLDER, Compose
from deploy.container import servers_of
from deploy.database import LONG_SECONDS, Snapshot
from deploy.errors import DeployError, run_tool
from deploy.manifest import DumpFile, Manifest, sha256_of
from deploy.stores import RESULTS, STORES, TASKS, Servers, Store

BACKUPS = PROJECT_FOLDER / "deploy" / "backups"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.backup", description="Back up both databases.")
    parser.add_argument("folder", nargs="?", type=Path, help="a new folder (deploy/backups/TIME)")
    folder = parser.parse_args().folder or BACKUPS / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    os.umask(0o077)
    take_backup(servers_of(Compose()), folder.absolute(), say=print)


def take_backup(servers: Servers, folder: Path, *, say: Callable[[str], None]) -> Manifest:
    """Write a backup to `folder`, which must not be there yet."""
    if folder.exists():
        raise DeployError(f"{folder} is there already")
    for store in STORES:
        if not servers.of(store).has_table(store.database, store.table):
            raise DeployError(f"{store.service} holds no {store.title} yet: there is nothing to back up")
    with _draft_of(folder) as draft, ExitStack() as open_snapshots:
        taken_at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        tasks = open_snapshots.enter_context(servers.tasks.snapshot(TASKS.database))
        results = open_snapshots.enter_context(servers.results.snapshot(RESULTS.database))
        # After both: whose result is missing in the second for having been removed is removed by now.
        removed = json.loads(servers.tasks.ask(TASKS.database, "removed_lately", timeout=LONG_SECONDS))
        dumps = {}
        for store, snapshot in ((TASKS, tasks), (RESULTS, results)):
            dumps[store.title] = dump = _dump(servers, store, snapshot, draft)
            say(f"{dump.file}: {dump.bytes:,} bytes, {dump.rows[store.table]:,} {store.title}")
        manifest = Manifest(taken_at=taken_at, headrace_version=headrace.__version__, dumps=dumps, removed=removed)
        manifest.write(draft)
        _sync(draft)
    say(f"backup of {taken_at}: {folder}")
    return manifest


def _dump(servers: Servers, store: Store, snapshot: Snapshot, folder: Path) -> DumpFile:
    server = servers.of(store)
    schema, rows = snapshot.schema(), snapshot.rows()
    path = folder / store.file_name
    with path.open("xb") as file:
        server.dump(store.database, file, snapshot=snapshot.snapshot_id)
        os.fsync(file.fileno())
    server.read_through(path)
    return DumpFile(
        file=path.name,
        bytes=path.stat().st_size,
        sha256=sha256_of(path),
        server_version=server.version(),
        schema=schema,
        rows=rows,
    )


@contextlib.contextmanager
def _draft_of(folder: Path) -> Iterator[Path]:
    """A folder that gets its name in the end, and is removed where that does not come."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    try:
        yield draft
        draft.rename(folder)
        _sync(folder.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Make what was written into a folder outlive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    run_tool(main)
