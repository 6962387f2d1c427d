"""What is said on a stream: the messages of clients, checked as strictly as bodies, and what they are told.

The same for raw WebSockets and Socket.IO; server-sent events have what they are told alone.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from servicekit.errors import FieldError, HeadraceError, InvalidArgument
from servicekit.live.cursors import Cursor
from servicekit.live.filters import TASK_IDS_MAX, TYPES_MAX, Filter
from servicekit.live.session import Frame, SnapshotFrame
from servicekit.parameters import TASK_ID_MAX, TYPE_CHARS_MAX, is_type_name
from servicekit.pointers import child, nearest, shown
from servicekit.strings import find_string, has_nul, lone_surrogate
from servicekit.task_views import STATUS_NAMES, STATUSES

REF_CHARS_MAX = 64
# What a reader knows is void: events were missed, or its cursor is not known any more.
EVENTS_MISSED = "events_missed"

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Hear what the filter fits instead of anything before, from the cursor on or from a snapshot."""

    wanted: Filter
    cursor: Cursor | None = None
    ref: str | None = None


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Hear nothing until the next Subscribe."""

    ref: str | None = None


ClientMessage = Subscribe | Unsubscribe
_FIELDS: dict[str, tuple[str, ...]] = {
    "subscribe": ("type", "filter", "cursor", "ref"),
    "unsubscribe": ("type", "ref"),
}
FILTER_FIELDS = ("types", "statuses", "ids")


class BadMessage(InvalidArgument):
    """A message that cannot be followed; `ref` is that of the message, where it could be read."""

    def __init__(self, cause: HeadraceError, ref: str | None = None) -> None:
        super().__init__(cause.message, code=cause.code, fields=cause.fields)
        self.ref = ref


def decode_message(text: str) -> ClientMessage:
    """Read a message of a client. Raises BadMessage."""
    try:
        value = require_object(decode_json(text))
        ref = _ref(value)
    except InvalidArgument as error:
        raise BadMessage(error) from None
    try:
        return _message(value, ref)
    except InvalidArgument as error:
        raise BadMessage(error, ref) from None


def decode_filter(value: Any, pointer: str) -> Filter:
    """Read a filter from decoded JSON. Raises InvalidArgument that names the field."""
    if value is None:
        return Filter()
    if not isinstance(value, dict):
        raise _invalid(pointer, "type", "Expected an object.", code="invalid_filter")
    require_known(value, FILTER_FIELDS, pointer)
    return Filter(
        types=_items(value, "types", pointer, _type_name, TYPES_MAX),
        statuses=_items(value, "statuses", pointer, _status, len(STATUSES)),
        task_ids=_items(value, "ids", pointer, _task_id, TASK_IDS_MAX),
    )


def decode_cursor(value: Any, pointer: str) -> Cursor | None:
    """Read a cursor from decoded JSON. Raises InvalidArgument that names the field."""
    if value is None:
        return None
    return Cursor.parse(value if isinstance(value, str) else "", field=pointer)


def snapshot_text(frame: SnapshotFrame) -> str:
    cursor = f'"{frame.cursor}"' if frame.cursor is not None else "null"
    return f'{{"event":"snapshot","cursor":{cursor},"data":{frame.snapshot.data().decode()}}}'


def reset_data() -> bytes:
    return msgspec.json.encode({"reason": EVENTS_MISSED})


def frame_texts(frame: Frame) -> Iterable[str]:
    """The messages that say what a frame says."""
    if not isinstance(frame, SnapshotFrame):
        return (frame.event.text(placed=frame.placed),)
    told = snapshot_text(frame)
    return (f'{{"event":"reset","data":{reset_data().decode()}}}', told) if frame.reset else (told,)


def subscribed_text(wanted: Filter | None, ref: str | None) -> str:
    """The answer to Subscribe, before what it brings, and to Unsubscribe."""
    shown_filter = None if wanted is None else filter_view(wanted)
    return _event("subscribed", {"ref": ref, "filter": shown_filter})


def filter_view(wanted: Filter) -> dict[str, Any]:
    """A filter as clients write it; what is not limited is null."""
    return {
        "types": sorted(wanted.types) or None,
        "statuses": [STATUS_NAMES[status] for status in sorted(wanted.statuses)] or None,
        "ids": sorted(wanted.task_ids) or None,
    }


def error_view(error: HeadraceError) -> dict[str, Any]:
    view: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.fields:
        view["field"] = error.fields[0].field
    if error.retry_after is not None:
        view["retry_after"] = error.retry_after
    return view


def error_text(error: HeadraceError, ref: str | None = None) -> str:
    return _event("error", {**error_view(error), "ref": ref})


def _event(name: str, data: dict[str, Any]) -> str:
    return msgspec.json.encode({"event": name, "data": data}).decode()


def decode_json(text: str) -> Any:
    """Read JSON that holds nothing that could not be stored. Raises InvalidArgument."""
    try:
        value = msgspec.json.decode(text)
    except msgspec.ValidationError:
        raise _invalid("", "number_out_of_range", "A number is too large.") from None
    except RecursionError:
        raise _invalid("", "too_deep", "The message is nested too deeply.") from None
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise _malformed(text, error) from None
    if "\\u0000" in text and (nul := find_string(value, has_nul)) is not None:
        raise _invalid(nul, "nul_character", "The string holds a NUL character.")
    return value


def require_object(value: Any) -> dict[str, Any]:
    """Raises InvalidArgument."""
    if not isinstance(value, dict):
        raise _invalid("", "object_expected", "Expected a JSON object.")
    return value


def require_known(value: dict[str, Any], known: Collection[str], pointer: str) -> None:
    """Refuse fields that there are not. Raises InvalidArgument."""
    for name in value:
        if name not in known:
            hint = nearest(name, known) or f" Known are {', '.join(known)}."
            raise _invalid(child(pointer, name), "unknown_field", f"There is no such field.{hint}")


def _malformed(text: str, error: Exception) -> InvalidArgument:
    lone = lone_surrogate(text.encode(errors="replace"))
    if lone is not None:
        return _invalid(lone, "invalid_unicode", "The string holds half of a surrogate pair, which is no character.")
    reason = str(error).removeprefix("JSON is malformed: ")[:200]
    return InvalidArgument(f"The message is not JSON: {reason}.", code="invalid_json")


def _ref(value: dict[str, Any]) -> str | None:
    ref = value.get("ref")
    if ref is None or (isinstance(ref, str) and len(ref) <= REF_CHARS_MAX):
        return ref
    raise _invalid("/ref", "invalid_ref", f"Expected a string of at most {REF_CHARS_MAX} characters.")


def _message(value: dict[str, Any], ref: str | None) -> ClientMessage:
    kind = value.get("type")
    known = _FIELDS.get(kind) if isinstance(kind, str) else None
    if known is None:
        hint = nearest(kind, _FIELDS) if isinstance(kind, str) else ""
        raise _invalid("/type", "unknown_message_type", f"Expected one of {', '.join(_FIELDS)}.{hint}")
    require_known(value, known, "")
    if kind == "unsubscribe":
        return Unsubscribe(ref)
    wanted = decode_filter(value.get("filter"), "/filter")
    return Subscribe(wanted, decode_cursor(value.get("cursor"), "/cursor"), ref)


def _items(
    value: dict[str, Any], name: str, pointer: str, parse: Callable[[Any, str], _Value], at_most: int
) -> frozenset[_Value]:
    """What a list holds, each once. Left out it stands for everything, so an empty one is refused as a mistake."""
    items = value.get(name)
    if items is None:
        return frozenset()
    pointer = child(pointer, name)
    if not isinstance(items, list):
        raise _invalid(pointer, "type", "Expected a list.", code="invalid_filter")
    if not items:
        raise _invalid(pointer, "min_items", f"Leave {name} out to hear of all.", code="invalid_filter")
    found = frozenset(parse(item, child(pointer, index)) for index, item in enumerate(items))
    if len(found) > at_most:
        raise _invalid(pointer, "max_items", f"At most {at_most} can be named.", code="invalid_filter")
    return found


def _type_name(item: Any, pointer: str) -> str:
    if isinstance(item, str) and is_type_name(item):
        return item
    message = f"Expected the name of a task type, 1 to {TYPE_CHARS_MAX} characters."
    raise _invalid(pointer, "format", message, code="invalid_filter")


def _status(item: Any, pointer: str) -> int:
    if isinstance(item, str) and item in STATUSES:
        return STATUSES[item]
    hint = nearest(item, STATUSES) if isinstance(item, str) else ""
    raise _invalid(pointer, "enum", f"Expected one of {', '.join(STATUSES)}.{hint}", code="invalid_filter")


def _task_id(item: Any, pointer: str) -> int:
    # `true` is an integer to Python.
    if isinstance(item, int) and not isinstance(item, bool) and 1 <= item <= TASK_ID_MAX:
        return item
    raise _invalid(pointer, "format", f"Expected a whole number from 1 to {TASK_ID_MAX}.", code="invalid_filter")


def _invalid(pointer: str, rule: str, message: str, *, code: str | None = None) -> InvalidArgument:
    where = shown(pointer)
    return InvalidArgument(
        f"{where}: {message}" if where else message,
        code=code or rule,
        fields=[FieldError(pointer, rule, message)] if pointer else (),
    )
