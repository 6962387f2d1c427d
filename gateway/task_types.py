"""One task type as the gateway needs it: where its tasks run, and whether data fits its JSON Schema."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import jsonschema_rs
import msgspec

from gateway.formats import format_checkers
from gateway.schema_errors import MASK, SchemaErrors
from gateway.task_options import differing_options, type_backoff
from gateway.views import backoff_view
from headrace.v1.management_pb2 import CatalogEntry
from headrace.v1.task_pb2 import Backoff, TaskLimits, TaskOptions
from servicekit.errors import FieldError

_ERRORS_MAX = 20
# Patterns run in linear time, except those with look-around, which pydantic itself writes for decimals.
_PATTERNS = jsonschema_rs.FancyRegexOptions(backtrack_limit=100_000)


@dataclass(frozen=True, slots=True)
class TaskTypeEntry:
    name: str
    pool: str
    timeout_ms: int
    max_attempts: int
    # 0: none.
    soft_timeout_ms: int
    backoff: Backoff
    # What tasks carry whose submissions name none of them.
    options: TaskOptions | None
    version: str
    validator: jsonschema_rs.Validator
    data_schema: Mapping[str, Any]
    # What GET /api/task-types shows, all but the replicas.
    description: Mapping[str, Any]

    def errors(self, data: Any, pointer: str) -> list[FieldError]:
        """What is wrong with decoded data by the type's JSON Schema; nothing if it fits."""
        if self.validator.is_valid(data):
            return []
        explain = SchemaErrors(self.data_schema).explain
        found = (field for error in self.validator.iter_errors(data) for field in explain(error, pointer))
        return list(islice(found, _ERRORS_MAX))


def compile_entry(entry: CatalogEntry) -> TaskTypeEntry:
    """Raises ValueError when a schema is not JSON or not a JSON Schema."""
    task_type = entry.task_type
    data_schema = msgspec.json.decode(task_type.data_schema or "{}")
    backoff, soft_timeout_ms = type_backoff(task_type), task_type.options.soft_timeout_ms
    return TaskTypeEntry(
        name=task_type.name,
        pool=task_type.pool,
        timeout_ms=task_type.timeout_ms,
        max_attempts=task_type.max_attempts,
        soft_timeout_ms=soft_timeout_ms,
        backoff=backoff,
        options=differing_options(backoff, soft_timeout_ms, task_type.timeout_ms),
        version=task_type.version,
        validator=jsonschema_rs.validator_for(
            data_schema,
            pattern_options=_PATTERNS,
            formats=format_checkers(),
            validate_formats=True,
            offline=True,
            mask=MASK,
        ),
        data_schema=data_schema,
        description={
            "name": task_type.name,
            "pool": task_type.pool,
            "description": task_type.description,
            "data_schema": data_schema,
            "result_schema": msgspec.json.decode(task_type.result_schema or "{}"),
            "timeout": task_type.timeout_ms / 1000,
            "soft_timeout": soft_timeout_ms / 1000 if soft_timeout_ms else None,
            "max_attempts": task_type.max_attempts,
            "backoff": backoff_view(backoff),
            "limits": _limits(task_type.limits) if task_type.HasField("limits") else None,
            "errors": [
                {"code": kind.code, "retry": kind.retry, "description": kind.description} for kind in task_type.errors
            ],
            "version": task_type.version,
        },
    )


def _limits(limits: TaskLimits) -> dict[str, int]:
    return {
        "memory_mib": limits.memory_mib,
        "cpu_seconds": limits.cpu_seconds,
        "file_mib": limits.file_mib,
        "open_files": limits.open_files,
    }
