"""Every built-in type can be understood and tried from its schemas alone."""

import asyncio
import json
from functools import partial
from pathlib import Path

import pytest
from pydantic import ValidationError

from execution_service.handlers import BUILTIN_MODULES
from headrace.tasks import TaskContext, TaskDefinition, load_registry

DEFINITIONS = load_registry(BUILTIN_MODULES).definitions


def test_the_built_in_types_are_there() -> None:
    names = [definition.name for definition in DEFINITIONS]
    assert names == [
        "apply_filter",
        "calculate_statistics",
        "currency_conversion",
        "find_patterns",
        "image_resize",
        "large_file_processing",
        "sentiment_analysis",
        "simulate_backup",
        "text_summarization",
        "weather_data",
        "word_count",
    ]


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda definition: str(definition.name))
def test_every_example_runs_and_its_result_can_be_stored(definition: TaskDefinition, tmp_path: Path) -> None:
    examples = json.loads(definition.data_schema)["examples"]
    assert examples
    for number, example in enumerate(examples):
        scratch = tmp_path / str(number)
        scratch.mkdir()
        context = TaskContext(open_scratch=partial(Path, scratch))
        value = definition.decode(json.dumps(example).encode())
        result = definition.run(value, context)
        if definition.is_async:
            result = asyncio.run(result)
        assert json.loads(definition.encode(result))


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda definition: str(definition.name))
def test_unknown_fields_are_refused_and_the_schemas_say_so(definition: TaskDefinition) -> None:
    schema = json.loads(definition.data_schema)
    assert schema["additionalProperties"] is False
    assert json.loads(definition.result_schema)["additionalProperties"] is False
    with pytest.raises(ValidationError, match="no_such_field"):
        definition.decode(json.dumps(schema["examples"][0] | {"no_such_field": 1}).encode())


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda definition: str(definition.name))
def test_every_field_of_the_data_is_described(definition: TaskDefinition) -> None:
    for name, field in json.loads(definition.data_schema)["properties"].items():
        assert field.get("description"), name
    assert definition.description
