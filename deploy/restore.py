"""`python -m deploy.restore FOLDER [--replace]`: put a backup in the place of what the stack holds.

What is there now stays, as databases named `..._before_restore_TIME`, until somebody drops it. Without `--replace`
nothing is done where it holds tasks or results.

The services are stopped first, so that no task is accepted that the restored database would not have. Both dumps are
loaded into new databases and checked as `deploy.restore_check` does; only then do these take the names of the old ones,
in one transaction on each server, tasks first: old tasks with newer results could be read, the other way round results
would be missing. Where anything fails before that, the services go on with what there was. After an interruption that
left them stopped, the same command begins again from the start.

What happened after the backup is lost with two exceptions: tasks that wait in Redis are stored afterwards, and no task
id is handed out twice. A task that completed after the backup runs again. Attempts that were in progress when it was
taken belong to sessions that are no more: they are rescued as after the loss of their replicas, and where the result
was stored already it is taken instead of running again.
"""

import argparse
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from deploy.checks import IDS_PER_BLOCK, check_backup, check_loaded, load, report
from deploy.compose import Compose
from deploy.container import servers_of
from deploy.database import LONG_SECONDS
from deploy.errors import DeployError, run_tool
from deploy.manifest import Manifest
from deploy.stack import ComposeStack, Stack
from deploy.stores import RESULTS, STORES, TASKS, Servers

_FRESH = {store.title: f"{store.database}_restoring" for store in STORES}
_REMOVED_AT_ONCE = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.restore", description="Restore both databases.")
    parser.add_argument("folder", type=Path, help="a folder that deploy.backup wrote")
    parser.add_argument("--replace", action="store_true", help="also where there are tasks or results")
    arguments = parser.parse_args()
    compose = Compose()
    stack = ComposeStack(compose)
    restore(servers_of(compose), stack, arguments.folder, replace=arguments.replace, say=print)


def restore(servers: Servers, stack: Stack, folder: Path, *, replace: bool, say: Callable[[str], None]) -> None:
    """Restore a backup, or raise DeployError and leave the databases as they were."""
    manifest = Manifest.read(folder)
    say(f"backup of {manifest.taken_at}, written by Headrace {manifest.headrace_version}")
    stack.start_stores()
    _require(report(check_backup(folder, manifest, servers), say=say))
    if not replace:
        _require_empty(servers)
    services = stack.running_services()
    try:
        stack.stop_services(services)
        say(f"stopped: {', '.join(services) or 'nothing, no service ran'}")
        _require(report(load(folder, manifest, servers, _FRESH), say=say))
        _require(report(check_loaded(manifest, servers, _FRESH), say=say))
        _prepare(servers, manifest)
        # First: an old database can do without what is forgotten, the restored one must not meet it.
        stack.forget_tasks()
        _put_in_place(servers, say=say)
    finally:
        try:
            for store in STORES:
                servers.of(store).drop(_FRESH[store.title])
        finally:
            stack.start_services(services)
    say(f"restored; running: {', '.join(services) or 'no service, start them with `docker compose up -d`'}")


def _require(failed: int) -> None:
    if failed:
        raise DeployError("nothing was restored: this backup is not to be relied on")


def _require_empty(servers: Servers) -> None:
    for store in STORES:
        server = servers.of(store)
        if server.has_rows(store.database, store.table):
            raise DeployError(
                f"{store.service} holds {store.title}, so nothing was restored. With CONFIRM=yes (--replace) they are "
                "put aside, and the backup takes their place"
            )


def _prepare(servers: Servers, manifest: Manifest) -> None:
    """Bring the loaded tasks to where services can go on from."""
    fresh, results = _FRESH[TASKS.title], servers.results.ask(_FRESH[RESULTS.title], "highest_result")
    # Above what Redis remembers they are lifted anyway. An id with a result of another task would get that result.
    block = -(-int(results) // IDS_PER_BLOCK)
    if servers.tasks.has_table(TASKS.database, "id_blocks"):
        block = max(block, int(servers.tasks.ask(TASKS.database, "id_high")))
    servers.tasks.ask(fresh, "raise_ids", block=str(block))
    for start in range(0, len(manifest.removed), _REMOVED_AT_ONCE):
        removed = ",".join(str(task_id) for task_id in manifest.removed[start : start + _REMOVED_AT_ONCE])
        servers.tasks.ask(fresh, "remove_again", task_ids=f"{{{removed}}}")
    for store in STORES:
        servers.of(store).ask(_FRESH[store.title], "analyze", timeout=LONG_SECONDS)


def _put_in_place(servers: Servers, *, say: Callable[[str], None]) -> None:
    time = f"{datetime.now(UTC):%Y%m%dt%H%M%Sz}"
    kept = {store.title: f"{store.database}_before_restore_{time}" for store in STORES}
    try:
        for store in STORES:
            servers.of(store).put_in_place(_FRESH[store.title], name=store.database, kept=kept[store.title])
    except BaseException:
        _take_back_if_half(servers, kept)
        raise
    for store in STORES:
        if servers.of(store).has_database(kept[store.title]):
            say(f"{store.service} keeps what it held as {kept[store.title]}; drop it when it is not needed any more")


def _take_back_if_half(servers: Servers, kept: Mapping[str, str]) -> None:
    """Restore the names where only one of the databases has taken its place: they belong together."""
    done = [store for store in STORES if not servers.of(store).has_database(_FRESH[store.title])]
    if len(done) == len(STORES):
        return
    for store in done:
        if servers.of(store).has_database(kept[store.title]):
            servers.of(store).put_in_place(kept[store.title], name=store.database, kept=_FRESH[store.title])


if __name__ == "__main__":
    run_tool(main)
