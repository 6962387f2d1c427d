"""What a client wants to hear of, as it says with `auth` when it connects and with the event `subscribe`."""

from typing import Any

from servicekit.errors import FieldError, InvalidArgument
from servicekit.live.cursors import Cursor
from servicekit.live.filters import TASK_IDS_MAX, TYPES_MAX, Filter
from servicekit.task_views import STATUSES

_ID_MAX = 2**63 - 1
_KNOWN = ("types", "statuses", "ids", "cursor")


def read_wishes(value: Any, *, task_type: str | None) -> tuple[Filter, Cursor | None]:
    """`task_type`: that of the namespace, beside which no others can be wanted. Raises InvalidArgument."""
    known = _KNOWN if task_type is None else _KNOWN[1:]
    if not isinstance(value, dict):
        raise _invalid("", "type", "An object is expected.", code="object_expected")
    for name in value:
        if name not in known:
            raise _invalid(f"/{name[:64]}", "unknown_field", f"Known are {', '.join(known)}.", code="unknown_field")
    types = frozenset(_strings(value, "types", TYPES_MAX)) if task_type is None else frozenset((task_type,))
    statuses = []
    for name in _strings(value, "statuses", len(STATUSES)):
        if name not in STATUSES:
            raise _invalid("/statuses", "enum", f"Expected some of {', '.join(STATUSES)}.")
        statuses.append(STATUSES[name])
    ids = value.get("ids") or []
    if not isinstance(ids, list) or len(ids) > TASK_IDS_MAX:
        raise _invalid("/ids", "type", f"Expected a list of at most {TASK_IDS_MAX} task ids.")
    for index, task_id in enumerate(ids):
        if type(task_id) is not int or not 1 <= task_id <= _ID_MAX:
            raise _invalid(f"/ids/{index}", "format", f"A task id is a whole number from 1 to {_ID_MAX}.")
    cursor = value.get("cursor")
    if cursor is not None and not isinstance(cursor, str):
        raise _invalid("/cursor", "type", "Expected the cursor of an event.", code="invalid_cursor")
    wanted = Filter(types=types, statuses=frozenset(statuses), task_ids=frozenset(ids))
    return wanted, None if cursor is None else Cursor.parse(cursor, field="/cursor")


def _strings(value: dict[str, Any], name: str, most: int) -> list[str]:
    strings = value.get(name) or []
    if not isinstance(strings, list) or len(strings) > most or not all(isinstance(one, str) for one in strings):
        raise _invalid(f"/{name}", "type", f"Expected a list of at most {most} strings.")
    return strings


def _invalid(field: str, rule: str, message: str, *, code: str = "validation_failed") -> InvalidArgument:
    return InvalidArgument(
        f"{field or 'The argument'}: {message}", code=code, fields=[FieldError(field, rule, message)]
    )
