"""What every type refuses in the same way. Ids T.. are those of the bad inputs in docs/tasks.md."""

import pytest

from tests.integration.handlers.conftest import Counter

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_task_runs(counter: Counter) -> None:
    result = await counter.result("word_count", {"text": "one two"})
    assert result["words"] == 2
