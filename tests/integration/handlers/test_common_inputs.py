"""What every type refuses in the same way, made from its JSON Schema and its examples.

Ids T.. are those of the bad inputs in docs/tasks.md. Of each field that a schema names, however deep, bad values are
derived; the gateway must refuse each at its field, and a worker that is handed some of them past the gateway must end
them for good.
"""

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jsonschema_rs
import pytest

from execution_service.handlers import BUILTIN_MODULES
from headrace.tasks import TaskDefinition, load_registry
from servicekit.pointers import descend
from tests.integration.handlers.conftest import Counter

pytestmark = pytest.mark.asyncio(loop_scope="session")

_DEFINITIONS = load_registry(BUILTIN_MODULES).definitions
_BUILT_MAX = 100_000  # longer strings and lists are not built here: those types have tests of their own
_WORKER_SAMPLE = 6

Schema = Mapping[str, Any]
Path = tuple[str | int, ...]

_OF_TYPE: Mapping[str, Any] = {
    "null": None,
    "boolean": True,
    "integer": 7,
    "number": 7.5,
    "string": "x",
    "array": [],
    "object": {},
}
_ODD_OBJECTS = (
    {"__class__": "os.system", "args": ["true"]},
    {"$ref": "file:///etc/passwd"},
    {"__proto__": {"admin": True}},
    {"py/object": "posix.system"},
)
_ODD_TEXTS = ("!!python/object/apply:os.system ['true']", "gASVHAAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAR0cnVllIWUUpQu")


@dataclass(frozen=True, slots=True)
class Place:
    """A field in data that the gateway takes. `forms` are the schemas of which its value may fit any."""

    data: Any
    path: Path
    forms: tuple[Schema, ...]
    required: bool

    @property
    def types(self) -> set[str]:
        """JSON types that the field takes; none if it takes anything."""
        types = {name for form in self.forms for name in _types(form)}
        return types | {"integer"} if "number" in types else types

    @property
    def value(self) -> Any:
        return _at(self.data, self.path)

    def form(self, *types: str) -> Schema:
        """The only form of one of the types; an empty schema if there are more, or none."""
        found = [form for form in self.forms if _types(form) & {*types}]
        return found[0] if len(found) == 1 else {}

    def holding(self, value: Any) -> Any:
        """The data with another value in the field."""
        if not self.path:
            return value
        data = copy.deepcopy(self.data)
        _at(data, self.path[:-1])[self.path[-1]] = value
        return data

    def without(self) -> Any:
        data = copy.deepcopy(self.data)
        del _at(data, self.path[:-1])[self.path[-1]]
        return data


@dataclass(frozen=True, slots=True)
class Case:
    """Bad data, and the place that is bad in it. `for_worker`: whether a worker on its own refuses it too."""

    data: Any
    path: Path
    for_worker: bool = True


def _at(data: Any, path: Path) -> Any:
    for key in path:
        data = data[key]
    return data


def _types(form: Schema) -> set[str]:
    names = form.get("type", [])
    return {names} if isinstance(names, str) else set(names)


