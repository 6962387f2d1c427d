"""Regular expressions of users: what is wrong with one, told before it is used, and its compilation.

The engine is RE2, which matches in time linear in the text (R. Cox, "Regular Expression Matching in the Wild", 2010).
To read and to compile a pattern has its price too. `explain_pattern` takes no more than some milliseconds, so that a
server may ask it: Unicode classes and case, which make RE2's reading slow, it leaves out.
How large the program of a pattern gets is seen only by `compile_pattern`, which may take 50 ms.
"""

import functools
import re
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import re2  # type: ignore[import-untyped]

CHARACTERS_MAX = 4096
GROUPS_MAX = 100
REPETITIONS_MAX = 3000
# Enough for some 10,000 instructions.
_PROGRAM_BYTES = 256 * 1024
# For matching, where the program shares it with the states of the automaton.
_MATCH_BYTES = 8 * 1024 * 1024
# Enough to hear of an error of syntax, which RE2 looks for before it makes a program.
_SYNTAX_BYTES = 1024
_TOO_LARGE = "pattern too large"
_SHOWN_MAX = 40

# Parts of a pattern that are one thing each. What opens something may end with the pattern, so that reading is linear.
_CLASS_ESCAPE = r"\\[pP](?:\{[^}]{0,100}\}|[^{])"
_CHARACTER = r"(?:\\x\{[^}]{0,100}\}|\\x[0-9a-fA-F]{2}|\\(?:.|\Z)|[^\]\\])"
_PART = re.compile(
    rf"""
      \\Q.*?(?:\\E|\Z)                                          # literal text
    | {_CLASS_ESCAPE} | \\x\{{[^}}]{{0,100}}\}} | \\x[0-9a-fA-F]{{2}} | \\.?
    | \[\^?(?:\](?:-{_CHARACTER})?)?                            # a class of characters
      (?:\[:\^?\w{{0,20}}:\] | {_CLASS_ESCAPE} | \\[dswDSW] | {_CHARACTER}(?:-{_CHARACTER})?)*+(?:\]|\Z)
    | \(\?(?:P?<\w+> | P[=>]? | <[=!].? | [a-zA-Z-]*[:)] | .)   # a group with a name, flags or a meaning
    | \{{\d+(?:,\d*)?\}}                                        # a repetition
    | .
    """,
    re.DOTALL | re.VERBOSE,
)
_GROUP_NAME = re.compile(r"\(\?P?<(\w+)>")
_REPETITION = re.compile(r"\{(\d+)(?:,(\d*))?\}")
_ESCAPE = re.compile(rf"{_CLASS_ESCAPE}|\\.", re.DOTALL)

# What other engines know, and a linear one cannot do or RE2 writes in another way.
_UNSUPPORTED = (
    (re.compile(r"\(\?[=!]"), "look-ahead"),
    (re.compile(r"\(\?<[=!]"), "look-behind"),
    (re.compile(r"\(\?P=|\\[1-9kg]"), "a back-reference"),
    (re.compile(r"\(\?>"), "an atomic group"),
    (re.compile(r"\(\?\("), "a condition"),
    (re.compile(r"\(\?(?:[R&|0-9+]|P>)"), "recursion or a branch reset"),
    (re.compile(r"\(\?#"), "a comment"),
    (re.compile(r"\(\?[a-zA-Z-]*[xauLnJ]"), "a flag other than i, m, s and U"),
    (re.compile(r"(?:[*+?]|\{[\d,]+\})\+"), "a possessive quantifier"),
    (re.compile(r"\\Z"), r"`\Z` (the end of the text is `\z`)"),
    (re.compile(r"\\[uUN]"), r"this way to name a character (write `\x{263A}`)"),
    (re.compile(r"\\[GKRXhHeEcoy]"), "this escape"),
)

Refusal = tuple[str, str]
Span = tuple[int, int]


class PatternTooLargeError(Exception):
    """The compiled program of a pattern is larger than is allowed."""


def explain_pattern(pattern: str) -> Refusal | None:
    """Return why a pattern is refused, as a code and a message with the position where it is known; None if it is not.

    Codes are `invalid_pattern`, `unsupported_pattern` and `pattern_too_large`. Positions count code points from 0.
    """
    if len(pattern) > CHARACTERS_MAX:
        return "pattern_too_large", f"The pattern has {len(pattern)} characters; {CHARACTERS_MAX} are the most."
    try:
        pattern.encode()
    except UnicodeEncodeError as error:
        return "invalid_pattern", f"The pattern has half of a surrogate pair at position {error.start}."
    parts = _parts(pattern)
    return _explain_repetitions(pattern, parts) or _explain_error(pattern, parts) or _explain_groups(pattern, parts)


def compile_pattern(pattern: str) -> Any:
    """Return RE2's compiled form of a pattern that `explain_pattern` has nothing against.

    Raises PatternTooLargeError. RE2's Python module would keep the last 128 of them, with up to 8 MiB each: here the
    caller is the only holder.
    """
    if _error(pattern, _PROGRAM_BYTES) is not None:
        raise PatternTooLargeError("The pattern compiles to more than about 10,000 instructions.")
    return _compile(pattern, _MATCH_BYTES)


def instructions(pattern: str) -> int:
    """Return how many instructions a search with the pattern may have to follow at each byte, at about 5 ns each.

    A Unicode class counts little: it has a thousand instructions in the program, of which a byte concerns few.
    """
    size: int = _compile(_twin(pattern, _parts(pattern)), _MATCH_BYTES).programsize
    return size


def _parts(pattern: str) -> list[Span]:
    return [match.span() for match in _PART.finditer(pattern)]


