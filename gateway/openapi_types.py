"""The task types of the catalog in /openapi.json: what `data` and `result` look like for each of them.

Types come with JSON Schema 2020-12. The document is OpenAPI 3.0, whose schemas are an older dialect: references are
moved to the document's components, and keywords that it does not know are rewritten or left out.
"""

import copy
import re
from collections.abc import Iterable, Mapping
from typing import Any

Json = dict[str, Any]

_KEPT = frozenset(
    {
        "additionalProperties",
        "allOf",
        "anyOf",
        "default",
        "description",
        "enum",
        "format",
        "items",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minProperties",
        "minimum",
        "multipleOf",
        "not",
        "oneOf",
        "pattern",
        "properties",
        "required",
        "title",
        "uniqueItems",
    }
)
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]")
_BODIES = ("/api/tasks", "/api/tasks/batch")


def with_task_types(document: Json, types: Iterable[Mapping[str, Any]], new_task: Json) -> Json:
    """Return the document with a schema of the body for each type; `types` are as in GET /api/task-types."""
    described = list(types)
    if not described:
        return document
    document = copy.deepcopy(document)
    components: Json = document.setdefault("components", {}).setdefault("schemas", {})
    mapping, examples = {}, {}
    for task_type in described:
        name = task_type["name"]
        data = _add(components, f"{name}.data", task_type["data_schema"])
        _add(components, f"{name}.result", task_type["result_schema"])
        components[name] = {
            **{key: value for key, value in new_task.items() if key != "example"},
            "title": name,
            "description": task_type["description"],
            "properties": {**new_task["properties"], "type": {"type": "string", "enum": [name]}, "data": data},
        }
        mapping[name] = f"#/components/schemas/{name}"
        for example in task_type["data_schema"].get("examples", ())[:1]:
            examples[name] = {"value": {"type": name, "data": example}}
    body = {
        "oneOf": [{"$ref": reference} for reference in mapping.values()],
        "discriminator": {"propertyName": "type", "mapping": mapping},
    }
    one, many = (document["paths"][path]["post"]["requestBody"]["content"]["application/json"] for path in _BODIES)
    one.update({"schema": body, "examples": examples})
    many["schema"] = {**many["schema"], "items": body}
    return document


def _add(components: Json, name: str, schema: Mapping[str, Any]) -> Json:
    """Add a schema and what it defines to the components; return a reference to it."""
    for inner, defined in schema.get("$defs", {}).items():
        components[_component(name, inner)] = _converted(defined, name)
    components[name] = _converted(schema, name)
    return {"$ref": f"#/components/schemas/{name}"}


def _component(name: str, inner: str) -> str:
    return _NOT_IN_NAMES.sub("_", f"{name}.{inner}")


def _reference(reference: str, name: str) -> str:
    inner = reference.removeprefix("#/$defs/")
    return f"#/components/schemas/{_component(name, inner) if inner != reference else name}"


def _converted(schema: Any, name: str) -> Any:
    """Return a schema of 2020-12 in the dialect of OpenAPI 3.0."""
    if not isinstance(schema, Mapping):
        return schema  # true and false stay what they are where they are allowed
    if "$ref" in schema:
        reference = {"$ref": _reference(schema["$ref"], name)}
        beside = {key: value for key, value in schema.items() if key in ("description", "default")}
        return {"allOf": [reference], **beside} if beside else reference
    converted: Json = {}
    for key, value in schema.items():
        if key == "properties":
            converted[key] = {field: _converted(inner, name) for field, inner in value.items()}
        elif key in ("items", "additionalProperties", "not"):
            converted[key] = _converted(value, name)
        elif key in ("allOf", "anyOf", "oneOf"):
            _convert_forms(converted, key, value, name)
        elif key in _KEPT:
            converted[key] = value
    _convert_keywords(converted, schema, name)
    return converted


def _convert_forms(converted: Json, key: str, forms: list[Any], name: str) -> None:
    """`X or null` is a nullable X there."""
    present = [form for form in forms if form != {"type": "null"}]
    if len(present) < len(forms):
        converted["nullable"] = True
    if len(present) == 1 and len(forms) > 1:
        inner = _converted(present[0], name)
        converted.update({"allOf": [inner]} if "$ref" in inner else inner)
    else:
        converted[key] = [_converted(form, name) for form in present]


def _convert_keywords(converted: Json, schema: Mapping[str, Any], name: str) -> None:
    kind = schema.get("type")
    if kind == "null":
        converted["nullable"] = True
    elif isinstance(kind, list):
        converted["anyOf"] = [{"type": each} for each in kind if each != "null"]
        converted["nullable"] = "null" in kind
    elif kind is not None:
        converted["type"] = kind
    if "const" in schema:
        converted["enum"] = [schema["const"]]
    if examples := schema.get("examples"):
        converted["example"] = examples[0]
    for bound in ("Minimum", "Maximum"):
        if (limit := schema.get(f"exclusive{bound}")) is not None:
            converted[bound.lower()] = limit
            converted[f"exclusive{bound}"] = True
    if "prefixItems" in schema:
        converted.setdefault("items", {"anyOf": [_converted(item, name) for item in schema["prefixItems"]]})
    if kind == "array":
        converted.setdefault("items", {})
    if "discriminator" in schema:
        mapping = schema["discriminator"].get("mapping", {})
        converted["discriminator"] = {
            "propertyName": schema["discriminator"]["propertyName"],
            "mapping": {tag: _reference(reference, name) for tag, reference in mapping.items()},
        }
