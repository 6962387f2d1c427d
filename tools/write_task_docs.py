"""Write the part of docs/tasks.md that follows from the task types: fields, limits, errors, a request and its answer.

Every answer is real: the example is run, the same way as in a worker. The two types that ask public APIs ask a local
stand-in with recorded answers, so that the page is the same on every machine.
"""

import asyncio
import inspect
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from execution_service.handlers import BUILTIN_MODULES
from execution_service.handlers.settings import handler_settings
from headrace.recorded_apis import recorded_apis
from headrace.tasks import TaskContext, TaskDefinition, load_registry
from tools.generated_page import keep

# Longer texts and lists are cut; what is left out is said.
_TEXT_MAX = 72
_ITEMS_MAX = 8
_BOUNDS = {
    "minimum": "≥ {:,}",
    "exclusiveMinimum": "> {:,}",
    "maximum": "≤ {:,}",
    "exclusiveMaximum": "< {:,}",
    "minLength": "at least {:,} characters",
    "maxLength": "at most {:,} characters",
    "minItems": "at least {:,} items",
    "maxItems": "at most {:,} items",
}


def sections() -> str:
    """One section for each type, in the order of their names."""
    definitions = load_registry(BUILTIN_MODULES).definitions
    with recorded_apis() as apis:
        os.environ.update(apis.environment)
        handler_settings.cache_clear()
        return "\n".join(line for definition in definitions for line in _section(definition))


def _section(definition: TaskDefinition) -> Iterator[str]:
    yield from (f"## `{definition.name}`", "", _prose(definition), "")
    limits = definition.limits
    soft = f" (soft {definition.soft_timeout:g} s)" if definition.soft_timeout is not None else ""
    yield (
        f"Pool `{definition.pool}`, timeout {definition.timeout:g} s{soft}, {definition.max_attempts} attempts"
        f"{_backoff(definition)}; at most "
        f"{limits.memory_mib:,} MiB of memory, {definition.cpu_seconds:,} s of processor time, files of "
        f"{limits.file_mib:,} MiB, {limits.open_files} open files."
    )
    schema = json.loads(definition.data_schema)
    yield from ("", "| field | type | |", "|---|---|---|")
    yield from _rows(schema, schema, "")
    if definition.errors:
        yield from ("", "| error | worth a retry | |", "|---|---|---|")
        for kind in definition.errors:
            yield f"| `{kind.code}` | {'yes' if kind.retry else 'no'} | {kind.description} |"
    example = definition.examples[0]
    request = json.dumps({"type": definition.name, "data": _cut(example)}, ensure_ascii=False)
    answer = json.dumps(_cut(_answer(definition, example)), ensure_ascii=False, indent=2)
    yield from ("", "```json", request, "```", "", "gives", "", "```json", answer, "```", "")


def _backoff(definition: TaskDefinition) -> str:
    """How long a failed task waits, where the type says so."""
    backoff = definition.backoff
    if backoff is None:
        return ""
    return f" with a backoff from {backoff.initial:g} s to {backoff.maximum:g} s (factor {backoff.factor:g})"


def _prose(definition: TaskDefinition) -> str:
    """What the handler's module says of its type."""
    text = inspect.getdoc(inspect.getmodule(definition.function)) or definition.description
    text = text.removeprefix(f"Task type `{definition.name}`: ").strip()
    return text[:1].upper() + text[1:]


def _rows(schema: Mapping[str, Any], root: Mapping[str, Any], prefix: str) -> Iterator[str]:
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        if isinstance(field, bool):
            continue
        words = [field.get("description", "")]
        if name in required:
            words.insert(0, "Required.")
        elif field.get("default") is not None:
            words.append(f"Default: `{json.dumps(field['default'], ensure_ascii=False)}`.")
        yield f"| `{prefix}{name}` | {_type(field, root)} | {_cell(' '.join(words))} |"
        for form, many in _inner(field, root):
            yield from _rows(form, root, f"{prefix}{name}{'[]' if many else ''}.")


def _inner(field: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], bool]]:
    """The objects that a field holds, itself or as items, and which of both."""
    resolved = _resolved(field, root)
    if "properties" in resolved:
        yield resolved, False
    for form in (*resolved.get("anyOf", ()), *resolved.get("oneOf", ())):
        yield from _inner(form, root)
    items = resolved.get("items")
    if isinstance(items, dict):
        for inner, _ in _inner(items, root):
            yield inner, True


def _type(field: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    resolved = _resolved(field, root)
    if "const" in resolved:
        return f"`{json.dumps(resolved['const'])}`"
    if "enum" in resolved:
        return ", ".join(f"`{value}`" for value in resolved["enum"])
    forms = [
        form for form in (*resolved.get("anyOf", ()), *resolved.get("oneOf", ())) if "type" in form or "$ref" in form
    ]
    if forms:
        return " or ".join(dict.fromkeys(_type(form, root) for form in forms))
    kind = resolved.get("type", "any")
    kind = " or ".join(kind) if isinstance(kind, list) else str(kind)
    if kind == "array" and isinstance(resolved.get("items"), dict):
        kind = f"list of {_type(resolved['items'], root)}"
    bounds = [text.format(resolved[key]) for key, text in _BOUNDS.items() if key in resolved]
    return ", ".join([kind, *bounds])


def _resolved(field: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" in field:
        resolved: Mapping[str, Any] = root["$defs"][field["$ref"].removeprefix("#/$defs/")]
        return resolved
    return field


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _answer(definition: TaskDefinition, example: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        context = TaskContext(type=definition.name, open_scratch=lambda: Path(folder))
        result = definition.run(definition.decode(json.dumps(example).encode()), context)
        if definition.is_async:
            result = asyncio.run(result)
        return json.loads(definition.encode(result))


def _cut(value: Any) -> Any:
    if isinstance(value, str) and len(value) > _TEXT_MAX and " " not in value:
        return f"{value[:_TEXT_MAX]}… ({len(value):,} characters)"
    if isinstance(value, list):
        shown = [_cut(item) for item in value[:_ITEMS_MAX]]
        return [*shown, f"… ({len(value):,} in all)"] if len(value) > _ITEMS_MAX else shown
    if isinstance(value, dict):
        return {key: _cut(item) for key, item in value.items()}
    return value


if __name__ == "__main__":
    keep("tasks.md", lambda: f"\n{sections()}", about=__doc__)
