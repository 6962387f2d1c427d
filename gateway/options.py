"""The options that a task may have: their ranges, and how times are written."""

import re
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from gateway.bodies import BackoffBody, TaskBody
from servicekit.errors import FieldError
from servicekit.pointers import child

PRIORITY_DEFAULT = 4
PRIORITY_MAX = 9
ATTEMPTS_MAX = 20
TIMEOUT_SECONDS_MAX = 3600
DELAY_SECONDS_MAX = 365 * 24 * 3600
SOFT_TIMEOUT_SECONDS_MIN = 0.1
BACKOFF_SECONDS_MIN = 0.001
BACKOFF_SECONDS_MAX = 24 * 3600
BACKOFF_FACTOR_MAX = 10

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


def option_errors(body: TaskBody, pointer: str) -> list[FieldError]:
    """What is wrong with the options that were given."""
    errors = [
        error
        for name, value, lowest, highest in (
            ("priority", body.priority, 0, PRIORITY_MAX),
            ("max_attempts", body.max_attempts, 1, ATTEMPTS_MAX),
            ("timeout", body.timeout, 1, TIMEOUT_SECONDS_MAX),
            ("delay", body.delay, 0, DELAY_SECONDS_MAX),
            ("soft_timeout", body.soft_timeout, SOFT_TIMEOUT_SECONDS_MIN, TIMEOUT_SECONDS_MAX),
        )
        if value is not None and (error := _outside(child(pointer, name), value, lowest, highest))
    ]
    if body.expires_in is not None:
        where = child(pointer, "expires_in")
        if body.expires_in <= 0:
            errors.append(FieldError(where, "exclusive_minimum", "The value must be greater than 0."))
        elif error := _outside(where, body.expires_in, 0, DELAY_SECONDS_MAX):
            errors.append(error)
    if body.backoff is not None:
        errors.extend(_backoff_errors(body.backoff, child(pointer, "backoff")))
    if body.run_at is not None:
        where = child(pointer, "run_at")
        if body.delay is not None:
            errors.append(FieldError(where, "exclusive", "Give either run_at or delay, not both."))
        elif parse_time(body.run_at) is None:
            message = "Expected a time with its zone as RFC 3339 writes it, such as 2030-01-31T12:00:00Z."
            errors.append(FieldError(where, "format", message))
    return errors


def parse_time(text: str) -> Timestamp | None:
    """Return the time, at the earliest 1970, or nothing if it is not one. Times gone by are fine: they are due."""
    if not _RFC3339.fullmatch(text):
        return None
    try:
        since = datetime.fromisoformat(text.upper()) - _EPOCH
    except (ValueError, OverflowError):
        return None
    since = max(since, timedelta(0))
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000)


def _backoff_errors(backoff: BackoffBody, pointer: str) -> list[FieldError]:
    return [
        error
        for name, value, lowest, highest in (
            ("initial", backoff.initial, BACKOFF_SECONDS_MIN, BACKOFF_SECONDS_MAX),
            ("factor", backoff.factor, 1, BACKOFF_FACTOR_MAX),
            ("maximum", backoff.maximum, BACKOFF_SECONDS_MIN, BACKOFF_SECONDS_MAX),
        )
        if value is not None and (error := _outside(child(pointer, name), value, lowest, highest))
    ]


def _outside(pointer: str, value: float, lowest: float, highest: float) -> FieldError | None:
    if value < lowest:
        return FieldError(pointer, "minimum", f"The value must be at least {lowest}.")
    if value > highest:
        return FieldError(pointer, "maximum", f"The value must be at most {highest}.")
    return None
