"""Errors of data are told by the form that was meant, with a pointer, the rule, and what is expected."""

import json
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from gateway.task_types import compile_entry
from headrace.v1.management_pb2 import CatalogEntry
from headrace.v1.task_pb2 import TaskType


class Blur(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: Literal["blur"]
    radius: float = Field(ge=0)


class Plain(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: Literal["invert", "grayscale"]


class Sized(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"oneOf": [{"required": ["count"]}, {"required": ["ratio"]}]},
    )
    filters: list[Annotated[Blur | Plain, Field(discriminator="name")]] = []
    count: int | None = Field(default=None, ge=1)
    ratio: float | None = None
    words: int | list[str] = 0
    pattern: str = Field(default="", json_schema_extra={"format": "re2"})
    when: str = Field(default="", json_schema_extra={"format": "date-time"})


ENTRY = compile_entry(CatalogEntry(task_type=TaskType(name="t", data_schema=json.dumps(Sized.model_json_schema()))))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"count": 1, "filters": [{"name": "blur", "radius": "x"}]}, [("/filters/0/radius", "type", "number")]),
        ({"count": 1, "filters": [{"name": "blur", "radius": -1}]}, [("/filters/0/radius", "minimum", "0")]),
        ({"count": 1, "filters": [{"name": "blur"}]}, [("/filters/0/radius", "required", "required")]),
        (
            {"count": 1, "filters": [{"name": "blurr"}]},
            [("/filters/0/name", "enum", "`blur`, `grayscale` and `invert`")],
        ),
        ({"count": 1, "filters": [{}]}, [("/filters/0/name", "required", "required")]),
        ({"count": 1, "filters": [7]}, [("/filters/0", "type", "object")]),
        (
            {"count": 1, "filters": [{"name": "invert", "nam": 1}]},
            [("/filters/0/nam", "unknown_field", "Did you mean 'name'?")],
        ),
        ({}, [("", "one_of", "One of `count` and `ratio` is required.")]),
        ({"count": 1, "ratio": 0.5}, [("", "one_of", "Only one of `count` and `ratio` may be given.")]),
        ({"count": 0}, [("/count", "minimum", "1")]),
        ({"count": "one"}, [("/count", "type", "integer")]),
        ({"count": 1, "words": [3]}, [("/words/0", "type", "string")]),
        ({"count": 1, "words": {}}, [("/words", "anyOf", "")]),
        ({"count": 1, "pattern": "(a"}, [("/pattern", "invalid_pattern", ")")]),
        ({"count": 1, "pattern": "(?<=a)b"}, [("/pattern", "unsupported_pattern", "")]),
        ({"count": 1, "pattern": "a+", "when": "whatever the worker makes of it"}, []),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_the_form_that_was_meant_is_explained(data: Any, expected: list[tuple[str, str, str]]) -> None:
    errors = ENTRY.errors(data, "")
    assert [(error.field, error.rule) for error in errors] == [(field, rule) for field, rule, _ in expected]
    for error, (_, _, part) in zip(errors, expected, strict=True):
        assert part in error.message


def test_the_values_of_the_caller_are_not_repeated() -> None:
    secret = "s3cret" * 30
    for data in ({"count": secret}, {"count": 1, "filters": [{"name": secret}]}, {"count": 1, "filters": [secret]}):
        assert all("s3crets3cret" not in error.message for error in ENTRY.errors(data, ""))