def _forms(schema: Schema, definitions: Schema) -> tuple[Schema, ...]:
    """The forms of a value: references followed, and choices laid out."""
    if "$ref" in schema:
        return _forms(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    choice = schema.get("anyOf") or schema.get("oneOf")
    if choice is None or "properties" in schema:
        return (schema,)
    return tuple(form for each in choice for form in _forms(each, definitions))


def _places(definition: TaskDefinition, is_taken: Callable[[Any], bool]) -> Iterator[Place]:
    """Every field that the schema names, in the first example that has it, or to which its own example can be added."""
    schema = json.loads(definition.data_schema)
    for example in schema["examples"]:
        assert is_taken(example)
    seen: set[tuple[str | int, ...]] = set()
    for example in schema["examples"]:
        root = Place(example, (), (schema,), required=True)
        for place in _below(root, schema.get("$defs", {}), is_taken):
            # Alternatives of a list's elements have different fields, so what is seen is told by the schema as well.
            key = (*place.path, json.dumps(place.forms))
            if key not in seen:
                seen.add(key)
                yield place


def _below(place: Place, definitions: Schema, is_taken: Callable[[Any], bool]) -> Iterator[Place]:
    yield place
    value = place.value
    if isinstance(value, dict):
        for form in place.forms:
            if not jsonschema_rs.is_valid({**form, "$defs": definitions}, value):
                continue
            for name, schema in form.get("properties", {}).items():
                field = replace(
                    place,
                    path=(*place.path, name),
                    forms=_forms(schema, definitions),
                    required=name in form.get("required", ()),
                )
                if name not in value:
                    examples = schema.get("examples", ())
                    # A field may exclude all others.
                    alone = [{name: each} for each in examples if not place.path]
                    data = next(filter(is_taken, [*map(field.holding, examples), *alone]), None)
                    if data is None:
                        continue
                    field = replace(field, data=data)
                yield from _below(field, definitions, is_taken)
    elif isinstance(value, list):
        for form in place.forms:
            if "items" in form:
                for index in range(len(value)):
                    forms = _forms(form["items"], definitions)
                    element = Place(place.data, (*place.path, index), forms, required=False)
                    yield from _below(element, definitions, is_taken)


def _missing_or_of_another_type(place: Place) -> Iterator[Case]:
    """T01: left out, null, of another JSON type, or empty where it may not be."""
    if place.required and place.path:
        yield Case(place.without(), place.path)
    if place.required:
        yield from _of_types(place, "null")
    yield from _of_types(place, "array", "object")
    if not place.types & {"number", "integer", "boolean"}:
        yield from _of_types(place, "string")
    if place.form("string").get("minLength"):
        yield Case(place.holding(""), place.path)
    if place.form("array").get("minItems"):
        yield Case(place.holding([]), place.path)


def _of_types(place: Place, *names: str) -> Iterator[Case]:
    for name in names:
        if place.types and name not in place.types:
            yield Case(place.holding(_OF_TYPE[name]), place.path)


def _almost_of_the_type(place: Place) -> Iterator[Case]:
    """T02: a number as text, a boolean or fraction as a number, a number as text or boolean."""
    if place.types & {"number", "integer"}:
        if "string" not in place.types:
            yield Case(place.holding("7"), place.path)
        yield from _of_types(place, "boolean", "number")
    elif place.types & {"string", "boolean"}:
        yield from _of_types(place, "integer")
        if "string" not in place.types:
            yield Case(place.holding("true"), place.path)


def _with_an_unknown_field(place: Place) -> Iterator[Case]:
    """T03: a field that there is not, on every level."""
    if isinstance(place.value, dict) and all(form.get("additionalProperties") is False for form in place.forms):
        yield Case(place.holding({**place.value, "no_such_field": 1}), (*place.path, "no_such_field"))


def _beyond_a_bound(place: Place) -> Iterator[Case]:
    """T04: just beyond each bound, and far beyond all."""
    form = place.form("number", "integer")
    if not form or "enum" in form or "const" in form:
        return
    for low, high in (("minimum", "maximum"), ("exclusiveMinimum", "exclusiveMaximum")):
        step = 0 if low.startswith("exclusive") else 1
        # Of large bounds, the next number that a double can tell from them.
        if low in form:
            yield Case(place.holding(form[low] - step * max(1, abs(form[low]) // 2**50)), place.path)
        if high in form:
            yield Case(place.holding(form[high] + step * max(1, abs(form[high]) // 2**50)), place.path)
    for far in (1e308, -1e308, 2**63, -(2**63) - 1, 2**53 + 1):
        if not form.get("minimum", -1e308) < far < form.get("maximum", 1e308):
            yield Case(place.holding(far), place.path)


def _unfit_text(place: Place) -> Iterator[Case]:
    """T05: too long, too short, not one of the words, with a NUL."""
    form = place.form("string")
    if not form or not isinstance(place.value, str):
        return
    if (longest := form.get("maxLength", _BUILT_MAX)) < _BUILT_MAX:
        yield Case(place.holding("é" * (longest + 1)), place.path)
    if shortest := form.get("minLength"):
        yield Case(place.holding("x" * (shortest - 1)), place.path)
    if "enum" in form or "const" in form:
        yield Case(place.holding(f"{place.value} "), place.path)
        yield Case(place.holding(place.value.swapcase()), place.path)
    if "const" not in form:
        yield Case(place.holding(f"{place.value}\0"), place.path, for_worker=False)


def _unfit_list(place: Place) -> Iterator[Case]:
    """T06: too long, too short, of mixed types."""
    form = place.form("array")
    if not form or not place.value or not isinstance(place.value, list):
        return
    if (longest := form.get("maxItems", _BUILT_MAX)) < _BUILT_MAX:
        yield Case(place.holding([place.value[0]] * (longest + 1)), place.path)
    if shortest := form.get("minItems"):
        yield Case(place.holding(place.value[:1] * (shortest - 1)), place.path)
    yield Case(place.holding([*place.value, [[]]]), (*place.path, len(place.value)))


def _odd_structure(place: Place) -> Iterator[Case]:
    """T07: what other readers would interpret, and nesting."""
    if all(form.get("additionalProperties") is False for form in place.forms if "object" in _types(form)):
        for odd in _ODD_OBJECTS:
            yield Case(place.holding(odd), place.path)
            if isinstance(place.value, dict):
                name = next(iter(odd))
                yield Case(place.holding({**place.value, **odd}), (*place.path, name))
    if place.types and "string" not in place.types:
        for odd_text in _ODD_TEXTS:
            yield Case(place.holding(odd_text), place.path)
    deep: Any = 0
    for _ in range(40):
        deep = [deep]
    yield Case(place.holding(deep), place.path, for_worker=False)


_ROWS: Mapping[str, Callable[[Place], Iterator[Case]]] = {
    "T01-missing-null-wrong-type": _missing_or_of_another_type,
    "T02-almost-the-type": _almost_of_the_type,
    "T03-unknown-field": _with_an_unknown_field,
    "T04-beyond-a-bound": _beyond_a_bound,
    "T05-unfit-text": _unfit_text,
    "T06-unfit-list": _unfit_list,
    "T07-odd-structure": _odd_structure,
}
# Not every type has numbers with bounds, or lists.
_MAY_BE_EMPTY = {"T04-beyond-a-bound", "T06-unfit-list"}


@pytest.mark.parametrize("row", _ROWS)
@pytest.mark.parametrize("definition", _DEFINITIONS, ids=lambda definition: str(definition.name))
async def test_bad_data_are_refused(counter: Counter, definition: TaskDefinition, row: str) -> None:
    places = _places(definition, lambda data: not counter.refusals(definition.name, data))
    cases = [case for place in places for case in _ROWS[row](place)]
    assert cases or row in _MAY_BE_EMPTY
    for case in cases:
        _check_refusal(counter, definition.name, case)
    past_the_gateway = [case for case in cases if case.for_worker]
    for case in past_the_gateway[:: max(1, len(past_the_gateway) // _WORKER_SAMPLE)]:
        assert await counter.error_code(definition.name, case.data) == "invalid_data", _shown(case)
    assert (await counter.result("word_count", {"text": "one two"}))["words"] == 2


def _check_refusal(counter: Counter, type_name: str, case: Case) -> None:
    refusals = counter.refusals(type_name, case.data)
    wanted = descend("", case.path)
    # A choice between forms is refused where the choice is, and an object of another kind for what it lacks.
    about = [error for error in refusals if _is_within(wanted, error.field) or _is_within(error.field, wanted)]
    assert about, (_shown(case), refusals)
    for error in refusals:
        assert error.rule
        assert 10 < len(error.message) < 400, error
        assert "é" * 100 not in error.message, error


def _is_within(pointer: str, other: str) -> bool:
    return pointer == other or pointer.startswith(f"{other}/")


def _shown(case: Case) -> tuple[str, Path]:
    return json.dumps(case.data)[:500], case.path


@pytest.mark.parametrize("definition", _DEFINITIONS, ids=lambda definition: str(definition.name))
@pytest.mark.parametrize("data", [None, True, 7, "x", [], [{}]], ids=json.dumps)
async def test_data_that_are_no_object_are_refused(counter: Counter, definition: TaskDefinition, data: Any) -> None:
    """T01"""
    assert ("", "type") in [(error.field, error.rule) for error in counter.refusals(definition.name, data)]
    assert await counter.error_code(definition.name, data) == "invalid_data"


@pytest.mark.parametrize("definition", _DEFINITIONS, ids=lambda definition: str(definition.name))
async def test_a_whole_number_is_not_written_as_a_fraction(counter: Counter, definition: TaskDefinition) -> None:
    """T02: 7.0 is an integer to JSON Schema, so only the worker can tell it from 7."""
    for place in _places(definition, lambda data: not counter.refusals(definition.name, data)):
        if "integer" in place.types and "number" not in place.types and isinstance(place.value, int):
            data = place.holding(float(place.value))
            assert await counter.error_code(definition.name, data) == "invalid_data", place.path


@pytest.mark.parametrize("definition", _DEFINITIONS, ids=lambda definition: str(definition.name))
async def test_every_field_can_be_tried_and_is_bounded(counter: Counter, definition: TaskDefinition) -> None:
    """T04 to T06: bounds are stated, so that a client need not try; and the rows above miss no field."""
    places = list(_places(definition, lambda data: not counter.refusals(definition.name, data)))
    assert {place.path[0] for place in places if place.path} == set(json.loads(definition.data_schema)["properties"])
    for place in places:
        for form in place.forms:
            assert set(_bounds(form)) & form.keys() or not _bounds(form), (place.path, form)


def _bounds(form: Schema) -> Sequence[str]:
    """Keywords of which a form of its type has at least one: what bounds it above."""
    closed = ["enum", "const"]
    for name, keywords in {
        "number": ["maximum", "exclusiveMaximum"],
        "integer": ["maximum", "exclusiveMaximum"],
        "string": ["maxLength", "pattern", "format"],
        "array": ["maxItems"],
        "object": ["properties", "maxProperties"],
    }.items():
        if name in _types(form):
            return closed + keywords
    return []


@pytest.mark.parametrize("definition", _DEFINITIONS, ids=lambda definition: str(definition.name))
async def test_what_is_within_the_bounds_is_not_refused_for_them(counter: Counter, definition: TaskDefinition) -> None:
    """T04 and T05: the limits themselves are taken."""
    for place in _places(definition, lambda data: not counter.refusals(definition.name, data)):
        number, text = place.form("number", "integer"), place.form("string")
        values = [number[bound] for bound in ("minimum", "maximum") if bound in number]
        if text.get("maxLength", _BUILT_MAX) < _BUILT_MAX:
            values.append("é" * text["maxLength"])
        for value in values:
            rules = [error.rule for error in counter.refusals(definition.name, place.holding(value))]
            assert not {"minimum", "maximum", "maxLength", "type"} & {*rules}, (place.path, value)
