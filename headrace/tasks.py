"""The task SDK: turn a typed Python function into a task type that the cluster runs.

    @task("word_count", timeout=30)
    def word_count(data: WordCountInput) -> WordCountResult: ...

The first parameter is what the client sent as `data`, validated by pydantic; a second one, if there is one, receives
the `TaskContext`. What the function returns becomes the task's result by pydantic's JSON rules (dates as ISO 8601,
sets as arrays, Decimal as text). NaN, infinity, lone surrogates, NUL characters, circular or too deep values and
anything above 8 MiB cannot be stored: such an attempt fails for good with the code `unstorable_result`.

A handler that raises is tried again, up to `max_attempts` times; PermanentError ends the task at once, TransientError
gives the failure that may pass a code of its own, and may say when to try again. SoftTimeoutError and TaskCancelled are
raised in a handler that should come to its end.
"""

import functools
import hashlib
import importlib
import inspect
import json
import math
import re
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

RESULT_BYTES_MAX = 8 * 1024 * 1024
PROGRESS_MESSAGE_MAX = 1000
RETRY_AFTER_SECONDS_MAX = 7 * 86400

_MARK = "__headrace_task__"
_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,99}")
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_ESCAPED_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_encode_json = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode

Handler = TypeVar("Handler", bound=Callable[..., Any])


class CodedError(Exception):
    """A failure that a handler names: `code` is a short lower-case word that clients can tell it by."""

    def __init__(self, code: str, message: str) -> None:
        _check_code(code)
        super().__init__(message)
        self.code = code


class PermanentError(CodedError):
    """Raised by a handler for a failure that no further attempt can mend: the task fails at once with `code`."""


class TransientError(CodedError):
    """Raised by a handler for a failure that may pass: the task is tried again while it has attempts left.

    With `retry_after` that is so many seconds later, at most 7 days, and not after the backoff of the task.
    """

    def __init__(self, code: str, message: str, *, retry_after: float | None = None) -> None:
        if retry_after is not None and not 0 <= retry_after <= RETRY_AFTER_SECONDS_MAX:
            raise ValueError(f"retry_after must be from 0 s to 7 days, not {retry_after}")
        super().__init__(code, message)
        self.retry_after = retry_after


# The next two are no Exceptions: they come at any line, and `except Exception` around a single step of a handler, or
# in a library that it calls, would swallow what is meant for the handler as a whole. It is the same with asyncio's
# CancelledError, which `async def` handlers get in their place.


class SoftTimeoutError(BaseException):
    """Raised in a `def` handler when its soft timeout has passed: it may clean up, or still return a result."""


