"""Both databases are backed up while tasks run, the backup is tried out, and restored over what came later."""

from pathlib import Path
from typing import Any

import pytest

from tests.compose.conftest import SIZES
from tests.compose.load import Load
from tests.compose.stack import CommandError, Stack
from tests.support.api import Api

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]

WORDS = {"text": "to be or not to be"}


async def test_a_backup_holds_what_had_ended_and_what_is_restored_goes_on(
    stack: Stack, api: Api, load: Load, tmp_path: Path
) -> None:
    backup = f"BACKUP={tmp_path / 'backup'}"
    [before] = await api.finals([await api.submit("word_count", WORDS)])
    [waiting] = [await api.submit("word_count", WORDS, delay=3600)]
    await load.grow(50)
    await stack.run("make", "compose-backup", backup)
    await load.grow(50)
    await load.finish()
    assert not load.refused
    print(await stack.run("make", "compose-restore-check", backup))  # noqa: T201
    await api.http.delete(f"/api/tasks/{before['id']}")
    later = await api.submit("word_count", WORDS)
    await api.final(later)

    with pytest.raises(CommandError, match="CONFIRM"):
        await stack.run("make", "compose-restore", backup)
    print(await stack.run("make", "compose-restore", backup, "CONFIRM=yes"))  # noqa: T201

    for service, count in SIZES.items():
        await stack.wait_healthy(service, count)
    again = await api.task(before["id"])
    assert (again["status"], again["result"]) == ("completed", before["result"])
    assert (await api.task(waiting))["status"] == "scheduled"
    assert (await api.http.get(f"/api/tasks/{later}")).status_code == 404
    # Ids that were given since are not given again.
    fresh = await api.submit("word_count", WORDS)
    assert fresh > later
    assert (await api.final(fresh))["status"] == "completed"
    # What had not ended by then ends now: work that was done since is done again.
    unfinished = [task for status in ("queued", "processing") for task in await listed(api, status)]
    await api.finals(task["id"] for task in unfinished)


async def test_a_backup_that_is_damaged_is_found_out(stack: Stack, api: Api, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    await stack.run("make", "compose-backup", f"BACKUP={folder}")
    dump = max(folder.iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(dump.read_bytes())
    content[len(content) // 2] ^= 0xFF
    dump.chmod(0o600)
    dump.write_bytes(content)
    for target in ("compose-restore-check", "compose-restore"):
        with pytest.raises(CommandError, match=dump.name):
            await stack.run("make", target, f"BACKUP={folder}", "CONFIRM=yes")
    assert (await api.http.get("/readyz")).status_code == 200


async def listed(api: Api, status: str) -> list[dict[str, Any]]:
    tasks: list[dict[str, Any]] = (await api.http.get("/api/tasks", params={"status": status, "limit": 100})).json()
    return tasks
