"""Parameters in paths and queries: checked as strictly as bodies."""

import re

from servicekit.errors import FieldError, InvalidArgument

TASK_ID_MAX = 2**63 - 1
TYPE_CHARS_MAX = 200
_INTEGER = re.compile(r"[1-9][0-9]{0,18}")


def parse_task_id(text: str) -> int:
    task_id = positive_integer(text)
    if task_id is None:
        message = f"A task id is a whole number from 1 to {TASK_ID_MAX}."
        raise InvalidArgument(message, code="invalid_id", fields=[FieldError("id", "format", message)])
    return task_id


def positive_integer(text: str) -> int | None:
    """A positive 64-bit integer in plain decimal digits."""
    if not _INTEGER.fullmatch(text) or int(text) > TASK_ID_MAX:
        return None
    return int(text)


def is_type_name(text: str) -> bool:
    """Whether a task type could have this name."""
    return text.isprintable() and 1 <= len(text) <= TYPE_CHARS_MAX


def invalid_parameter(name: str, rule: str, message: str) -> InvalidArgument:
    return InvalidArgument(f"{name}: {message}", code="invalid_parameter", fields=[FieldError(name, rule, message)])
