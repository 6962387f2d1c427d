"""Find the string inside a JSON value that breaks a rule. Keys are strings too."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from servicekit.pointers import descend

# A lone surrogate is looked for by a second, slow parse; larger texts are just called malformed.
_SECOND_PARSE_BYTES_MAX = 4 * 1024 * 1024
_SURROGATE = re.compile("[\ud800-\udfff]")

# A value, and the way to it: (way to the parent, key), or nothing for the root.
Way = tuple["Way", str | int] | None


def has_surrogate(text: str) -> bool:
    return not text.isascii() and _SURROGATE.search(text) is not None


def has_nul(text: str) -> bool:
    return "\0" in text


def find_string(root: Any, breaks_rule: Callable[[str], bool], pointer: str = "") -> str | None:
    """Return the pointer of the first string found for which `breaks_rule` holds; of its holder if it is a key."""
    stack: list[tuple[Any, Way]] = [(root, None)]
    while stack:
        value, way = stack.pop()
        if isinstance(value, str):
            if breaks_rule(value):
                return render(pointer, way)
        elif isinstance(value, dict):
            if any(map(breaks_rule, value)):
                return render(pointer, way)
            stack.extend((member, (way, key)) for key, member in value.items())
        elif isinstance(value, list):
            stack.extend((element, (way, index)) for index, element in enumerate(value))
    return None


def lone_surrogate(body: bytes) -> str | None:
    """The pointer of a string with a lone surrogate: msgspec calls it malformed, the standard library does not."""
    if b"\\u" not in body or len(body) > _SECOND_PARSE_BYTES_MAX:
        return None
    try:
        value = json.loads(body, parse_constant=_refuse_constant, parse_int=len, parse_float=len)
    except (ValueError, RecursionError):
        return None
    return find_string(value, has_surrogate)


def render(pointer: str, way: Way) -> str:
    return descend(pointer, reversed(list(_keys(way))))


def _keys(way: Way) -> Iterator[str | int]:
    while way is not None:
        way, key = way
        yield key


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")
