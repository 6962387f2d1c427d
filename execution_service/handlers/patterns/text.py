"""Finds regular expressions in a text, with RE2, whose time is linear in the text for each single match.

Matches of one pattern do not overlap. After an empty match the search goes on one character further; behind another
match an empty one counts, as in Python's `re`. Positions count code points, whatever their bytes in UTF-8.
"""

import time
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, TypeAlias

from execution_service.handlers.patterns.models import (
    MATCHES_MAX,
    SHOWN_CHARACTERS_MAX,
    PatternMatches,
    TextData,
    TextFindings,
    TextGroup,
    TextMatch,
    TextPattern,
)
from execution_service.handlers.patterns.stopping import stop_if_cancelled
from headrace.tasks import PermanentError, TaskContext

# RE2 takes about 5 ns for an instruction and a byte where it must follow all ways at once; mostly far less.
WORK_MAX = 8_000_000_000
# A pattern that looks ahead to the end of the text for each of its matches is quadratic in any engine.
SECONDS_MAX = 60.0
RESULT_BYTES_MAX = 6 * 1024 * 1024
_BLOCK = 1024
_CONTINUATION_BYTES = bytes(range(0x80, 0xC0))

Span: TypeAlias = tuple[int, int]
_UNMATCHED: Span = (-1, -1)


def find_in_text(data: TextData, context: TaskContext) -> TextFindings:
    """Return all matches up to the limits. Raises PermanentError for patterns that are refused or cost too much."""
    from servicekit.re2_patterns import instructions  # loads RE2, which idle workers do without

    raw = data.content.encode()
    compiled = [compiled_pattern(pattern, index) for index, pattern in enumerate(data.patterns)]
    check_work(sum(instructions(pattern.pattern) for pattern in data.patterns), len(raw))
    code_points = CodePoints(raw)
    deadline = time.thread_time() + SECONDS_MAX
    found: list[PatternMatches] = []
    count, bytes_left = 0, RESULT_BYTES_MAX
    truncated = False
    for index, pattern in enumerate(data.patterns):
        regexp = compiled.pop(0)  # with what it learns of the text, it is set free before the next one
        names = {number: name for name, number in regexp.groupindex.items()}
        matches: list[TextMatch] = []
        for spans in find_all(regexp, raw) if not truncated else ():
            stop_if_cancelled(context)
            if time.thread_time() > deadline:
                raise PermanentError("cost_too_high", f"/text/patterns took more than {SECONDS_MAX:g} s to be found.")
            match = _match(spans, names, raw, code_points)
            bytes_left -= len(match.model_dump_json().encode())
            if count == MATCHES_MAX or bytes_left < 0:
                truncated = True
                break
            matches.append(match)
            count += 1
        found.append(PatternMatches(name=pattern.name, matches=matches))
        context.progress((index + 1) / len(data.patterns), f"{count} matches of {index + 1} patterns")
    return TextFindings(patterns=found, count=count, truncated=truncated)


def compiled_pattern(pattern: TextPattern, index: int) -> Any:
    """Return RE2's compiled form of the pattern with its flags. Raises PermanentError if it is refused."""
    from servicekit.re2_patterns import PatternTooLargeError, compile_pattern, explain_pattern

    refusal = explain_pattern(pattern.pattern)
    if refusal is not None:
        code, message = refusal
        raise PermanentError(code, f"/text/patterns/{index}/pattern: {message}")
    flags = "i" * pattern.ignore_case + "m" * pattern.multiline + "s" * pattern.dot_all
    try:
        return compile_pattern(f"(?{flags}){pattern.pattern}" if flags else pattern.pattern)
    except PatternTooLargeError as error:
        raise PermanentError("pattern_too_large", f"/text/patterns/{index}/pattern: {error}") from error


def check_work(instructions: int, text_bytes: int) -> None:
    """Raise PermanentError `cost_too_high` if the search could take too long."""
    work = instructions * text_bytes
    if work > WORK_MAX:
        raise PermanentError(
            "cost_too_high",
            f"The patterns' {instructions} instructions times {text_bytes} bytes of text are {work}; {WORK_MAX} are "
            "the most.",
        )


def find_all(regexp: Any, raw: bytes) -> Iterator[Sequence[Span]]:
    """Yield the spans, in bytes, of each match and its groups.

    RE2's own `finditer` yields an empty match twice where it does not begin at once.
    """
    at = 0
    while at <= len(raw):
        match = regexp.search(raw, at)
        if match is None:
            return
        yield [match.span(number) for number in range(regexp.groups + 1)]
        start, at = match.span()
        if start == at:
            at += 1
            while at < len(raw) and raw[at] in _CONTINUATION_BYTES:
                at += 1


class CodePoints:
    """Turns positions in bytes of UTF-8 into positions in code points, by counts at every kibibyte."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        starts = range(0, len(raw), _BLOCK)
        self._before = list(accumulate((_characters(raw[at : at + _BLOCK]) for at in starts), initial=0))

    def position(self, at: int) -> int:
        """Return how many code points lie before the byte."""
        block = at // _BLOCK
        return self._before[block] + _characters(self._raw[block * _BLOCK : at])


def _characters(raw: bytes) -> int:
    return len(raw.translate(None, _CONTINUATION_BYTES))


def _match(spans: Sequence[Span], names: dict[int, str], raw: bytes, code_points: CodePoints) -> TextMatch:
    (start, end), *groups = spans
    return TextMatch(
        start=code_points.position(start),
        end=code_points.position(end),
        text=_shown(raw, start, end),
        groups=[_group(number, names.get(number), span, raw, code_points) for number, span in enumerate(groups, 1)],
    )


def _group(number: int, name: str | None, span: Span, raw: bytes, code_points: CodePoints) -> TextGroup:
    if span == _UNMATCHED:
        return TextGroup(number=number, name=name, start=None, end=None, text=None)
    start, end = (code_points.position(at) for at in span)
    return TextGroup(number=number, name=name, start=start, end=end, text=_shown(raw, *span))


def _shown(raw: bytes, start: int, end: int) -> str:
    """Return the first characters of the span: no character has more than four bytes."""
    return raw[start : min(end, start + 4 * SHOWN_CHARACTERS_MAX)].decode(errors="ignore")[:SHOWN_CHARACTERS_MAX]
