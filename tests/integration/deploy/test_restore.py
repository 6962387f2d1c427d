"""A restore puts both databases into place or leaves them as they were, and loses nothing that it replaces."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from deploy.backup import take_backup
from deploy.database import Place, Server, Snapshot
from deploy.errors import DeployError
from deploy.manifest import MANIFEST
from deploy.restore import restore
from deploy.stack import FORGET_TASKS
from deploy.stores import RESULTS, TASKS, Servers
from servicekit import redis_keys
from servicekit.live.cursors import Cursor
from servicekit.live.sequencer import Sequencer
from tests.support.databases import Databases, change_manifest


class RecordingStack:
    """A stack of which two services run; notes what is done to it, and what is in place then."""

    def __init__(self, databases: Databases) -> None:
        self.done: list[str] = []
        self._databases = databases

    def start_stores(self) -> None:
        self.done.append("start stores")

    def running_services(self) -> Sequence[str]:
        return ["gateway", "management"]

    def stop_services(self, services: Sequence[str]) -> None:
        self.done.append(f"stop {' '.join(services)}")

    def start_services(self, services: Sequence[str]) -> None:
        self.done.append(f"start {' '.join(services)} with {len(self._databases.task_ids())} tasks")

    def forget_tasks(self) -> None:
        self.done.append("forget tasks")


class Refusing(Server):
    """Never gives a database its place."""

    def put_in_place(self, fresh: str, *, name: str, kept: str) -> None:
        raise DeployError("it is in use")


class Meanwhile(Server):
    """Has something happen right before its snapshot is taken."""

    def __init__(self, place: Place, happening: Callable[[], None]) -> None:
        super().__init__(place)
        self._happening = happening

    @contextmanager
    def snapshot(self, database: str) -> Iterator[Snapshot]:
        self._happening()
        with super().snapshot(database) as snapshot:
            yield snapshot


@pytest.fixture
def stack(databases: Databases) -> RecordingStack:
    return RecordingStack(databases)


def test_a_restore_brings_back_what_was(databases: Databases, stack: RecordingStack, folder: Path) -> None:
    take_backup(databases.servers, folder, say=print)
    databases.add_completed(4)
    databases.ask(TASKS.database, "DELETE FROM tasks WHERE task_id = 2")
    databases.ask(RESULTS.database, "UPDATE results SET result = 'overwritten'")

    restore(databases.servers, stack, folder, replace=True, say=print)

    assert databases.task_ids() == [1, 2, 3]
    assert databases.ask(RESULTS.database, "SELECT convert_from(result, 'UTF8') FROM results ORDER BY task_id") == [
        ("of 1",),
        ("of 2",),
        ("of 3",),
    ]
    assert stack.done == [
        "start stores",
        "stop gateway management",
        "forget tasks",
        "start gateway management with 3 tasks",
    ]


def test_what_was_replaced_is_kept(databases: Databases, stack: RecordingStack, folder: Path) -> None:
    take_backup(databases.servers, folder, say=print)
    databases.add_completed(4)

    restore(databases.servers, stack, folder, replace=True, say=print)

    [tasks, old_tasks, results, old_results] = databases.names()
    assert (tasks, results) == ("headrace", "headrace_results")
    assert old_tasks.startswith("headrace_before_restore_")
    assert old_results.startswith("headrace_results_before_restore_")
    assert databases.ask(old_tasks, "SELECT count(*) FROM tasks") == [(4,)]
    assert databases.ask(old_results, "SELECT count(*) FROM results") == [(4,)]


def test_tasks_are_replaced_on_request_alone(databases: Databases, stack: RecordingStack, folder: Path) -> None:
    take_backup(databases.servers, folder, say=print)

    with pytest.raises(DeployError, match="tasks-db holds tasks, so nothing was restored"):
        restore(databases.servers, stack, folder, replace=False, say=print)

    assert stack.done == ["start stores"]
    assert databases.names() == ["headrace", "headrace_results"]


def test_an_empty_stack_needs_no_confirmation(databases: Databases, stack: RecordingStack, folder: Path) -> None:
    take_backup(databases.servers, folder, say=print)
    databases.drop()
    for name in ("headrace", "headrace_results"):
        databases.ask("postgres", f"CREATE DATABASE {name}")

    restore(databases.servers, stack, folder, replace=False, say=print)

    assert databases.task_ids() == [1, 2, 3]
    assert databases.result_ids() == [1, 2, 3]


def test_sessions_of_others_do_not_stand_in_the_way(databases: Databases, stack: RecordingStack, folder: Path) -> None:
    take_backup(databases.servers, folder, say=print)
    databases.add_completed(4)

    with databases.servers.tasks.snapshot(TASKS.database):
        restore(databases.servers, stack, folder, replace=True, say=print)

    assert databases.task_ids() == [1, 2, 3]


def test_no_id_is_handed_out_twice(databases: Databases, stack: RecordingStack, folder: Path) -> None:
    take_backup(databases.servers, folder, say=print)
    databases.ask(TASKS.database, "UPDATE id_blocks SET high = 12")

    restore(databases.servers, stack, folder, replace=True, say=print)

    assert databases.ask(TASKS.database, "SELECT high FROM id_blocks") == [(12,)]


def test_no_id_is_handed_out_that_has_a_result_already(
    databases: Databases, stack: RecordingStack, folder: Path
) -> None:
    """Its task was accepted while the backup was taken, and is not in it; Redis and the old database are lost."""
    databases.ask(RESULTS.database, "INSERT INTO results VALUES (8000001, 1, 'of a task that was not dumped')")
    take_backup(databases.servers, folder, say=print)
    databases.ask(TASKS.database, "DROP TABLE id_blocks")

    restore(databases.servers, stack, folder, replace=True, say=print)

    assert databases.ask(TASKS.database, "SELECT high FROM id_blocks") == [(9,)]


def test_tasks_removed_while_the_backup_began_are_removed_again(
    databases: Databases, stack: RecordingStack, folder: Path
) -> None:
    def remove() -> None:
        databases.ask(TASKS.database, "UPDATE tasks SET removed_at = now(), data = NULL WHERE task_id = 2")
        databases.ask(RESULTS.database, "DELETE FROM results WHERE task_id = 2")

    databases.ask(
        TASKS.database,
        "INSERT INTO ended_attempts (task_id, attempt, ended_at, outcome) VALUES (2, 1, now(), 'failed')",
    )
    servers = Servers(databases.servers.tasks, Meanwhile(databases.place(RESULTS), remove))
    manifest = take_backup(servers, folder, say=print)
    assert manifest.removed == [2]
    assert manifest.dump_of(TASKS).rows["tasks"] == 3

    restore(databases.servers, stack, folder, replace=True, say=print)

    assert databases.task_ids() == [1, 3]
    assert databases.ask(TASKS.database, "SELECT data, revision FROM tasks WHERE task_id = 2") == [(None, 2)]
    assert databases.ask(TASKS.database, "SELECT task_id FROM ended_attempts") == []


def test_a_dump_that_cannot_be_loaded_changes_nothing(
    databases: Databases, stack: RecordingStack, folder: Path
) -> None:
    take_backup(databases.servers, folder, say=print)
    damaged = (folder / "results.dump").read_bytes()[:-200]
    (folder / "results.dump").write_bytes(damaged)
    change_manifest(folder, "results", bytes=len(damaged), sha256=hashlib.sha256(damaged).hexdigest())
    databases.add_completed(4)
    said: list[str] = []

    with pytest.raises(DeployError, match="nothing was restored"):
        restore(databases.servers, stack, folder, replace=True, say=said.append)

    assert any(line.startswith("FAIL  results.dump can be loaded: `pg_restore in results-db` failed") for line in said)
    assert databases.names() == ["headrace", "headrace_results"]
    assert databases.result_ids() == [1, 2, 3, 4]
    assert stack.done == ["start stores", "stop gateway management", "start gateway management with 4 tasks"]


def test_where_one_database_stays_the_other_stays_too(
    databases: Databases, stack: RecordingStack, folder: Path
) -> None:
    take_backup(databases.servers, folder, say=print)
    databases.add_completed(4)
    servers = Servers(databases.servers.tasks, Refusing(databases.place(RESULTS)))

    with pytest.raises(DeployError, match="it is in use"):
        restore(servers, stack, folder, replace=True, say=print)

    assert databases.names() == ["headrace", "headrace_results"]
    assert databases.task_ids() == [1, 2, 3, 4]
    assert stack.done[-1] == "start gateway management with 4 tasks"


def test_what_is_no_backup_stops_nothing(databases: Databases, stack: RecordingStack, folder: Path) -> None:
    take_backup(databases.servers, folder, say=print)
    (folder / MANIFEST).unlink()

    with pytest.raises(DeployError, match="is no backup, or was not finished"):
        restore(databases.servers, stack, folder, replace=True, say=print)

    assert stack.done == []


def entry_id_of(text: str) -> tuple[int, int]:
    ms, _, seq = text.partition("-")
    return int(ms), int(seq)


async def test_redis_forgets_tasks_and_keeps_submissions_and_ids(redis_url: str) -> None:
    client: Any
    async with redis.asyncio.Redis.from_url(redis_url, decode_responses=True) as client:
        for task_id in range(1, 2_001):
            await client.set(redis_keys.cached_task(task_id), "X")
        old = [await client.xadd(redis_keys.UPDATES, {"b": "an update"}) for _ in range(200)]
        await client.xadd(redis_keys.SUBMISSIONS, {"b": "a submission"})
        await client.zadd(redis_keys.UNSTORED, {redis_keys.marker(1, 9): 9})
        await client.zadd(redis_keys.IDS_HIGH, {redis_keys.IDS_HIGH_MEMBER: 3})

        await client.execute_command(*FORGET_TASKS)

        [(entry_id, fields)] = await client.xrange(redis_keys.UPDATES)
        # A reader that was somewhere in the old stream is told to begin anew.
        sequencer = Sequencer(entry_id_of(entry_id))
        assert sequencer.take(entry_id_of(entry_id), fields["b"].encode(), now=0.0) == []
        assert sequencer.window.after(Cursor(*entry_id_of(old[-1]), 0)) is None
        assert sorted(await client.keys("*")) == sorted(
            [redis_keys.UPDATES, redis_keys.SUBMISSIONS, redis_keys.UNSTORED, redis_keys.IDS_HIGH]
        )
        assert await client.xlen(redis_keys.SUBMISSIONS) == 1
