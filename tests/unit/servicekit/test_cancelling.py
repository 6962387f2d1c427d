import asyncio

from servicekit.cancelling import cancel_and_wait


async def test_a_task_that_swallows_a_cancellation_is_ended_all_the_same() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                swallowed += 1
                if swallowed == 2:
                    raise

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await cancel_and_wait(task)
    assert task.cancelled()


async def test_tasks_that_have_ended_or_fail_are_no_obstacle() -> None:
    async def fail() -> None:
        raise ValueError

    failed, ended = asyncio.create_task(fail()), asyncio.create_task(asyncio.sleep(0))
    await asyncio.wait([failed, ended])
    await cancel_and_wait(failed, ended)
    assert isinstance(failed.exception(), ValueError)
