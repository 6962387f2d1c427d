import asyncio

import pytest

from gateway.shared_reads import AT_ONCE_MAX, SharedReads
from servicekit.errors import Overloaded, Unavailable
from tests.support.waiting import wait_until


class Store:
    """Reads wait until they are let go, and give what was in the store when they began."""

    def __init__(self) -> None:
        self.value = 0
        self.begun: list[str] = []
        self.gate = asyncio.Event()
        self.error: Exception | None = None
        self.reads = SharedReads(self.read)

    async def read(self, key: str) -> int:
        self.begun.append(key)
        value = self.value
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return value


@pytest.fixture
async def store() -> Store:
    return Store()


def ask(store: Store, *keys: str) -> list[asyncio.Task[int]]:
    return [asyncio.create_task(store.reads.read(key)) for key in keys]


async def test_those_who_ask_at_the_same_moment_share_one_read(store: Store) -> None:
    asked = ask(store, "a", "a", "b", "a")
    await wait_until(lambda: len(store.begun) == 2)
    store.gate.set()
    assert await asyncio.gather(*asked) == [0, 0, 0, 0]
    assert sorted(store.begun) == ["a", "b"]


async def test_who_asks_later_is_not_told_what_was_before(store: Store) -> None:
    """What it heard between the two reads would be missing in the first."""
    first = ask(store, "a")
    await wait_until(lambda: store.begun)
    store.value = 1
    second = ask(store, "a", "a")
    await wait_until(lambda: len(store.begun) == 2)
    store.gate.set()
    assert await asyncio.gather(*first, *second) == [0, 1, 1]
    assert store.begun == ["a", "a"]


async def test_few_reads_run_at_once_and_the_rest_waits_its_turn(store: Store) -> None:
    asked = ask(store, *(str(number) for number in range(AT_ONCE_MAX + 5)))
    await wait_until(lambda: len(store.begun) == AT_ONCE_MAX)
    late = ask(store, str(AT_ONCE_MAX + 1))
    store.gate.set()
    await asyncio.gather(*asked, *late)
    assert len(store.begun) == AT_ONCE_MAX + 5


async def test_an_error_is_told_to_all_and_the_next_read_is_another(store: Store) -> None:
    store.error = Unavailable("no database")
    store.gate.set()
    for asked in ask(store, "a", "a"):
        with pytest.raises(Unavailable):
            await asked
    store.error = None
    assert await store.reads.read("a") == 0


async def test_who_gives_up_takes_nothing_from_the_others(store: Store) -> None:
    impatient, patient = ask(store, "a", "a")
    await wait_until(lambda: store.begun)
    impatient.cancel()
    store.gate.set()
    assert await patient == 0


async def test_what_cannot_begin_in_time_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ask(store, *(str(number) for number in range(AT_ONCE_MAX)))
    await wait_until(lambda: len(store.begun) == AT_ONCE_MAX)
    monkeypatch.setattr("gateway.shared_reads.WAIT_SECONDS", 0.05)
    monkeypatch.setattr("gateway.shared_reads.WAITING_MAX", 2)
    waiting = ask(store, "x", "y", "z")
    for each in waiting:
        with pytest.raises(Overloaded):
            await each
    store.gate.set()
    await asyncio.gather(*asked)
    assert await store.reads.read("x") == 0
