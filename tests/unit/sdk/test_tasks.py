"""The task SDK: what a decorated function becomes."""

import json
import math
import subprocess
import sys
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

import headrace
from headrace.tasks import (
    RESULT_BYTES_MAX,
    Backoff,
    DuplicateTaskTypeError,
    PermanentError,
    SoftTimeoutError,
    TaskCancelled,
    TaskContext,
    TaskModuleError,
    TaskRegistry,
    TransientError,
    UnstorableResultError,
    definition_of,
    load_registry,
    task,
)


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    amount: int = 1


class Receipt(BaseModel):
    total: float


@task("order", timeout=5, max_attempts=2, examples=[{"name": "mill"}])
def order(data: Order, context: TaskContext) -> Receipt:
    """Order something."""
    return Receipt(total=data.amount * context.attempt)


@task("fetch", pool="net")
async def fetch(data: dict[str, int]) -> int:
    return data["n"]


@task("anything")
def anything(data: Any) -> Any:
    return data


def test_the_decorated_function_stays_a_plain_function() -> None:
    assert order(Order(name="x", amount=3), TaskContext(attempt=2)).total == 6


def test_a_definition_says_what_was_declared() -> None:
    definition = definition_of(order)
    assert (definition.name, definition.pool, definition.timeout, definition.max_attempts) == ("order", "cpu", 5, 2)
    assert (definition.is_async, definition.wants_context, definition.description) == (False, True, "Order something.")
    assert (definition_of(fetch).pool, definition_of(fetch).is_async) == ("net", True)


def test_schemas_are_json_and_carry_the_examples() -> None:
    definition = definition_of(order)
    schema = json.loads(definition.data_schema)
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["name"]
    assert schema["examples"] == [{"name": "mill"}]
    assert json.loads(definition.result_schema)["properties"]["total"]["type"] == "number"


def test_the_version_changes_with_what_clients_see() -> None:
    def version_with(options: dict[str, Any]) -> str:
        @task("versioned", **options)
        def handler(data: Order) -> Receipt:
            return Receipt(total=data.amount)

        return definition_of(handler).version

    seen: tuple[dict[str, Any], ...] = (
        {},
        {"timeout": 31},
        {"max_attempts": 4},
        {"pool": "gpu"},
        {"description": "other"},
        {"soft_timeout": 1},
        {"backoff": Backoff()},
        {"backoff": Backoff(factor=3)},
    )
    assert len({version_with(options) for options in seen}) == len(seen)
    assert len(definition_of(order).version) == 64


def test_data_are_decoded_by_the_first_parameter() -> None:
    assert definition_of(order).decode(b'{"name": "a", "amount": 2}') == Order(name="a", amount=2)
    with pytest.raises(ValidationError):
        definition_of(order).decode(b'{"name": 1}')
    assert definition_of(fetch).decode(b'{"n": 1}') == {"n": 1}


@pytest.mark.parametrize(
    ("value", "body"),
    [
        (None, b"null"),
        ("häuser", '"häuser"'.encode()),
        ({"a": [1, 2.5, True]}, b'{"a":[1,2.5,true]}'),
        ({1, 2}, b"[1,2]"),
        (Decimal("1.10"), b'"1.10"'),
        (datetime(2026, 1, 2, tzinfo=UTC), b'"2026-01-02T00:00:00Z"'),
        (b"text", b'"text"'),
        ("\\u0000 is not a NUL", b'"\\\\u0000 is not a NUL"'),
    ],
)
def test_results_become_json(value: Any, body: bytes) -> None:
    assert definition_of(anything).encode(value) == body


@pytest.mark.parametrize(
    "value", [float("nan"), [float("-inf")], "\ud800", "a\0b", {"k\0": 1}, object(), b"\xff", "x" * RESULT_BYTES_MAX]
)
def test_what_is_no_json_cannot_be_stored(value: Any) -> None:
    with pytest.raises(UnstorableResultError):
        definition_of(anything).encode(value)


@pytest.mark.parametrize("value", [Receipt(total=float("nan")), {"total": 1.0}, 3])
def test_a_result_must_be_what_was_declared(value: Any) -> None:
    with pytest.raises(UnstorableResultError):
        definition_of(order).encode(value)


def test_progress_is_clamped_and_never_falls() -> None:
    seen: list[tuple[float, str]] = []
    context = TaskContext(on_progress=lambda fraction, message: seen.append((fraction, message)))
    for fraction in (-1, 0.5, 0.25, float("nan"), 7, 0.9):
        context.progress(fraction, "m" * 2000)
    assert [fraction for fraction, _ in seen] == [0, 0.5, 0.5, 0.5, 1, 1]
    assert {len(message) for _, message in seen} == {1000}


def test_a_bare_context_serves_for_calling_a_handler_in_a_test(tmp_path: Path) -> None:
    context = TaskContext()
    context.progress(0.5)
    assert context.cancelled is False
    with pytest.raises(RuntimeError):
        _ = context.scratch
    assert TaskContext(open_scratch=lambda: tmp_path).scratch == tmp_path
    context.log.info("works")


@pytest.mark.parametrize("code", ["", "Not A Code", "x" * 65, "1st"])
def test_error_codes_are_words_for_programs(code: str) -> None:
    with pytest.raises(ValueError, match="error code"):
        PermanentError(code, "message")
    assert PermanentError("too_bad", "message").code == "too_bad"


