"""Formats in JSON Schemas that are checked beyond the standard's keywords.

Of the usual names (`date-time`, `uuid`, …) pydantic's own rules differ in detail from those of a schema validator, and
the worker checks them: what a handler would take is not refused here. Checked are the names below.
"""

from collections.abc import Callable

from servicekit.re2_patterns import explain_pattern

Checker = Callable[[str], bool]

_STANDARD = (
    "date",
    "date-time",
    "duration",
    "email",
    "hostname",
    "idn-email",
    "idn-hostname",
    "ipv4",
    "ipv6",
    "iri",
    "iri-reference",
    "json-pointer",
    "regex",
    "relative-json-pointer",
    "time",
    "uri",
    "uri-reference",
    "uri-template",
    "uuid",
)


def format_checkers() -> dict[str, Checker]:
    """Return the checker of each format: all standard ones take anything."""
    return {**dict.fromkeys(_STANDARD, _takes_anything), "re2": _is_re2}


def explain_format(name: str, value: str) -> tuple[str, str]:
    """Return the rule that a value of a format broke, and what is wrong with it."""
    if name == "re2" and (found := explain_pattern(value)) is not None:
        return found
    return "format", f"The value is not in the format {name!r}."


def _takes_anything(_value: str) -> bool:
    return True


def _is_re2(value: str) -> bool:
    return explain_pattern(value) is None