def _explain_repetitions(pattern: str, parts: Sequence[Span]) -> Refusal | None:
    repetitions = [pattern[start:end] for start, end in parts if pattern[start] == "{" and end - start > 1]
    counts = [count for repetition in repetitions for pair in _REPETITION.findall(repetition) for count in pair]
    # Counts of more than four digits are RE2's to refuse, and Python's to stumble over.
    total = sum(int(count) for count in counts if 0 < len(count) < 5)
    if total <= REPETITIONS_MAX:
        return None
    return "pattern_too_large", f"The counts of all repetitions add up to {total}; {REPETITIONS_MAX} is the most."


def _explain_error(pattern: str, parts: Sequence[Span]) -> Refusal | None:
    twin = _twin(pattern, parts)
    error = _error(twin, _SYNTAX_BYTES)
    if error is None or error.startswith(_TOO_LARGE):
        return None
    kind, _, about = error.partition(": ")
    position = _unclosed(twin, parts) if kind == "missing )" else _position(twin, parts, error)
    where = f"at position {position}, `{pattern[position : position + _SHOWN_MAX]}`"
    for unsupported, name in _UNSUPPORTED:
        if unsupported.match(pattern, position):
            return "unsupported_pattern", f"The pattern has {name} {where}: RE2 does not support it."
    if kind == "invalid repetition size" and not _is_falling(about):
        return "pattern_too_large", f"Repetitions may come to 1,000, multiplied where they nest: too many {where}."
    return "invalid_pattern", f"The pattern is not valid {where}: {kind}."


def _twin(pattern: str, parts: Sequence[Span]) -> str:
    """Return a pattern of another meaning that is as long, as right or wrong in all its parts, and read faster."""
    return "".join(pattern[start] if end - start == 1 else _cheap(pattern[start:end]) for start, end in parts)


def _cheap(part: str) -> str:
    if part.startswith("(?") and part[-1] in ":)":
        return part.replace("i", "s")
    if part.startswith(("[", r"\p", r"\P")):
        return _ESCAPE.sub(lambda escape: _cheap_escape(escape[0]), part)
    return part


def _cheap_escape(escape: str) -> str:
    if escape[1] not in "pP" or not _is_unicode_class(escape):
        return escape
    # Classes alone: a character could make a range with what stands beside it.
    odd = len(escape) % 2
    return r"\pZ" * odd + r"\d" * (len(escape) // 2 - odd)


@functools.lru_cache(maxsize=1024)
def _is_unicode_class(escape: str) -> bool:
    return _error(escape, _PROGRAM_BYTES) is None


def _position(pattern: str, parts: Sequence[Span], error: str) -> int:
    """Return where RE2 found the error, of which it tells only the characters that it is about.

    It reads from left to right and stops at the first error. So that is in the first part with which the beginning of
    the pattern has the same error as the whole.
    """
    kind, _, about = error.partition(": ")
    if kind == "unexpected )":  # told with the whole pattern, which is another for each beginning of it
        return parts[_first(pattern, parts, kind)][0]
    start, _ = parts[_first(pattern, parts, error)]
    # It may begin in the middle of a part, like a range in a class, or before it, like the first of two stars.
    found = pattern.find(about, max(0, start - len(about) + 1)) if about else -1
    return found if found >= 0 else len(pattern) - 1


def _first(pattern: str, parts: Sequence[Span], error: str) -> int:
    def has_error(part: Span) -> bool:
        return (_error(pattern[: part[1]], _SYNTAX_BYTES) or "").startswith(error)

    return min(bisect_left(parts, True, key=has_error), len(parts) - 1)


def _unclosed(pattern: str, parts: Sequence[Span]) -> int:
    opened: list[int] = []
    for start, end in parts:
        if pattern[start] == "(" and pattern[end - 1] != ")":
            opened.append(start)
        elif pattern[start:end] == ")":
            opened.pop()
    return opened[-1]


def _explain_groups(pattern: str, parts: Sequence[Span]) -> Refusal | None:
    """Refuse what RE2 takes and no result can show: names like numbers or given twice, bytes, hundreds of groups."""
    names: set[str] = set()
    groups = 0
    for start, end in parts:
        if end - start == 1:
            groups += pattern[start] == "("
            continue
        part = pattern[start:end]
        if part == r"\C":
            return "unsupported_pattern", rf"The pattern has `\C` at position {start}, which cuts characters apart."
        named = _GROUP_NAME.fullmatch(part)
        if named is None:
            continue
        groups += 1
        name = named[1]
        if name[0].isdigit() or name in names:
            fault = "begins with a digit" if name[0].isdigit() else "is given twice"
            return "invalid_pattern", f"The group name `{name[:_SHOWN_MAX]}` at position {start} {fault}."
        names.add(name)
    if groups > GROUPS_MAX:
        return "pattern_too_large", f"The pattern has {groups} groups; {GROUPS_MAX} are the most."
    return None


def _is_falling(repetition: str) -> bool:
    """Whether a repetition ends below where it begins, like `{3,2}`."""
    counts = _REPETITION.match(repetition)
    return counts is not None and bool(counts[2]) and int(counts[2]) < int(counts[1])


def _error(pattern: str, bytes_max: int) -> str | None:
    """Return what RE2 has against the pattern: a few words and, after a colon, the characters that they are about."""
    try:
        _compile(pattern, bytes_max)
    except re2.error as error:
        told: bytes = error.args[0]
        return told.decode()
    return None


def _compile(pattern: str, bytes_max: int) -> Any:
    options = re2.Options()
    options.max_mem = bytes_max
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    finally:
        re2.purge()