@pytest.mark.parametrize("seconds", [-1, 7 * 86400 + 1, float("nan"), float("inf")])
def test_a_later_retry_is_asked_for_within_seven_days(seconds: float) -> None:
    with pytest.raises(ValueError, match="retry_after must be from 0 s to 7 days"):
        TransientError("busy", "later", retry_after=seconds)
    assert TransientError("busy", "later", retry_after=7 * 86400).retry_after == 7 * 86400
    assert TransientError("busy", "later").retry_after is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"initial": 0.0001}, "initial"),
        ({"initial": float("nan")}, "initial"),
        ({"maximum": 86401}, "maximum"),
        ({"factor": 0.5}, "factor"),
        ({"factor": 11}, "factor"),
        ({"initial": 10, "maximum": 5}, "not be above its maximum"),
    ],
)
def test_a_backoff_out_of_range_is_refused(options: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Backoff(**options)


def test_what_tells_a_handler_to_end_is_not_swallowed_where_it_expects_errors() -> None:
    for kind in (SoftTimeoutError, TaskCancelled):
        assert not issubclass(kind, Exception)


def test_a_context_knows_how_much_time_is_left() -> None:
    now = time.monotonic()
    assert TaskContext().seconds_left == math.inf
    assert TaskContext().overdue is False
    assert 50 < TaskContext(deadline=now + 100, soft_deadline=now + 60).seconds_left <= 60
    assert TaskContext(deadline=now + 100, soft_deadline=now - 1).seconds_left == 0
    assert TaskContext(deadline=now + 100, soft_deadline=now - 1).overdue is True
    assert TaskContext(deadline=now - 1, soft_deadline=now + 9).overdue is False


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"timeout": 10**9},
        {"max_attempts": 0},
        {"max_attempts": 21},
        {"pool": "No Pool"},
        {"soft_timeout": 0},
        {"timeout": 5, "soft_timeout": 5},
        {"soft_timeout": float("nan")},
    ],
)
def test_options_out_of_range_are_refused_where_they_are_written(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|lower-case"):
        task("name", **options)(lambda data: data)
    with pytest.raises(ValueError, match="lower-case"):
        task("Bad Name")(lambda data: data)


def test_a_handler_takes_data_and_perhaps_a_context() -> None:
    for handler in (lambda: None, lambda a, b, c: None, lambda *a: None, lambda a, *, b: None):
        with pytest.raises(TypeError):
            task("handler")(handler)
    with pytest.raises(TypeError):
        definition_of(len)


def _module(name: str, **content: Any) -> str:
    module = ModuleType(name)
    vars(module).update(content)
    sys.modules[name] = module
    return name


def test_a_registry_collects_what_modules_hold() -> None:
    registry = load_registry([_module("m1", order=order, other=3), _module("m2", fetch=fetch, again=order)])
    assert [definition.name for definition in registry.definitions] == ["fetch", "order"]
    assert registry.get("order") is definition_of(order)
    assert registry.get("none") is None


def test_two_functions_may_not_claim_one_type() -> None:
    registry = TaskRegistry()
    registry.add(definition_of(order))
    with pytest.raises(DuplicateTaskTypeError, match="order"):
        registry.add(definition_of(task("order")(lambda data: data)))


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (
            "import no_such_library",
            r"ModuleNotFoundError: No module named 'no_such_library' \(.*own_tasks\.py, line 1\)",
        ),
        ("def broken(:", r"SyntaxError: invalid syntax \(own_tasks\.py, line 1\)"),
        ("raise SystemExit(3)", r"SystemExit: 3 \("),
    ],
)
def test_a_module_that_cannot_be_imported_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, reason: str
) -> None:
    (tmp_path / "own_tasks.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TaskModuleError, match=rf"'own_tasks' cannot be imported: {reason}"):
        load_registry(["own_tasks"])
    with pytest.raises(TaskModuleError, match="'no_such_tasks' cannot be imported: ModuleNotFoundError"):
        load_registry(["no_such_tasks"])


def test_a_module_without_handlers_is_a_mistake() -> None:
    with pytest.raises(TaskModuleError, match="'m3' holds no function"):
        load_registry([_module("m3", plain=len)])


def test_objects_that_answer_for_others_are_left_alone() -> None:
    class Proxy:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

    assert load_registry([_module("m4", proxy=Proxy(), order=order)]).get("order") is not None


class NoModel:
    pass


def no_model(data: NoModel) -> int:
    return 1


def a_list(data: list[int]) -> int:
    return 1


@pytest.mark.parametrize(
    ("handler", "said"), [(no_model, "cannot be described as JSON Schema"), (a_list, "takes data of type array")]
)
def test_a_type_that_clients_could_not_use_is_found(handler: Any, said: str) -> None:
    registry = load_registry([_module("m5", handler=task("unusable")(handler))])
    with pytest.raises(TaskModuleError, match=f"'unusable' .*{handler.__name__}.* {said}"):
        registry.check()
    load_registry([_module("m6", order=order, fetch=fetch, anything=anything)]).check()


def test_importing_the_package_alone_is_cheap() -> None:
    script = "import sys, headrace; print(sorted({'pydantic', 'asyncio', 'structlog', 'grpc'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout == b"[]\n"
    assert headrace.task is task
    with pytest.raises(AttributeError):
        _ = headrace.no_such_name
