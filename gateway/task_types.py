"""One task type as the gateway needs it: where its tasks run, and whether data fits its JSON Schema."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import jsonschema_rs
import msgspec

from gateway.pointers import child, descend, nearest, shown
from headrace.v1.management_pb2 import CatalogEntry
from servicekit.errors import FieldError

_ERRORS_MAX = 20
# Patterns run in linear time, except those with look-around, which pydantic itself writes for decimals.
_PATTERNS = jsonschema_rs.FancyRegexOptions(backtrack_limit=100_000)
# Stands for the caller's values in messages.
_MASK = "the value"


@dataclass(frozen=True, slots=True)
class TaskTypeEntry:
    name: str
    pool: str
    timeout_ms: int
    max_attempts: int
    version: str
    validator: jsonschema_rs.Validator
    data_schema: Mapping[str, Any]
    # What GET /api/task-types shows, all but the replicas.
    description: Mapping[str, Any]

    def errors(self, data: Any, pointer: str) -> list[FieldError]:
        """What is wrong with decoded data by the type's JSON Schema; nothing if it fits."""
        if self.validator.is_valid(data):
            return []
        found = (field for error in self.validator.iter_errors(data) for field in self._fields(error, pointer))
        return list(islice(found, _ERRORS_MAX))

    def _fields(self, error: jsonschema_rs.ValidationError, pointer: str) -> Iterator[FieldError]:
        where = descend(pointer, error.instance_path)
        kind = error.kind
        if isinstance(kind, jsonschema_rs.ValidationErrorKind.AdditionalProperties):
            known = self._properties(error.schema_path[:-1])
            for name in kind.unexpected:
                yield FieldError(child(where, name), "unknown_field", f"There is no such field.{nearest(name, known)}")
        elif isinstance(kind, jsonschema_rs.ValidationErrorKind.Required):
            yield FieldError(child(where, str(kind.property)), "required", "This field is required.")
        else:
            yield FieldError(where, kind.name, f"{shown(error.message).replace(_MASK, 'The value', 1)}.")

    def _properties(self, path: list[str | int]) -> list[str]:
        """Names of the properties that the schema at `path` declares; none where the way leads through a reference."""
        schema: Any = self.data_schema
        for key in path:
            try:
                schema = schema[key]
            except (LookupError, TypeError):
                return []
        return list(schema.get("properties", ())) if isinstance(schema, dict) else []


def compile_entry(entry: CatalogEntry) -> TaskTypeEntry:
    """Raises ValueError when a schema is not JSON or not a JSON Schema."""
    task_type = entry.task_type
    data_schema = msgspec.json.decode(task_type.data_schema or "{}")
    return TaskTypeEntry(
        name=task_type.name,
        pool=task_type.pool,
        timeout_ms=task_type.timeout_ms,
        max_attempts=task_type.max_attempts,
        version=task_type.version,
        validator=jsonschema_rs.validator_for(data_schema, pattern_options=_PATTERNS, offline=True, mask=_MASK),
        data_schema=data_schema,
        description={
            "name": task_type.name,
            "pool": task_type.pool,
            "description": task_type.description,
            "data_schema": data_schema,
            "result_schema": msgspec.json.decode(task_type.result_schema or "{}"),
            "timeout": task_type.timeout_ms / 1000,
            "max_attempts": task_type.max_attempts,
            "version": task_type.version,
        },
    )