class TaskCancelled(BaseException):
    """Raised in a `def` handler that runs on after a cancel was asked for: it may clean up, for a second."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """When a failed task is due again: after a random part of a time that grows with each failure ("full jitter").

    The time is `initial` seconds after the first failure, `factor` times as long after each further one, and `maximum`
    seconds at most.
    """

    initial: float = 1.0
    factor: float = 2.0
    maximum: float = 300.0

    def __post_init__(self) -> None:
        for name, low, high in (("initial", 0.001, 86400), ("factor", 1, 10), ("maximum", 0.001, 86400)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} of a backoff must be from {low} to {high}, not {value}")
        if self.initial > self.maximum:
            raise ValueError(f"initial of a backoff must not be above its maximum: {self.initial} > {self.maximum}")


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """A failure that a task type names, for its description: its code, whether it is worth a retry, what it means."""

    code: str
    retry: bool
    description: str

    def __post_init__(self) -> None:
        _check_code(self.code)


@dataclass(frozen=True, slots=True)
class Limits:
    """What an attempt may use at most. Enforced by the kernel (setrlimit) on the worker process that runs it.

    `memory_mib`: MiB of writable memory of the process, with what Python and the loaded libraries take of it
    (RLIMIT_DATA). `cpu_seconds`: processor time, of all threads together; without it, twice the timeout.
    `file_mib`: MiB that one file may grow to. `open_files`: file descriptors open at once.
    """

    memory_mib: int = 1024
    cpu_seconds: int | None = None
    file_mib: int = 1024
    open_files: int = 256

    def __post_init__(self) -> None:
        for name, low, high in (
            ("memory_mib", 128, 1024 * 1024),
            ("cpu_seconds", 1, 7 * 86400),
            ("file_mib", 1, 1024 * 1024),
            ("open_files", 64, 1024 * 1024),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name} must be from {low} to {high}, not {value}")


class TaskModuleError(Exception):
    """A module with task types cannot be used; the text names it and says why."""


class DuplicateTaskTypeError(TaskModuleError):
    """Two functions claim the same task type."""


class UnstorableResultError(Exception):
    """A handler returned something that is not JSON, or too large."""


class TaskContext:
    """What a handler may know and do about the attempt that it is running."""

    __slots__ = (
        "_fraction",
        "_is_cancelled",
        "_logger",
        "_on_progress",
        "_open_logger",
        "_open_scratch",
        "attempt",
        "deadline",
        "soft_deadline",
        "task_id",
        "type",
    )

    def __init__(
        self,
        *,
        task_id: int = 0,
        attempt: int = 1,
        type: str = "",  # noqa: A002
        deadline: float | None = None,
        soft_deadline: float | None = None,
        on_progress: Callable[[float, str], None] | None = None,
        is_cancelled: Callable[[], bool] | None = None,
        open_scratch: Callable[[], Path] | None = None,
        open_logger: Callable[[], "FilteringBoundLogger"] | None = None,
    ) -> None:
        """Everything is optional, so that a test can call a handler with a plain `TaskContext()`.

        The deadlines are those of timeout and soft timeout, on the clock of `time.monotonic`.
        """
        self.task_id = task_id
        self.attempt = attempt
        self.type = type
        self.deadline = deadline
        self.soft_deadline = soft_deadline
        self._on_progress = on_progress
        self._is_cancelled = is_cancelled
        self._open_scratch = open_scratch
        self._open_logger = open_logger
        self._fraction = 0.0
        self._logger: FilteringBoundLogger | None = None

    def progress(self, fraction: float, message: str = "") -> None:
        """Say how far the attempt has come, from 0 to 1.

        Call it as often as you like: watchers see at most five reports per second, always including the latest.
        The fraction is clamped, and never falls; the message is cut at 1,000 characters.
        """
        if math.isfinite(fraction):
            self._fraction = max(self._fraction, min(1.0, fraction))
        if self._on_progress is not None:
            self._on_progress(self._fraction, message[:PROGRESS_MESSAGE_MAX])

    @property
    def cancelled(self) -> bool:
        """Whether a cancel was asked for. A handler that does not end within 1.5 s after is killed."""
        return self._is_cancelled is not None and self._is_cancelled()

    @property
    def overdue(self) -> bool:
        """Whether the soft timeout has passed. Only a `def` handler in a thread (pool `io`) has to look for itself."""
        return self.soft_deadline is not None and time.monotonic() >= self.soft_deadline

    @property
    def seconds_left(self) -> float:
        """How long until the first of the deadlines, not below 0; infinity where there is none."""
        deadlines = [each for each in (self.deadline, self.soft_deadline) if each is not None]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else math.inf

    @property
    def scratch(self) -> Path:
        """A directory of this attempt's own, made on first use and removed when the attempt has ended."""
        if self._open_scratch is None:
            raise RuntimeError("this context has no scratch directory")
        return self._open_scratch()

    @property
    def log(self) -> "FilteringBoundLogger":
        """A structured logger; in a worker, its events go to the log of the attempt."""
        if self._logger is None:
            logger = self._open_logger() if self._open_logger is not None else _default_logger()
            self._logger = logger.bind(type=self.type)
        return self._logger


