"""What a client wants to hear of, as it says with `auth` when it connects and with the event `subscribe`."""

from dataclasses import replace
from typing import Any

from servicekit.errors import Conflict
from servicekit.live.cursors import Cursor
from servicekit.live.filters import Filter
from servicekit.live.protocol import FILTER_FIELDS, decode_cursor, decode_filter, require_known, require_object


def read_wishes(value: Any, *, task_type: str | None) -> tuple[Filter, Cursor | None]:
    """`task_type`: that of the namespace, beside which no other can be wanted. Raises InvalidArgument and Conflict."""
    wishes = require_object(value)
    require_known(wishes, (*FILTER_FIELDS, "cursor"), "")
    cursor = decode_cursor(wishes.get("cursor"), "/cursor")
    wanted = decode_filter({name: wish for name, wish in wishes.items() if name != "cursor"}, "")
    if task_type is None:
        return wanted, cursor
    types = frozenset((task_type,))
    if wanted.types not in (frozenset(), types):
        message = f"This namespace is about {task_type}; connect to the namespace / for others."
        raise Conflict(message, code="filter_is_fixed")
    return replace(wanted, types=types), cursor
