"""A backup holds both databases as they were at one moment, and appears whole or not at all."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.backup import take_backup
from deploy.checks import check_backup
from deploy.database import Server
from deploy.errors import DeployError
from deploy.manifest import MANIFEST, Manifest
from deploy.restore_check import try_out
from deploy.stores import RESULTS, TASKS, Servers, Store
from tests.support.databases import Databases, change_manifest


class FullDisk(Server):
    """Where dumps cannot be written."""

    def read_through(self, path: Path) -> None:
        raise DeployError("no space left")


def test_a_backup_says_what_it_holds(databases: Databases, folder: Path) -> None:
    said: list[str] = []

    take_backup(databases.servers, folder, say=said.append)

    assert sorted(path.name for path in folder.iterdir()) == [MANIFEST, "results.dump", "tasks.dump"]
    manifest = Manifest.read(folder)
    assert manifest.dump_of(TASKS).rows["tasks"] == 3
    assert manifest.dump_of(RESULTS).rows["results"] == 3
    assert manifest.dump_of(TASKS).schema == {TASKS.package: TASKS.known_schema()}
    assert said[0].startswith("tasks.dump: ")
    assert said[0].endswith(" bytes, 3 tasks")
    assert said[-1].endswith(str(folder))


def test_what_happens_meanwhile_is_in_neither_dump(databases: Databases, folder: Path) -> None:
    def meanwhile(line: str) -> None:
        if line.startswith("tasks.dump"):
            databases.add_completed(4)

    manifest = take_backup(databases.servers, folder, say=meanwhile)

    assert databases.task_ids() == [1, 2, 3, 4]
    assert manifest.dump_of(RESULTS).rows["results"] == 3
    try_out(databases.servers, folder, say=print)


def test_a_backup_that_fails_leaves_nothing(databases: Databases, folder: Path) -> None:
    servers = Servers(databases.servers.tasks, FullDisk(databases.place(RESULTS)))

    with pytest.raises(DeployError, match="no space left"):
        take_backup(servers, folder, say=print)

    assert list(folder.parent.iterdir()) == []


def test_an_interrupted_backup_is_none(databases: Databases, folder: Path) -> None:
    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        take_backup(databases.servers, folder, say=interrupt)

    assert list(folder.parent.iterdir()) == []
    assert databases.ask("postgres", "SELECT 1 FROM pg_stat_activity WHERE state = 'idle in transaction'") == []


def test_a_folder_that_is_there_is_not_written_to(databases: Databases, folder: Path) -> None:
    folder.mkdir(parents=True)

    with pytest.raises(DeployError, match="is there already"):
        take_backup(databases.servers, folder, say=print)

    assert list(folder.iterdir()) == []


def test_without_tables_there_is_nothing_to_back_up(databases: Databases, folder: Path) -> None:
    databases.drop()

    with pytest.raises(DeployError, match="tasks-db holds no tasks yet"):
        take_backup(databases.servers, folder, say=print)


def test_a_backup_can_be_tried_out_beside_the_databases_in_use(databases: Databases, folder: Path) -> None:
    take_backup(databases.servers, folder, say=print)
    said: list[str] = []

    try_out(databases.servers, folder, say=said.append)

    assert [line for line in said[1:-1] if not line.startswith("ok    ")] == []
    assert "ok    every completed task has its result" in said
    assert "ok    all 5 rows of the results are there" in said
    assert said[-1] == "this backup can be restored"
    assert databases.names() == ["headrace", "headrace_results"]


def test_a_completed_task_without_result_fails_the_check(databases: Databases, folder: Path) -> None:
    databases.ask(RESULTS.database, "DELETE FROM results WHERE task_id = 2")
    take_backup(databases.servers, folder, say=print)
    said: list[str] = []

    with pytest.raises(DeployError, match="not to be relied on: 1 check failed"):
        try_out(databases.servers, folder, say=said.append)

    assert said[-1] == "FAIL  every completed task has its result: 1 have none: task 2 (attempt 1)"
    assert databases.names() == ["headrace", "headrace_results"]


def test_ids_above_what_was_handed_out_fail_the_check(databases: Databases, folder: Path) -> None:
    databases.add_completed(1_000_001)
    take_backup(databases.servers, folder, say=print)
    said: list[str] = []

    with pytest.raises(DeployError, match="1 check failed"):
        try_out(databases.servers, folder, say=said.append)

    assert "FAIL  no task id is above the blocks handed out: task 1000001 is above 1000000" in said


def test_rows_that_do_not_come_back_fail_the_check(databases: Databases, folder: Path) -> None:
    take_backup(databases.servers, folder, say=print)
    change_manifest(folder, "tasks", rows={"tasks": 4, "outbox": 0})
    said: list[str] = []

    with pytest.raises(DeployError, match="1 check failed"):
        try_out(databases.servers, folder, say=said.append)

    assert any("tasks: 3 instead of 4" in line for line in said)


def test_what_does_not_fit_is_not_loaded(databases: Databases, folder: Path) -> None:
    take_backup(databases.servers, folder, say=print)
    written = Manifest.read(folder)

    def complaint(store: Store, **changed: Any) -> str:
        """The one check that fails where the manifest says something else of a dump."""
        dumps = {**written.dumps, store.title: replace(written.dump_of(store), **changed)}
        checks = check_backup(folder, replace(written, dumps=dumps), databases.servers)
        [failed] = [check for check in checks if check.problem]
        return f"{failed.rule}: {failed.problem}"

    assert complaint(TASKS, schema={TASKS.package: 999}).startswith(
        "the schema of the tasks is known: it is version 999, and this version of Headrace knows "
    )
    assert complaint(RESULTS, schema={}).endswith(": the manifest names none of result_store")
    assert complaint(RESULTS, server_version="99.1").startswith(
        "results-db can load what PostgreSQL 99.1 wrote: it is "
    )
    assert complaint(RESULTS, bytes=12).endswith(" bytes, and had 12 when it was written")
    assert complaint(TASKS, sha256="0" * 64) == "tasks.dump is as it was written: its SHA-256 is another"
    assert complaint(TASKS, file="gone") == "gone is as it was written: it cannot be read: No such file or directory"


def test_a_dump_that_ends_too_early_is_found_out(databases: Databases, folder: Path) -> None:
    take_backup(databases.servers, folder, say=print)
    path = folder / "tasks.dump"
    path.write_bytes(path.read_bytes()[:-40])
    said: list[str] = []

    with pytest.raises(DeployError, match="1 check failed"):
        try_out(databases.servers, folder, say=said.append)

    assert any(line.startswith("FAIL  tasks.dump is as it was written: it has ") for line in said)
    assert not any("can be loaded" in line for line in said)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "is no backup, or was not finished: it has no manifest.json"),
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"format": 1, "taken_at": "today"}', "is damaged: KeyError: 'headrace_version'"),
        ('{"format": 2}', "has format 2; this version of Headrace reads 1"),
    ],
)
def test_a_manifest_that_says_nothing_is_named(tmp_path: Path, content: str | None, complaint: str) -> None:
    if content is not None:
        (tmp_path / MANIFEST).write_text(content)

    with pytest.raises(DeployError) as raised:
        Manifest.read(tmp_path)

    assert complaint in str(raised.value)
