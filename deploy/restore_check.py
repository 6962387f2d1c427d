"""`python -m deploy.restore_check FOLDER`: whether a backup can be restored, found out by doing it.

Loads both dumps into databases of their own beside those in use, looks at what they hold, and drops them again. It
needs room for a second copy and some of the servers' time; the stack goes on meanwhile, and nothing of it is changed.

Prints a line for each check, and ends with 1 if any of them fails.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.checks import check_backup, check_loaded, load, report
from deploy.compose import Compose
from deploy.container import servers_of
from deploy.errors import DeployError, run_tool
from deploy.manifest import Manifest
from deploy.stores import STORES, Servers


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.restore_check", description="Try a backup out.")
    parser.add_argument("folder", type=Path, help="a folder that deploy.backup wrote")
    try_out(servers_of(Compose()), parser.parse_args().folder, say=print)


def try_out(servers: Servers, folder: Path, *, say: Callable[[str], None]) -> None:
    """Raise DeployError unless the backup passes every check."""
    manifest = Manifest.read(folder)
    say(f"backup of {manifest.taken_at}, written by Headrace {manifest.headrace_version}")
    _require(report(check_backup(folder, manifest, servers), say=say))
    names = {store.title: f"{store.database}_restore_check" for store in STORES}
    with _throw_away(servers, names):
        _require(report(load(folder, manifest, servers, names), say=say))
        _require(report(check_loaded(manifest, servers, names), say=say))
    say("this backup can be restored")


def _require(failed: int) -> None:
    if failed:
        raise DeployError(f"this backup is not to be relied on: {failed} {'check' if failed == 1 else 'checks'} failed")


@contextmanager
def _throw_away(servers: Servers, names: dict[str, str]) -> Iterator[None]:
    try:
        yield
    finally:
        for store in STORES:
            servers.of(store).drop(names[store.title])


if __name__ == "__main__":
    run_tool(main)
