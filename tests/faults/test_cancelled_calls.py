"""Calls to the stores are cancelled anywhere: nothing of them is left behind, and nobody gets another's answer."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from gateway.redis_gate import RedisGate
from management_service.domain.statuses import TaskStatus
from management_service.manager import open_redis
from management_service.storage.records import FinishedFilter
from management_service.storage.tasks import TaskRepository
from servicekit.errors import HeadraceError
from servicekit.postgres import Database
from tests.faults.harness.run import Run
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

_CONNECTIONS = 4


async def test_f54_cancelled_database_calls_leave_no_connection_and_no_lock(run: Run) -> None:
    """Three thousand calls of managers, with and without transactions, each cancelled at some step of its way."""
    stack, rng = run.stack, random.Random(run.stack.seed)
    await run.client.submit(run.tasks(20))
    database = Database(stack.task_dsn, name="cancelled", max_size=_CONNECTIONS)
    await database.open()
    tasks = TaskRepository(database, rng=rng)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: tasks.claim_solitary(pool="nobody's", types=["noop"], session_id=1),
        lambda: tasks.find_finished(FinishedFilter(), limit=10),
        lambda: tasks.list_page(status=TaskStatus.COMPLETED, type_name=None, limit=5, after=None),
        lambda: tasks.read_attempts([1, 2, 3]),
        lambda: database.fetch(b"SELECT pg_sleep(0.002)"),
    ]
    cancelled = 0

    async def one_after_the_other(times: int) -> None:
        nonlocal cancelled
        for _ in range(times):
            call = asyncio.ensure_future(rng.choice(calls)())
            await _steps(rng)
            call.cancel()
            [outcome] = await asyncio.gather(call, return_exceptions=True)
            cancelled += isinstance(outcome, asyncio.CancelledError)
            assert isinstance(outcome, list | dict | asyncio.CancelledError | HeadraceError), outcome

    await asyncio.gather(*(one_after_the_other(600) for _ in range(5)))
    print(f"F54 calls=3000 cancelled={cancelled}")  # noqa: T201
    assert cancelled > 1_000
    ours = "FROM pg_stat_activity WHERE application_name LIKE '%cancelled%'"

    async def at_rest() -> bool:
        rows = await stack.query(f"SELECT state {ours}")
        return len(rows) <= _CONNECTIONS and {state for (state,) in rows} <= {"idle"}

    await wait_until(at_rest, timeout=5)
    assert not await stack.query("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'")
    # All places of the pool can be had, at once.
    answers = await asyncio.gather(*(database.fetch(b"SELECT pg_sleep(0.1), 7") for _ in range(_CONNECTIONS)))
    assert [answer[0][1] for answer in answers] == [7] * _CONNECTIONS
    await database.close()
    await wait_until(lambda: _none(run, ours), timeout=5)
    await run.settle()


async def _none(run: Run, source: str) -> bool:
    return not await run.stack.query(f"SELECT 1 {source}")


async def _steps(rng: random.Random) -> None:
    """Let others run for a random number of steps, or a random short time: calls are that long."""
    if rng.random() < 0.5:
        for _ in range(rng.randrange(12)):
            await asyncio.sleep(0)
    else:
        await asyncio.sleep(rng.uniform(0, 0.004))


async def test_f55_cancelled_redis_calls_cross_no_answers(run: Run) -> None:
    """With the clients of gateways and managers, over a link that takes 40 ms there and back."""
    stack, rng = run.stack, random.Random(run.stack.seed)
    link = stack.link("gateway-0", "redis")
    link.faults.delay = 0.02
    url = urlsplit(stack.redis_url)
    url = url._replace(netloc=f"{url.netloc.rpartition(':')[0]}:{link.port}")
    gate = RedisGate(url.geturl())
    manager = open_redis(url.geturl())
    cancelled = answered = 0

    async def ask(client: Redis, asker: int, times: int) -> None:
        nonlocal cancelled, answered
        for number in range(times):
            word = f"{asker}-{number}"
            call = asyncio.ensure_future(_echo(client, word, in_transaction=number % 2 == 0))
            await asyncio.wait([call], timeout=rng.uniform(0, 0.3))
            call.cancel()
            [answer] = await asyncio.gather(call, return_exceptions=True)
            if isinstance(answer, asyncio.CancelledError):
                cancelled += 1
            else:
                assert answer == word
                answered += 1

    try:
        await asyncio.gather(
            *(ask(gate.client, n, 40) for n in range(10)), *(ask(manager, n, 40) for n in range(20, 30))
        )
    finally:
        await gate.stop()
        await manager.aclose()
        link.heal()
    print(f"F55 cancelled={cancelled} answered={answered}")  # noqa: T201
    assert cancelled > 100
    assert answered > 100
    await run.client.finals(await run.client.submit(run.tasks(5)))
    await run.settle()


async def _echo(client: Redis, word: str, *, in_transaction: bool) -> str:
    if in_transaction:
        async with client.pipeline(transaction=True) as pipeline:
            pipeline.echo(word)
            [answer] = await pipeline.execute()
    else:
        answer = await client.echo(word)
    return answer.decode() if isinstance(answer, bytes) else str(answer)
