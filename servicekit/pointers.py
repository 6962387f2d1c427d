"""JSON pointers (RFC 6901), and guesses at what somebody meant to write."""

import difflib
from collections.abc import Iterable

_SHOWN_CHARS_MAX = 100


def child(pointer: str, key: str | int) -> str:
    """The pointer of a member or element of what `pointer` names. Long keys are cut: they are the caller's input."""
    return f"{pointer}/{shown(str(key)).replace('~', '~0').replace('/', '~1')}"


def descend(pointer: str, keys: Iterable[str | int]) -> str:
    for key in keys:
        pointer = child(pointer, key)
    return pointer


def shown(text: str) -> str:
    """As much of a caller's input as an answer may repeat."""
    return text if len(text) <= _SHOWN_CHARS_MAX else f"{text[:_SHOWN_CHARS_MAX]}…"


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a question, with a space before it, that names up to three known words like `word`, or nothing."""
    close = difflib.get_close_matches(word[:_SHOWN_CHARS_MAX], list(known), n=3)
    return f" Did you mean {' or '.join(repr(name) for name in close)}?" if close else ""
