"""Runs one task in this process as a worker would: data in as JSON, the handler, the result out as JSON."""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar, Unpack, overload

from headrace.tasks import SoftTimeoutError, TaskDefinition, definition_of
from headrace.testing.context import FakeContext, LogLine, Report
from headrace.testing.soft_limit import soft_limit

Value = TypeVar("Value")


class RunOptions(TypedDict, total=False):
    """How a task is run.

    `attempt` is which attempt the handler is told that this is, 1 if not given. `timeout` and `soft_timeout` replace
    the type's own; a soft timeout that is not below the timeout is none.
    `cancelled` says whether the handler is to stop; a function is asked whenever the handler looks. `scratch` is a
    directory that the handler gets and that stays, in place of one that is removed after the run.
    """

    attempt: int
    timeout: float
    soft_timeout: float
    cancelled: bool | Callable[[], bool]
    scratch: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRun(Generic[Value]):
    """A run that came to its end: `result` is what a client reads from the API, `value` what the function returned."""

    result: Any
    value: Value
    progress: Sequence[Report]
    logs: Sequence[LogLine]


@overload
def run_task(
    function: Callable[..., Coroutine[Any, Any, Value]], data: Mapping[str, Any], **options: Unpack[RunOptions]
) -> TaskRun[Value]: ...
@overload
def run_task(
    function: Callable[..., Value], data: Mapping[str, Any], **options: Unpack[RunOptions]
) -> TaskRun[Value]: ...
def run_task(function: Callable[..., Any], data: Mapping[str, Any], **options: Unpack[RunOptions]) -> TaskRun[Any]:
    """Run a function that is declared with `@task` on `data`: a JSON object, as a client would send it.

    Raises what the handler raises, and what would fail the task around it: pydantic's ValidationError for data that do
    not fit, UnstorableResultError for a result that is no JSON, and TimeoutError. A `def` handler is not interrupted:
    that it took too long is found when it returns. Its soft timeout is raised in it, in the main thread, and an
    `async def` handler is cancelled by it; either ends with SoftTimeoutError unless it returns a result.
    An `async def` handler gets an event loop of its own; where one runs already, use `run_task_async`.
    """
    definition = definition_of(function)
    if not definition.is_async:
        return _run(definition, data, options)
    if _loop_runs():
        raise RuntimeError(f"an event loop runs here already: await run_task_async({function.__name__}, ...)")
    return asyncio.run(_run_on_loop(definition, data, options))


@overload
async def run_task_async(
    function: Callable[..., Coroutine[Any, Any, Value]], data: Mapping[str, Any], **options: Unpack[RunOptions]
) -> TaskRun[Value]: ...
@overload
async def run_task_async(
    function: Callable[..., Value], data: Mapping[str, Any], **options: Unpack[RunOptions]
) -> TaskRun[Value]: ...
async def run_task_async(
    function: Callable[..., Any], data: Mapping[str, Any], **options: Unpack[RunOptions]
) -> TaskRun[Any]:
    """Do what `run_task` does, on the running event loop, which a `def` handler blocks.

    Cancelling it does to an `async def` handler what a client's cancel does: CancelledError where it awaits.
    """
    definition = definition_of(function)
    if definition.is_async:
        return await _run_on_loop(definition, data, options)
    return _run(definition, data, options)


def _run(definition: TaskDefinition, data: Mapping[str, Any], options: RunOptions) -> TaskRun[Any]:
    argument = _decode(definition, data)
    times = _Times.of(definition, options)
    with closing(_new_context(definition, options, times)) as context:
        with soft_limit(times.soft_timeout, times.too_long_softly(definition)):
            value = definition.run(argument, context)
        if time.monotonic() > times.deadline:
            raise times.too_long(definition)
        return _ended(definition, value, context)


async def _run_on_loop(definition: TaskDefinition, data: Mapping[str, Any], options: RunOptions) -> TaskRun[Any]:
    argument = _decode(definition, data)
    times = _Times.of(definition, options)
    limit, soft = asyncio.timeout(times.timeout), asyncio.timeout(times.soft_timeout)
    with closing(_new_context(definition, options, times)) as context:
        try:
            async with limit, soft:
                value = await definition.run(argument, context)
        except TimeoutError as error:
            if limit.expired():
                raise times.too_long(definition) from error
            if soft.expired():
                raise SoftTimeoutError(times.too_long_softly(definition)) from error
            raise
        return _ended(definition, value, context)


class _Times(NamedTuple):
    """The time limits of a run."""

    timeout: float
    soft_timeout: float | None
    began: float

    @classmethod
    def of(cls, definition: TaskDefinition, options: RunOptions) -> "_Times":
        timeout = options.get("timeout", definition.timeout)
        soft_timeout = options.get("soft_timeout", definition.soft_timeout)
        if soft_timeout is not None and soft_timeout >= timeout:
            soft_timeout = None
        return cls(timeout, soft_timeout, time.monotonic())

    @property
    def deadline(self) -> float:
        return self.began + self.timeout

    @property
    def soft_deadline(self) -> float | None:
        return None if self.soft_timeout is None else self.began + self.soft_timeout

    def too_long(self, definition: TaskDefinition) -> TimeoutError:
        return TimeoutError(f"{definition.name} took longer than its timeout of {self.timeout:g} s")

    def too_long_softly(self, definition: TaskDefinition) -> str:
        return f"{definition.name} took longer than its soft timeout of {self.soft_timeout or 0:g} s"


def _decode(definition: TaskDefinition, data: Mapping[str, Any]) -> Any:
    if not isinstance(data, Mapping):
        raise TypeError(f"the data of a task is a JSON object, not {type(data).__name__}")
    return definition.decode(json.dumps(dict(data), allow_nan=False).encode())


def _new_context(definition: TaskDefinition, options: RunOptions, times: _Times) -> FakeContext:
    return FakeContext(
        attempt=options.get("attempt", 1),
        type=definition.name,
        deadline=times.deadline,
        soft_deadline=times.soft_deadline,
        cancelled=options.get("cancelled", False),
        scratch=options.get("scratch"),
    )


def _ended(definition: TaskDefinition, value: Any, context: FakeContext) -> TaskRun[Any]:
    result = json.loads(definition.encode(value))
    return TaskRun(result=result, value=value, progress=context.reports, logs=context.logs)


def _loop_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
