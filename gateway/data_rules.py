"""Rules that the data of every task keeps, whatever its type: what no store or handler could carry is refused here.

Cheap scans over the bytes come first; the decoded value is walked only when a scan finds something to suspect.
"""

import json
import math
from typing import Any

import msgspec

from servicekit.errors import FieldError
from servicekit.strings import Way, find_string, has_nul, render

DEPTH_MAX = 32
KEYS_MAX = 10_000
NODES_MAX = 500_000

_DECODER = msgspec.json.Decoder()


def decode_data(raw: bytes, pointer: str) -> tuple[Any, FieldError | None]:
    """Return the decoded data and nothing, or anything and the rule that it breaks."""
    try:
        value = _DECODER.decode(raw)
    except msgspec.ValidationError:  # syntax was checked with the body; what is left are numbers out of range
        return None, _out_of_range(raw, pointer)
    except RecursionError:
        return None, FieldError(pointer, "too_deep", _TOO_DEEP)
    if raw.count(b"[") + raw.count(b"{") > DEPTH_MAX or raw.count(b",") >= KEYS_MAX:
        error = check_shape(value, pointer)
        if error is not None:
            return None, error
    if b"\\u0000" in raw:
        nul = find_string(value, has_nul, pointer)
        if nul is not None:
            return None, FieldError(nul, "nul_character", "The string holds a NUL character, which cannot be stored.")
    return value, None


_TOO_DEEP = f"The data is nested more than {DEPTH_MAX} levels deep."


def check_shape(root: Any, pointer: str) -> FieldError | None:
    """Refuse what is nested too deeply or has too many members, counting containers and what they hold."""
    nodes = 0
    stack: list[tuple[Any, Way, int]] = [(root, None, 1)]
    while stack:
        value, way, depth = stack.pop()
        if depth > DEPTH_MAX:
            return FieldError(render(pointer, way), "too_deep", _TOO_DEEP)
        if isinstance(value, dict):
            if len(value) > KEYS_MAX:
                message = f"The object has more than {KEYS_MAX} keys."
                return FieldError(render(pointer, way), "too_many_items", message)
            members: Any = value.items()
        else:
            members = enumerate(value)
        nodes += len(value)
        if nodes > NODES_MAX:
            return FieldError(pointer, "too_many_items", f"The data holds more than {NODES_MAX} values.")
        stack.extend((member, (way, key), depth + 1) for key, member in members if isinstance(member, (dict, list)))
    return None


def _out_of_range(raw: bytes, pointer: str) -> FieldError:
    """Name the number that is not representable, found by a second parse that keeps numbers as floats."""
    try:
        value = json.loads(raw, parse_int=float)
    except (ValueError, RecursionError):
        value = None
    where = _find_infinite(value, pointer) or pointer
    return FieldError(where, "number_out_of_range", "The number is too large for a 64-bit floating point number.")


def _find_infinite(root: Any, pointer: str) -> str | None:
    stack: list[tuple[Any, Way]] = [(root, None)]
    while stack:
        value, way = stack.pop()
        if isinstance(value, float) and math.isinf(value):
            return render(pointer, way)
        if isinstance(value, dict):
            stack.extend((member, (way, key)) for key, member in value.items())
        elif isinstance(value, list):
            stack.extend((element, (way, index)) for index, element in enumerate(value))
    return None
