"""What is found in a text is there, at the places that are told, and all of it up to the limits."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execution_service.handlers.find_patterns import find_patterns
from execution_service.handlers.patterns import text
from execution_service.handlers.patterns.models import MATCHES_MAX, SHOWN_CHARACTERS_MAX, FindPatternsData, TextFindings
from execution_service.handlers.patterns.stopping import FindingStoppedError
from execution_service.handlers.patterns.text import CodePoints, check_work
from headrace.tasks import RESULT_BYTES_MAX, PermanentError, TaskContext, definition_of


def _find(content: str, *patterns: str | dict[str, Any], context: TaskContext | None = None) -> TextFindings:
    specified = [{"pattern": pattern} if isinstance(pattern, str) else pattern for pattern in patterns]
    body = json.dumps({"text": {"content": content, "patterns": specified}})
    found = find_patterns(FindPatternsData.model_validate_json(body), context or TaskContext()).text
    assert found is not None
    return found


def _spans(content: str, pattern: str | dict[str, Any]) -> list[tuple[int, int, str]]:
    (entry,) = _find(content, pattern).patterns
    return [(match.start, match.end, match.text) for match in entry.matches]


def test_matches_and_groups_are_told_with_their_places() -> None:
    found = _find("Töne: 440 Hz, 660 Hz 🎵", {"pattern": r"(?P<value>\d+) (Hz|kHz)(!)?", "name": "tones"}, "🎵")
    tones, notes = found.patterns
    assert (tones.name, notes.name) == ("tones", None)
    assert [(match.start, match.end, match.text) for match in tones.matches] == [(6, 12, "440 Hz"), (14, 20, "660 Hz")]
    assert [group.model_dump() for group in tones.matches[1].groups] == [
        {"number": 1, "name": "value", "start": 14, "end": 17, "text": "660"},
        {"number": 2, "name": None, "start": 18, "end": 20, "text": "Hz"},
        {"number": 3, "name": None, "start": None, "end": None, "text": None},
    ]
    assert [(match.start, match.end, match.text) for match in notes.matches] == [(21, 22, "🎵")]
    assert (found.count, found.truncated) == (3, False)


def test_flags_change_what_matches() -> None:
    content = "One\none\nONE"
    assert len(_spans(content, "one")) == 1
    assert len(_spans(content, {"pattern": "one", "ignore_case": True})) == 3
    assert _spans(content, "^.+$") == []
    assert len(_spans(content, {"pattern": "^.+$", "multiline": True})) == 3
    assert _spans(content, {"pattern": "^.+$", "dot_all": True}) == [(0, 11, content)]
    assert len(_spans(content, {"pattern": "^o.e$", "ignore_case": True, "multiline": True, "dot_all": True})) == 3


@pytest.mark.parametrize(
    ("pattern", "content", "matched"),
    [
        pytest.param("[[:alpha:]]+", "aé1", ["a"], id="T22-posix-class-is-ascii"),
        pytest.param(r"\w+", "aé1", ["a", "1"], id="T22-word-is-ascii"),
        pytest.param(r"\pL+", "aé1 日本", ["aé", "日本"], id="T18-unicode-class"),
        pytest.param(r"\p{Greek}", "aβΓ", ["β", "Γ"], id="T18-script"),
        pytest.param("(?i)straße", "STRAẞE STRASSE", ["STRAẞE"], id="T22-sharp-s-folds-to-its-capital-alone"),
        pytest.param("(?i)i", "Iiİı", ["I", "i"], id="T22-dotted-and-dotless-i-stay-apart"),
        pytest.param("(?i)k", "kK\u212a", ["k", "K", "\u212a"], id="T22-kelvin-is-k"),
        pytest.param("(?i)σ", "σςΣ", ["σ", "ς", "Σ"], id="T22-all-sigmas"),
        pytest.param("e\u0301", "é e\u0301", ["e\u0301"], id="T05-combining-marks-are-not-composed"),
        pytest.param(".", "\u202ea\u200b", ["\u202e", "a", "\u200b"], id="T05-direction-and-zero-width"),
        pytest.param("(?m)^.", "a\r\nb\rc\n", ["a", "b"], id="T20-lines-end-with-line-feed-alone"),
        pytest.param(r"\x00.", "a\x00b", ["\x00b"], id="T20-binary"),
    ],
)
def test_what_a_pattern_means_is_fixed(pattern: str, content: str, matched: list[str]) -> None:
    assert [match for _, _, match in _spans(content, pattern)] == matched


@pytest.mark.parametrize("pattern", ["", "$", r"\b", "(?m)^", "a*", "(a|b)?", "x*", "b|$"])
@pytest.mark.parametrize("content", ["", "a", "baac\na", "é🎵", "aé a"])
def test_empty_matches_are_those_of_python(pattern: str, content: str) -> None:
    expected = [(match.start(), match.end(), match[0]) for match in re.finditer(pattern, content, re.ASCII)]
    assert _spans(content, pattern) == expected


_TEXTS = st.text(st.sampled_from("ab1 \né🎵日"), max_size=40)
_PATTERNS = st.recursive(
    st.sampled_from(["a", "b", "é", "🎵", ".", "[ab]", "[^a]", r"\d", r"\b", "^", "$", r"\n"]),
    lambda inner: (
        st.builds("(?:{}){}".format, inner, st.sampled_from(["+", "?", "{2}", "{0,2}"]))
        | st.builds("({})({})".format, inner, inner)
        | st.builds("(?:{}|{}x)".format, inner, inner)
    ),
    max_leaves=5,
)


@given(_TEXTS, _PATTERNS)
def test_positions_lead_to_the_text_that_matched(content: str, pattern: str) -> None:
    (entry,) = _find(content, pattern).patterns
    behind = 0
    for match in entry.matches:
        assert behind <= match.start <= match.end
        assert content[match.start : match.end] == match.text
        for group in match.groups:
            if group.start is not None and group.end is not None:
                assert match.start <= group.start <= group.end <= match.end
                assert content[group.start : group.end] == group.text
        behind = match.end


@given(
    _TEXTS, st.lists(st.sampled_from(["a", "é", "🎵", ".", "[^a ]", r"\d", "(?:ab|a)", "b{2}"]), min_size=1, max_size=4)
)
def test_what_is_never_empty_is_found_as_by_python(content: str, pieces: list[str]) -> None:
    pattern = "".join(pieces)
    assert _spans(content, pattern) == [
        (match.start(), match.end(), match[0]) for match in re.finditer(pattern, content)
    ]


@given(st.text(max_size=3000))
def test_code_points_are_counted_wherever_a_character_begins(content: str) -> None:
    content = content.encode("utf-8", "ignore").decode()
    raw = content.encode()
    code_points = CodePoints(raw)
    at = 0
    for index, character in enumerate(content):
        assert code_points.position(at) == index
        at += len(character.encode())
    assert code_points.position(at) == len(content)


def test_matches_are_capped_in_all_and_the_cut_is_told() -> None:
    content = "ab" * (MATCHES_MAX // 2)
    whole = _find(content, "a", "b")
    assert (whole.count, whole.truncated) == (MATCHES_MAX, False)
    cut = _find(content + "b", "a", "b", "a")
    assert (cut.count, cut.truncated) == (MATCHES_MAX, True)
    assert [len(entry.matches) for entry in cut.patterns] == [MATCHES_MAX // 2, MATCHES_MAX // 2, 0]


def test_what_matched_is_shown_up_to_its_thousandth_character() -> None:
    (entry,) = _find("é" * 5000, "(é+)").patterns
    (match,) = entry.matches
    assert (match.start, match.end, match.text) == (0, 5000, "é" * SHOWN_CHARACTERS_MAX)
    assert (match.groups[0].end, match.groups[0].text) == (5000, match.text)


def test_a_result_that_grows_too_large_is_cut() -> None:
    # Each of these matches takes 6 bytes for a character, in a hundred groups.
    pattern = "(" * 99 + "." * 1000 + ")" * 99
    found = _find("\1" * 20_000, pattern)
    assert found.truncated
    assert found.count > 5
    result = find_patterns.__annotations__["return"](text=found)
    assert RESULT_BYTES_MAX // 2 < len(definition_of(find_patterns).encode(result)) < RESULT_BYTES_MAX


@pytest.mark.parametrize(
    ("pattern", "code", "where"),
    [
        ("a(", "invalid_pattern", "position 1"),
        (r"(a)\1", "unsupported_pattern", "position 3"),
        ("a{1001}", "pattern_too_large", "position 1"),
        (r"\pL{500}", "pattern_too_large", "instructions"),
    ],
)
def test_a_pattern_that_is_refused_is_named(pattern: str, code: str, where: str) -> None:
    with pytest.raises(PermanentError, match=f"^/text/patterns/1/pattern: .*{where}") as raised:
        _find("text", "a", pattern)
    assert raised.value.code == code


def test_flags_may_make_a_pattern_too_large() -> None:
    letters = "|".join(chr(0x430 + i % 32) + chr(0x450 + i % 16) for i in range(1200))
    assert _find("x", letters).count == 0
    with pytest.raises(PermanentError) as raised:
        _find("x", {"pattern": f"(?:{letters}){{3}}", "ignore_case": True})
    assert raised.value.code == "pattern_too_large"


def test_the_work_is_bounded_before_it_begins() -> None:
    check_work(text.WORK_MAX // 1000, 1000)
    with pytest.raises(PermanentError, match="instructions times 1000 bytes") as raised:
        check_work(text.WORK_MAX // 1000 + 1, 1000)
    assert raised.value.code == "cost_too_high"


def test_the_time_is_bounded_while_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "SECONDS_MAX", 0.05)
    with pytest.raises(PermanentError) as raised:
        _find("a" * 1_000_000, "a.*z|a")  # looks through all that is left for each match
    assert raised.value.code == "cost_too_high"


def test_a_cancel_ends_the_search() -> None:
    with pytest.raises(FindingStoppedError):
        _find("aaa", "a", context=TaskContext(is_cancelled=lambda: True))


def test_progress_is_told_pattern_by_pattern() -> None:
    told: list[float] = []
    _find("ab", "a", "b", "c", "d", context=TaskContext(on_progress=lambda fraction, _: told.append(fraction)))
    assert told == [0.25, 0.5, 0.75, 1.0]
