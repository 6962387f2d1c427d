"""The schemas of task types in /openapi.json are OpenAPI 3.0 that a generator can read."""

from collections.abc import Iterator
from typing import Any

import pytest

from execution_service.handlers import BUILTIN_MODULES
from execution_service.rpc.mapping import task_type
from gateway import openapi
from gateway.openapi_types import with_task_types
from gateway.task_types import compile_entry
from headrace.tasks import load_registry
from headrace.v1.management_pb2 import CatalogEntry

_DOCUMENT: dict[str, Any] = {
    "openapi": "3.0.3",
    "paths": {
        path: {"post": {"requestBody": {"content": {"application/json": {"schema": {}}}}}}
        for path in ("/api/tasks", "/api/tasks/batch")
    },
}
# Words of JSON Schema 2020-12 that OpenAPI 3.0 does not have.
_FOREIGN = {"$defs", "const", "examples", "prefixItems", "if", "then", "else", "propertyNames", "patternProperties"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    definitions = load_registry(BUILTIN_MODULES).definitions
    described = [compile_entry(CatalogEntry(task_type=task_type(each))).description for each in definitions]
    return with_task_types(_DOCUMENT, described, openapi.NEW_TASK)


def _schemas(value: Any) -> Iterator[dict[str, Any]]:
    """Every schema, but not the names of properties and what stands in examples and defaults."""
    if isinstance(value, dict):
        yield value
        for key, inner in value.items():
            if key in ("properties", "schemas"):
                for schema in inner.values():
                    yield from _schemas(schema)
            elif key not in ("example", "default", "enum", "mapping", "required"):
                yield from _schemas(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _schemas(inner)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    components = document["components"]["schemas"]
    references = [schema["$ref"] for schema in _schemas(components) if "$ref" in schema]
    references += [
        reference
        for schema in _schemas(components)
        if "discriminator" in schema
        for reference in schema["discriminator"]["mapping"].values()
    ]
    assert references
    for reference in references:
        assert reference.removeprefix("#/components/schemas/") in components


def test_only_the_older_dialect_is_used(document: dict[str, Any]) -> None:
    for schema in _schemas(document["components"]["schemas"]):
        assert not _FOREIGN & set(schema), schema
        assert schema.get("type") != "null"
        assert not isinstance(schema.get("type"), list)
        assert isinstance(schema.get("exclusiveMinimum", True), bool)
        if schema.get("type") == "array":
            assert "items" in schema


def test_each_type_has_its_body_and_an_example(document: dict[str, Any]) -> None:
    body = document["paths"]["/api/tasks"]["post"]["requestBody"]["content"]["application/json"]
    names = {definition.name for definition in load_registry(BUILTIN_MODULES).definitions}
    assert set(body["schema"]["discriminator"]["mapping"]) == set(body["examples"]) == names
    word_count = document["components"]["schemas"]["word_count"]
    assert word_count["properties"]["data"] == {"$ref": "#/components/schemas/word_count.data"}
    assert word_count["properties"]["type"]["enum"] == ["word_count"]
    assert "priority" in word_count["properties"]
    assert document["components"]["schemas"]["word_count.data"]["properties"]["text"]["type"] == "string"


def test_without_types_the_document_stays_as_it_is() -> None:
    assert with_task_types(_DOCUMENT, [], openapi.NEW_TASK) is _DOCUMENT
