"""Formats in JSON Schemas that are checked beyond the standard's keywords.

Of the usual names (`date-time`, `uuid`, …) pydantic's own rules differ in detail from those of a schema validator, and
the worker checks them: what a handler would take is not refused here. Checked is `re2`, regular expressions of users.

A check takes up to some milliseconds, and one request can hold thousands of patterns. So checks get a share of the
time; what comes beyond it is let through, and the worker finds what is wrong with it.
"""

import time
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


# Of each second, so much may be spent on patterns.
_SHARE = 0.2


class CheckBudget:
    """Counts the time that checks take; exhausted, it recovers with the next second."""

    def __init__(self, share: float = _SHARE, clock: Callable[[], float] = time.monotonic) -> None:
        self._share = share
        self._clock = clock
        self._second = 0.0
        self._spent = 0.0

    def check(self, passes: Checker, value: str) -> bool:
        """Return whether the value passes; it does, unseen, while nothing is left."""
        began = self._clock()
        if began - self._second >= 1:
            self._second, self._spent = began, 0.0
        if self._spent >= self._share:
            return True
        passed = passes(value)
        self._spent += self._clock() - began
        return passed


_budget = CheckBudget()


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
    return _budget.check(_explains_nothing, value)


def _explains_nothing(value: str) -> bool:
    return explain_pattern(value) is None
