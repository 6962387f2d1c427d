"""What a JSON Schema validator finds, as errors that a person can act on: a pointer, the rule, and what is expected.

Where a value may have one of several forms (`oneOf`, `anyOf`), the validator says only that none fits. Here the form
that was meant is looked for, by the discriminator if there is one, and its own errors are told.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jsonschema_rs

from gateway.formats import explain_format
from servicekit.errors import FieldError
from servicekit.pointers import child, descend, nearest, shown

# Stands for the caller's values in messages.
MASK = "the value"

_Kind = jsonschema_rs.ValidationErrorKind
_Error = jsonschema_rs.ValidationError


class SchemaErrors:
    """Explains the errors of one schema."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema

    def explain(self, error: _Error, pointer: str) -> Iterator[FieldError]:
        """Yield what is wrong; `pointer` is that of the checked value."""
        where = descend(pointer, error.instance_path)
        kind = error.kind
        if isinstance(kind, _Kind.AdditionalProperties):
            known = list(self._at(error.schema_path[:-1]).get("properties", ()))
            for name in kind.unexpected:
                yield FieldError(child(where, name), "unknown_field", f"There is no such field.{nearest(name, known)}")
        elif isinstance(kind, _Kind.Required):
            yield FieldError(child(where, str(kind.property)), "required", "This field is required.")
        elif isinstance(kind, _Kind.OneOfNotValid | _Kind.AnyOf):
            yield from self._explain_choice(error, pointer, where, kind.context)
        elif isinstance(kind, _Kind.OneOfMultipleValid) and (names := self._alternatives(error)):
            yield FieldError(where, "one_of", f"Only one of {_listed(names, 'and')} may be given.")
        elif isinstance(kind, _Kind.Format):
            rule, message = explain_format(str(kind.format), str(error.instance))
            yield FieldError(where, rule, message)
        else:
            yield FieldError(where, kind.name, _sentence(error.message))

    def _explain_choice(
        self, error: _Error, pointer: str, where: str, forms: Sequence[Sequence[_Error]]
    ) -> Iterator[FieldError]:
        discriminator = self._at(error.schema_path[:-1]).get("discriminator")
        if isinstance(discriminator, dict):
            yield from self._explain_tagged(error, pointer, where, forms, discriminator)
        elif names := self._alternatives(error):
            yield FieldError(where, "one_of", f"One of {_listed(names, 'and')} is required.")
        else:
            # Beside a form that is only absence (null), the other one was meant.
            meant = [form for form in forms if not _is_wrong_type(form, error)]
            if len(meant) != 1:
                meant = [form for form in forms if not _is_null(form)]
            if len(meant) == 1:
                for inner in meant[0]:
                    yield from self.explain(inner, pointer)
            else:
                yield FieldError(where, error.kind.name, _sentence(error.message))

    def _explain_tagged(
        self,
        error: _Error,
        pointer: str,
        where: str,
        forms: Sequence[Sequence[_Error]],
        discriminator: Mapping[str, Any],
    ) -> Iterator[FieldError]:
        name = str(discriminator.get("propertyName"))
        tag_path = [*error.instance_path, name]
        meant = [form for form in forms if not any(_is_about(inner, tag_path) for inner in form)]
        inners = [inner for form in forms for inner in form]
        if len(meant) == 1:
            for inner in meant[0]:
                yield from self.explain(inner, pointer)
        elif len(meant) == len(forms):
            # Not even an object.
            yield FieldError(where, inners[0].kind.name, _sentence(inners[0].message))
        elif all(any(_is_missing(inner, tag_path) for inner in form) for form in forms):
            yield FieldError(child(where, name), "required", "This field is required.")
        else:
            tags = [f"`{tag}`" for tag in discriminator.get("mapping", ())]
            yield FieldError(child(where, name), "enum", f"The value is not one of {_listed(tags, 'and')}.")

    def _alternatives(self, error: _Error) -> list[str]:
        """The fields of which one is required, where a choice is about nothing else."""
        forms = self._at(error.schema_path[:-1]).get(str(error.schema_path[-1]), ())
        names = [form["required"][0] for form in forms if set(form) == {"required"} and len(form["required"]) == 1]
        return [f"`{name}`" for name in names] if len(names) == len(forms) else []

    def _at(self, path: Sequence[str | int]) -> dict[str, Any]:
        """The schema at a path; nothing where the way leads through a reference."""
        found: Any = self._schema
        for key in path:
            try:
                found = found[key]
            except (LookupError, TypeError):
                return {}
        return found if isinstance(found, dict) else {}


def _is_about(error: _Error, path: list[str | int]) -> bool:
    return list(error.instance_path) == path or _is_missing(error, path)


def _is_missing(error: _Error, path: list[str | int]) -> bool:
    kind = error.kind
    return isinstance(kind, _Kind.Required) and [*error.instance_path, kind.property] == path


def _is_wrong_type(form: Sequence[_Error], outer: _Error) -> bool:
    """Whether the value is not even of the form's type."""
    return any(
        isinstance(inner.kind, _Kind.Type) and list(inner.instance_path) == list(outer.instance_path) for inner in form
    )


def _is_null(form: Sequence[_Error]) -> bool:
    return len(form) == 1 and isinstance(form[0].kind, _Kind.Type) and form[0].message.endswith('"null"')


def _listed(words: Sequence[str], conjunction: str) -> str:
    return f"{', '.join(words[:-1])} {conjunction} {words[-1]}" if len(words) > 1 else "".join(words)


def _sentence(message: str) -> str:
    return f"{shown(message).replace(MASK, 'The value', 1)}."