class TaskDefinition:
    """A task type: its name, its limits, and how to decode its data, run it and encode its result.

    Validators and schemas are built when they are first needed, so that importing task modules stays cheap.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str,
        timeout: float,
        max_attempts: int,
        pool: str | None,
        description: str | None,
        examples: Sequence[Any],
        limits: Limits,
        errors: Sequence[ErrorKind],
        soft_timeout: float | None,
        backoff: Backoff | None,
    ) -> None:
        _check_options(name, timeout=timeout, max_attempts=max_attempts, pool=pool, soft_timeout=soft_timeout)
        self.function = function
        self.name = name
        self.is_async = inspect.iscoroutinefunction(function)
        self.pool = pool or ("io" if self.is_async else "cpu")
        self.timeout = timeout
        self.max_attempts = max_attempts
        self.description = description if description is not None else inspect.getdoc(function) or ""
        self.examples = tuple(examples)
        self.limits = limits
        self.cpu_seconds = limits.cpu_seconds or math.ceil(2 * timeout)
        self.errors = tuple(errors)
        self.soft_timeout = soft_timeout
        self.backoff = backoff
        self.wants_context = _takes_context(function, name)

    @functools.cached_property
    def _hints(self) -> Mapping[str, Any]:
        return inspect.get_annotations(self.function, eval_str=True)

    @functools.cached_property
    def _data_adapter(self) -> TypeAdapter[Any]:
        parameter = next(iter(inspect.signature(self.function).parameters))
        return TypeAdapter(self._hints.get(parameter, dict[str, Any]))

    @functools.cached_property
    def _result_adapter(self) -> TypeAdapter[Any]:
        result = self._hints.get("return", Any)
        if isinstance(result, type) and issubclass(result, BaseModel):
            return TypeAdapter(result)
        # Outside a model pydantic would turn NaN into null without a word.
        return TypeAdapter(Any if result is None else result, config=ConfigDict(ser_json_inf_nan="constants"))

    @functools.cached_property
    def data_schema(self) -> str:
        """JSON Schema of the data, with at least one example that runs."""
        schema = self._data_adapter.json_schema(mode="validation")
        if self.examples:
            schema["examples"] = [*self.examples]
        return json.dumps(schema, ensure_ascii=False)

    @functools.cached_property
    def result_schema(self) -> str:
        """JSON Schema of the result."""
        return json.dumps(self._result_adapter.json_schema(mode="serialization"), ensure_ascii=False)

    @functools.cached_property
    def version(self) -> str:
        """SHA-256 over everything that a client may see of the type."""
        seen = (self.name, self.pool, self.description, self.data_schema, self.result_schema)
        limits = [*asdict(self.limits).values(), *map(asdict, self.errors)]
        # Only where they are set, so that the other types keep the version that replicas before them had.
        if self.soft_timeout is not None or self.backoff is not None:
            limits += [self.soft_timeout, asdict(self.backoff) if self.backoff is not None else None]
        return hashlib.sha256(json.dumps([*seen, self.timeout, self.max_attempts, *limits]).encode()).hexdigest()

    def decode(self, data: bytes) -> Any:
        """Return the handler's first argument. Raises pydantic's ValidationError for data that do not fit."""
        return self._data_adapter.validate_json(data)

    def run(self, value: Any, context: TaskContext) -> Any:
        """Call the handler; for an `async def` one this returns the coroutine."""
        return self.function(value, context) if self.wants_context else self.function(value)

    def encode(self, result: Any) -> bytes:
        """Return the result as JSON that every reader can take. Raises UnstorableResultError."""
        try:
            body = _encode_json(self._result_adapter.dump_python(result, mode="json", warnings="error")).encode()
        except (ValueError, TypeError, RecursionError, OverflowError) as error:
            raise UnstorableResultError(f"the result cannot be written as JSON: {error}") from error
        if len(body) > RESULT_BYTES_MAX:
            raise UnstorableResultError(f"the result has {len(body)} bytes, more than {RESULT_BYTES_MAX}")
        if b"\\u0000" in body and _ESCAPED_NUL.search(body):
            raise UnstorableResultError("the result contains a NUL character")
        return body


class TaskRegistry:
    """The task types of a process, by name."""

    def __init__(self) -> None:
        self._definitions: dict[str, TaskDefinition] = {}

    @property
    def definitions(self) -> tuple[TaskDefinition, ...]:
        """All types, in the order of their names."""
        return tuple(self._definitions[name] for name in sorted(self._definitions))

    def add(self, definition: TaskDefinition) -> None:
        """Add a type. Adding the same one twice is fine; another function under its name is not."""
        known = self._definitions.setdefault(definition.name, definition)
        if known is not definition:
            raise DuplicateTaskTypeError(
                f"task type {definition.name!r} is defined by both {_origin(known)} and {_origin(definition)}"
            )

    def get(self, name: str) -> TaskDefinition | None:
        """Return the type of that name, if there is one."""
        return self._definitions.get(name)

    def check(self) -> None:
        """Build what clients are told of the types. Raises TaskModuleError for one that cannot be described."""
        for definition in self._definitions.values():
            whose = f"task type {definition.name!r} ({_origin(definition)})"
            try:
                kind = json.loads(definition.data_schema).get("type", "object")
                _ = definition.result_schema
            except Exception as error:  # annotations and the schemas of models are the user's code
                raise TaskModuleError(f"{whose} cannot be described as JSON Schema: {error}") from error
            if kind != "object":
                raise TaskModuleError(f"{whose} takes data of type {kind}, and clients send a JSON object")


def task(
    name: str,
    *,
    timeout: float = 30,
    max_attempts: int = 3,
    pool: str | None = None,
    description: str | None = None,
    examples: Sequence[Any] = (),
    limits: Limits = Limits(),
    errors: Sequence[ErrorKind] = (),
    soft_timeout: float | None = None,
    backoff: Backoff | None = None,
) -> Callable[[Handler], Handler]:
    """Declare a function as the handler of the task type `name`.

    A `def` handler runs in the pool `cpu` (one at a time per worker process), an `async def` one in `io` (many at a
    time), unless `pool` names another. An attempt that takes longer than `timeout` seconds is ended, with its process
    if need be. The task fails for good after `max_attempts` failures. `examples` are shown to clients and must run;
    so are `errors`, the failures that the type names. `limits` bound what an attempt may use.
    After `soft_timeout` seconds the handler is asked to give up: SoftTimeoutError is raised in a `def` handler, an
    `async def` one is cancelled. `backoff` says how long a failed task waits. A submission can name others of both.
    The function itself stays as it is and can be called directly.
    """

    def declare(function: Handler) -> Handler:
        definition = TaskDefinition(
            function,
            name=name,
            timeout=timeout,
            max_attempts=max_attempts,
            pool=pool,
            description=description,
            examples=examples,
            limits=limits,
            errors=errors,
            soft_timeout=soft_timeout,
            backoff=backoff,
        )
        setattr(function, _MARK, definition)
        return function

    return declare


def definition_of(function: Callable[..., Any]) -> TaskDefinition:
    """Return what `@task` declared for the function."""
    definition = getattr(function, _MARK, None)
    if not isinstance(definition, TaskDefinition):
        raise TypeError(f"{function!r} is not declared with @task")
    return definition


def load_registry(modules: Sequence[str]) -> TaskRegistry:
    """Import the modules and collect the handlers found in them, also those that they import from elsewhere.

    Raises TaskModuleError for a module that cannot be imported or holds no handler, and for two handlers of one type.
    """
    registry = TaskRegistry()
    for name in modules:
        # Looked up without calling anything: a module may hold objects that answer for others, and raise.
        marks = [inspect.getattr_static(value, _MARK, None) for value in vars(_import(name)).values()]
        found = [mark for mark in marks if isinstance(mark, TaskDefinition)]
        if not found:
            raise TaskModuleError(f"the task module {name!r} holds no function that is declared with @task")
        for definition in found:
            registry.add(definition)
    return registry


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        ours = (__file__, importlib.__file__)
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename not in ours]
        places = [f" ({frame.filename}, line {frame.lineno})" for frame in frames if not frame.filename.startswith("<")]
        where = places[-1] if places else ""
        reason = f"{type(error).__name__}: {error}{where}"
        raise TaskModuleError(f"the task module {name!r} cannot be imported: {reason}") from error


def _check_code(code: str) -> None:
    if not _CODE.fullmatch(code):
        raise ValueError(f"an error code is a short lower-case word like `invalid_image`, not {code!r}")


def _check_options(
    name: str, *, timeout: float, max_attempts: int, pool: str | None, soft_timeout: float | None
) -> None:
    for word in (name, pool):
        if word is not None and not _NAME.fullmatch(word):
            raise ValueError(f"names of task types and pools are lower-case words like `word_count`, not {word!r}")
    if not 0 < timeout <= 7 * 86400:
        raise ValueError(f"timeout of {name} must be above 0 and at most 7 days, not {timeout}")
    if not 1 <= max_attempts <= 20:
        raise ValueError(f"max_attempts of {name} must be from 1 to 20, not {max_attempts}")
    if soft_timeout is not None and not 0.001 <= soft_timeout < timeout:
        raise ValueError(f"soft_timeout of {name} must be from 0.001 s to below its timeout, not {soft_timeout}")


def _takes_context(function: Callable[..., Any], name: str) -> bool:
    parameters = inspect.signature(function).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if not 1 <= len(positional) <= 2 or len(positional) != len(parameters):
        raise TypeError(f"handler of {name} must take its data and, if it wants, a context")
    return len(positional) == 2


def _default_logger() -> "FilteringBoundLogger":
    import structlog  # loaded by the first handler that logs: an idle worker does without

    logger: FilteringBoundLogger = structlog.get_logger("headrace.task")
    return logger


def _origin(definition: TaskDefinition) -> str:
    return f"{definition.function.__module__}.{definition.function.__qualname__}"
