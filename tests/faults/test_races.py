"""Many requests about one thing at the same moment: each gets one answer that stays true."""

import asyncio
import random
import time
from collections import Counter

import httpx
import pytest

from tests.faults.harness.checker import Allowed
from tests.faults.harness.run import Run

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

CANCELS = 1_000
SAME_KEY = 100


async def test_f83_each_of_a_thousand_cancels_wins_or_loses_against_the_end_of_its_task(run: Run) -> None:
    task_ids = []
    for _ in range(CANCELS // 250):
        task_ids += await run.client.submit(run.tasks(250, seconds=0.02))
    # The order of the tasks would have the cancels run ahead of them, or behind.
    random.Random(run.stack.seed).shuffle(task_ids)
    gate = asyncio.Semaphore(50)

    async def cancel(task_id: int) -> str:
        async with gate:
            answer = await run.client.delete(task_id)
        return _meaning(answer)

    answers = dict(zip(task_ids, await asyncio.gather(*map(cancel, task_ids)), strict=True))
    counts = Counter(answers.values())
    print(f"F83 {dict(counts)}")  # noqa: T201
    assert counts["cancelled"], "no cancel won"
    assert counts["removed"] + counts["too late"], "every cancel won: there was no race"
    await run.settle(Allowed(statuses=("completed", "cancelled")))
    rows = await run.stack.query("SELECT task_id, status::text, removed_at IS NOT NULL FROM tasks")
    for task_id, status, removed in rows:
        told = answers[int(str(task_id))]
        allowed = {"cancelled": ("cancelled",), "too late": ("completed",), "on its way": ("cancelled", "completed")}
        assert removed if told == "removed" else status in allowed[told], (task_id, status, removed, told)


def _meaning(answer: httpx.Response) -> str:
    if answer.status_code == 409:
        return "too late"
    assert answer.status_code in (200, 202), answer.text
    if answer.status_code == 202:
        return "on its way"
    return "removed" if "removed" in answer.json()["message"] else "cancelled"


async def test_f84_one_key_from_a_hundred_connections_is_one_task(run: Run) -> None:
    [task] = run.tasks(1, seconds=0.2)
    batch = asyncio.gather(*(run.client.try_submit([task], key="once-in-a-batch") for _ in range(SAME_KEY)))
    single = asyncio.gather(*(_submit_alone(run, key="once-alone") for _ in range(SAME_KEY)))
    entries, alone = await batch, await single
    served = [entry for entry in entries if entry.outcome == "acked"]
    assert len(served) == SAME_KEY, Counter(entry.status for entry in entries)
    assert len({tuple(entry.task_ids) for entry in served}) == 1
    assert len(set(alone)) == 1
    await run.settle()
    assert run.effects.starts() == {served[0].task_ids[0]: 1, alone[0]: 1}


async def _submit_alone(run: Run, *, key: str) -> int:
    """Submit with a connection of its own, over the route for single tasks."""
    [task] = run.tasks(1, seconds=0.2)
    entry = run.ledger.begin(key=key, count=1, now=time.monotonic())
    url = str(run.client.http.base_url)
    async with httpx.AsyncClient(base_url=url, timeout=15) as http:
        answer = await http.post("/api/tasks", json=task, headers={"Idempotency-Key": key})
    assert answer.status_code in (200, 201), answer.text
    entry.outcome, entry.status, entry.task_ids = "acked", answer.status_code, [answer.json()["task_id"]]
    run.ledger.end(entry)
    return entry.task_ids[0]
