"""The JavaScript client after its server went away and came back: it connects again by itself."""

from contextlib import AsyncExitStack

import pytest

from headrace.v1.task_pb2 import TaskStatus
from tests.support.javascript import javascript_client
from tests.support.memory_streams import run_streams

PROCESSING = TaskStatus.TASK_STATUS_PROCESSING
COMPLETED = TaskStatus.TASK_STATUS_COMPLETED


@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_with_its_cursor_it_hears_exactly_what_it_missed(transport: str) -> None:
    async with AsyncExitStack() as first:
        running = await first.enter_async_context(run_streams())
        source, port = running.source, running.port
        source.publish(7)
        options = {"transports": [transport]}
        async with javascript_client(f"http://127.0.0.1:{port}/noop", options=options, resume=True) as listener:
            await listener.hear("snapshot")
            source.publish(7, PROCESSING)
            assert (await listener.hear("task_update")).args[0]["revision"] == 2
            await first.aclose()
            source.publish(7, COMPLETED)
            source.publish(8)
            async with run_streams(port=port, source=source):
                await listener.hear("connect")
                heard = [await listener.hear("snapshot", "reset", "task_update") for _ in range(2)]
                assert [(one.event, one.args[0]["id"], one.args[0]["revision"]) for one in heard] == [
                    ("task_update", 7, 3),
                    ("task_update", 8, 1),
                ]


async def test_without_a_cursor_it_is_told_the_present_state() -> None:
    async with AsyncExitStack() as first:
        running = await first.enter_async_context(run_streams())
        source, port = running.source, running.port
        options = {"transports": ["websocket"]}
        async with javascript_client(f"http://127.0.0.1:{port}/noop", options=options) as listener:
            await listener.hear("snapshot")
            await first.aclose()
            source.publish(7, COMPLETED)
            async with run_streams(port=port, source=source):
                [task] = (await listener.hear("snapshot", "reset")).args[0]["tasks"]
                assert (task["id"], task["status"]) == (7, "completed")


async def test_a_cursor_that_is_too_old_brings_a_reset_and_the_present_state() -> None:
    async with AsyncExitStack() as first:
        running = await first.enter_async_context(run_streams())
        source, port = running.source, running.port
        options = {"transports": ["websocket"]}
        async with javascript_client(f"http://127.0.0.1:{port}/noop", options=options, resume=True) as listener:
            await listener.hear("snapshot")
            source.publish(7)
            await listener.hear("task_update")
            await first.aclose()
            source.clear()
            async with run_streams(port=port, source=source):
                assert (await listener.hear("snapshot", "reset")).event == "reset"
                assert (await listener.hear("snapshot")).args[0]["tasks"] == []
