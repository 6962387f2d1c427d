"""Every built-in type as its users meet it: the gateway's check of the data, then a real worker process."""

import itertools
import json
import math
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from execution_service.handlers import BUILTIN_MODULES
from execution_service.rpc.mapping import task_type
from execution_service.workers.outcomes import Finished, Outcome, PoolSize
from gateway import formats
from gateway.data_rules import decode_data
from gateway.task_types import TaskTypeEntry, compile_entry
from headrace.tasks import load_registry
from headrace.v1.management_pb2 import CatalogEntry
from servicekit.errors import FieldError
from tests.support.worker_bench import Bench, attempt, running_bench

_DEFINITIONS = {definition.name: definition for definition in load_registry(BUILTIN_MODULES).definitions}


class Counter:
    """Where tasks are handed in: `refusals` are the gateway's, `run` goes to a worker whatever the gateway says."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._ids = itertools.count(1)
        self._entries: dict[str, TaskTypeEntry] = {}

    def refusals(self, type_name: str, data: Any) -> list[FieldError]:
        """What is wrong with the data by the gateway, with JSON pointers that begin at the data."""
        if type_name not in self._entries:
            self._entries[type_name] = compile_entry(CatalogEntry(task_type=task_type(_DEFINITIONS[type_name])))
        value, error = decode_data(_encoded(data), "")
        return [error] if error is not None else self._entries[type_name].errors(value, "")

    async def run(self, type_name: str, data: Any, *, timeout: float | None = None) -> Finished:
        """How the task ends in a worker."""
        definition = _DEFINITIONS[type_name]
        item = attempt(
            next(self._ids),
            type_name,
            _encoded(data),
            pool=definition.pool,
            timeout=timeout if timeout is not None else definition.timeout,
        )
        return await self._bench.run(item, timeout=60)

    async def result(self, type_name: str, data: Any) -> Any:
        """The result of a task that the gateway takes and that completes."""
        assert self.refusals(type_name, data) == []
        finished = await self.run(type_name, data)
        assert finished.outcome is Outcome.COMPLETED, finished.error
        assert finished.result is not None
        return json.loads(finished.result)

    async def error_code(self, type_name: str, data: Any) -> str:
        """The code with which the task fails for good in a worker."""
        finished = await self.run(type_name, data)
        assert finished.outcome is Outcome.FAILED_FOR_GOOD, finished
        assert finished.error is not None
        return finished.error.code


@pytest.fixture(scope="package", autouse=True)
def unhurried_checks() -> Iterator[None]:
    """The gateway checks every pattern here, where the tests before have used up its share of the time too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "_budget", formats.CheckBudget(share=math.inf))
        yield


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def counter(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Counter]:
    """One worker of each pool for all tests of built-in types, which run on the loop of the session."""
    scratch = tmp_path_factory.mktemp("handlers") / "scratch"
    async with running_bench(scratch, {"cpu": PoolSize(1), "io": PoolSize(1, 16)}, BUILTIN_MODULES) as bench:
        yield Counter(bench)


def _encoded(data: Any) -> bytes:
    return data if isinstance(data, bytes) else json.dumps(data).encode()
