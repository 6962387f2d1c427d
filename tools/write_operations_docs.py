"""Write the part of docs/operations.md that follows from the settings classes: every variable of every service."""

import inspect
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import NoneType
from typing import Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from execution_service.handlers.settings import HandlerSettings
from execution_service.settings import ExecutionSettings
from gateway.settings import GatewaySettings
from management_service.settings import ManagementSettings
from servicekit.settings import ServiceSettings, variable
from tools.generated_page import keep

_SECTIONS: tuple[tuple[str, type[BaseSettings]], ...] = (
    ("Every service", ServiceSettings),
    ("Gateway", GatewaySettings),
    ("Management", ManagementSettings),
    ("Execution", ExecutionSettings),
    ("Built-in task types", HandlerSettings),
)
_KINDS: dict[object, str] = {
    int: "whole number",
    timedelta: "seconds",
    str: "text",
    SecretStr: "secret text",
    bool: "`true` or `false`",
    Path: "path",
    tuple[str, ...]: "names, separated by commas",
}


def tables() -> str:
    """One table of what all services have, then one of its own for each."""
    return "\n".join(line for title, settings in _SECTIONS for line in _table(title, settings))


def _table(title: str, settings: type[BaseSettings]) -> Iterator[str]:
    yield from ("", f"### {title}", "", "| variable | value | default | |", "|---|---|---|---|")
    # What a class does not declare itself stands in the table of its base.
    for name in inspect.get_annotations(settings):
        if name in settings.model_fields:
            yield _row(name, settings.model_fields[name])


def _row(name: str, field: FieldInfo) -> str:
    names = f"`{variable(name)}`"
    if _kind(field) is SecretStr:
        names += f" or `{variable(name)}_FILE`"
    return f"| {names} | {_value(field)} | {_default(field)} | {field.description} |"


def _kind(field: FieldInfo) -> object:
    """The type of a value that is given."""
    if get_origin(field.annotation) in (tuple, Literal):
        return field.annotation
    return next((kind for kind in get_args(field.annotation) if kind is not NoneType), field.annotation)


def _value(field: FieldInfo) -> str:
    kind = _kind(field)
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    limits = {
        name: _plain(limit)
        for rule in field.metadata
        for name in ("gt", "ge", "le", "min_length", "max_length", "pattern")
        if (limit := getattr(rule, name, None)) is not None
    }
    return ", ".join([_KINDS[kind], *_limits(**limits)])


def _limits(
    *,
    gt: str | None = None,
    ge: str | None = None,
    le: str | None = None,
    min_length: str | None = None,
    max_length: str | None = None,
    pattern: str | None = None,
) -> Iterator[str]:
    if ge is not None:
        yield f"{ge} to {le}" if le is not None else f"at least {ge}"
    if gt is not None:
        yield f"above {gt} and at most {le}"
    if min_length is not None:
        yield f"{min_length} to {max_length} characters"
    if pattern is not None:
        yield f"`{pattern}`"


def _default(field: FieldInfo) -> str:
    """`–` stands for none, and for one that is found out at the start."""
    if field.is_required():
        return "required"
    if field.default_factory is not None or field.default in (None, ()):
        return "–"
    return f"`{_plain(field.default)}`"


def _plain(value: object) -> str:
    """A value as one writes it into the environment."""
    if isinstance(value, timedelta):
        return f"{value.total_seconds():.15g}"
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    keep("operations.md", tables, about=__doc__)
