"""Many small tasks in one request, to show speed: the paragraphs of the text, again and again."""

import asyncio
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.demo.checks.requirements import require
from headrace.demo.checks.texts import is_plausible
from headrace.demo.client import DemoClient
from headrace.demo.display import Display
from headrace.demo.inputs import mill_text, paragraphs
from headrace.demo.journey import parse_time

# As many as one request may have.
TASKS = 1_000
TASK_TYPE = "word_count"
NAME = f"{TASKS:,} x {TASK_TYPE}"
WAIT_SECONDS = 20
# All tasks are looked at, and the results of some: prime to the number of paragraphs, so that each paragraph is there.
CHECKED_EVERY = 10
_READERS = 4
_LIST_PAUSE_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """What became of the tasks; `seconds` is from the first one accepted to the last result stored."""

    tasks: int
    checked: int
    seconds: float


async def run_burst(client: DemoClient, display: Display) -> Burst:
    """Submit the tasks in one batch, wait for all of them, and check them."""
    texts = list(itertools.islice(itertools.cycle(paragraphs(mill_text())), TASKS))
    task_ids = await client.submit_batch(TASK_TYPE, [{"text": text} for text in texts])
    display.show(NAME, f"accepted as tasks {task_ids[0]} to {task_ids[-1]}")
    # Until the last one has ended nothing else is asked for, so that reading does not slow down what is measured.
    async for update in client.follow(task_ids[-1]):
        display.show(NAME, f"the last one is {update['status']}")
    display.show(NAME, "checking the results")
    sample = await _read(client, task_ids[::CHECKED_EVERY])
    check_counts(texts[::CHECKED_EVERY], sample)
    listed = await _list_all(client, task_ids)
    seconds = check_all_completed(task_ids, listed)
    display.show(NAME, "completed")
    return Burst(tasks=len(task_ids), checked=len(sample), seconds=seconds)


def check_counts(texts: Sequence[str], views: Sequence[Mapping[str, Any]]) -> None:
    """Raise DemoError unless every text was counted, and equal texts alike."""
    counted: dict[str, int] = {}
    for text, view in zip(texts, views, strict=True):
        task_id = view["id"]
        require(view["status"] == "completed", f"task {task_id} is {view['status']} after {WAIT_SECONDS} s")
        words = view["result"]["words"]
        is_right = counted.setdefault(text, words) == words and is_plausible(words, text)
        require(is_right, f"task {task_id} counted {words} words in {text[:40]!r}...")


def check_all_completed(task_ids: Sequence[int], listed: Sequence[Mapping[str, Any]]) -> float:
    """Return the seconds from the first one accepted to the last one finished. Raises DemoError if one is missing."""
    wanted = set(task_ids)
    found = [view for view in listed if view["id"] in wanted]
    require(len(found) == len(wanted), f"{len(wanted) - len(found)} of {len(wanted)} tasks are not listed as completed")
    accepted = min(parse_time(view["accepted_at"]) for view in found)
    finished = max(parse_time(view["finished_at"]) for view in found)
    return (finished - accepted).total_seconds()


async def _list_all(client: DemoClient, task_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Return the completed tasks once all of `task_ids` are among them, or when that takes too long.

    The last one to be accepted need not be the last one to end.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        listed = await client.list_completed(TASK_TYPE, first_id=task_ids[0])
        if {view["id"] for view in listed}.issuperset(task_ids) or time.monotonic() > deadline:
            return listed
        await asyncio.sleep(_LIST_PAUSE_SECONDS)


async def _read(client: DemoClient, task_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Return the tasks in order, each when it has ended. A few readers share them."""
    views: dict[int, dict[str, Any]] = {}
    left = iter(task_ids)

    async def read_some() -> None:
        for task_id in left:
            views[task_id] = await client.read(task_id, wait_seconds=WAIT_SECONDS)

    async with asyncio.TaskGroup() as group:
        for _ in range(_READERS):
            group.create_task(read_some())
    return [views[task_id] for task_id in task_ids]
