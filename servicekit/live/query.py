"""Filter and cursor of a stream as parameters of its address; `type`, `status` and `id` may be repeated."""

from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from starlette.datastructures import QueryParams

from servicekit.http.problems import UriTooLong
from servicekit.live.cursors import Cursor
from servicekit.live.filters import TASK_IDS_MAX, TYPES_MAX, Filter
from servicekit.parameters import TASK_ID_MAX, TYPE_CHARS_MAX, invalid_parameter, is_type_name, positive_integer
from servicekit.pointers import nearest, shown
from servicekit.task_views import STATUSES

ALL_PARAMETERS = ("type", "status", "id", "cursor")
# Room for as many ids as a filter may name, as long as they are. The address of a WebSocket has 8 KiB at most.
QUERY_BYTES_MAX = 24 * 1024

_Value = TypeVar("_Value")


def parse_query(query: bytes, known: Collection[str] = ALL_PARAMETERS) -> tuple[Filter, Cursor | None]:
    """Raises InvalidArgument that names the parameter, UriTooLong."""
    if len(query) > QUERY_BYTES_MAX:
        raise UriTooLong(f"The query has more than {QUERY_BYTES_MAX} bytes.")
    values = QueryParams(query)
    for name in values:
        if name not in known:
            raise invalid_parameter(
                shown(name), "unknown_parameter", f"There is no such parameter.{nearest(name, known)}"
            )
    cursors = values.getlist("cursor")
    if len(cursors) > 1:
        raise invalid_parameter("cursor", "repeated", "This parameter is given more than once.")
    wanted = Filter(
        types=_all("type", values.getlist("type"), _type_name, TYPES_MAX),
        statuses=_all("status", values.getlist("status"), _status, len(STATUSES)),
        task_ids=_all("id", values.getlist("id"), _task_id, TASK_IDS_MAX),
    )
    return wanted, Cursor.parse(cursors[0]) if cursors else None


def _all(name: str, texts: Sequence[str], parse: Callable[[str], _Value], at_most: int) -> frozenset[_Value]:
    """What the texts stand for, each once."""
    found = frozenset(map(parse, texts))
    if len(found) > at_most:
        raise invalid_parameter(name, "max_items", f"At most {at_most} can be named.")
    return found


def _type_name(text: str) -> str:
    if not is_type_name(text):
        raise invalid_parameter(
            "type", "format", f"Expected the name of a task type, 1 to {TYPE_CHARS_MAX} characters."
        )
    return text


def _status(text: str) -> int:
    if text not in STATUSES:
        raise invalid_parameter("status", "enum", f"Expected one of {', '.join(STATUSES)}.{nearest(text, STATUSES)}")
    return STATUSES[text]


def _task_id(text: str) -> int:
    task_id = positive_integer(text)
    if task_id is None:
        raise invalid_parameter("id", "format", f"Expected a task id, a whole number from 1 to {TASK_ID_MAX}.")
    return task_id
