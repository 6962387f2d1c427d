"""What is told of a pattern is what RE2 does with it, and where."""

import re
import time

import pytest
import re2  # type: ignore[import-untyped]
from hypothesis import example, given, settings
from hypothesis import strategies as st

from servicekit.re2_patterns import (
    CHARACTERS_MAX,
    GROUPS_MAX,
    REPETITIONS_MAX,
    PatternTooLargeError,
    compile_pattern,
    explain_pattern,
    instructions,
)


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "a|b",
        r"(?P<year>\d{4})-(?<month>\d\d)",
        "(?i)(?m:^a)(?-i)b(?s-m:.)(?U)c+",
        "[[:alpha:]][[:^digit:]]",
        r"[]\d-][^]a][z\-a]",
        r"\p{Greek}\pL\PN[\p{Lu}\PL-]",
        r"\Q(?=\1[\E\\Q",
        r"\x{1F600}\x41\n\A\z\b\B",
        "é{2}日本語*?",
        "x{,5}y{2",
        f"(?:{'a?' * 500})",
        "a{1000}",
        r"\Q{1000}{1000}{1000}{1000}\E[{1000}]",
        "(a)" * GROUPS_MAX,
        "x" * CHARACTERS_MAX,
    ],
)
def test_a_pattern_of_re2_is_taken(pattern: str) -> None:
    assert explain_pattern(pattern) is None
    assert compile_pattern(pattern).pattern == pattern


@pytest.mark.parametrize(
    ("pattern", "position"),
    [
        ("(", 0),
        ("a(b(c)", 1),
        ("(a)(?P<n>b", 3),
        ("a)b(c", 1),
        ("*a", 0),
        ("a|?", 2),
        ("éa**", 2),
        ("x**y**", 1),
        ("{3}", 0),
        ("[z-a]", 1),
        ("z-a[az-a]", 5),
        ("[[:word:]][[:foo:]]", 11),
        ("ab[cd", 2),
        (r"\pL\p{Foo}", 3),
        (r"[\pLa\p{Foo}]", 5),
        (r"a\j", 1),
        ("\\d\\", 2),
        (r"\x{41}\x{110000}", 6),
        ("a{3,2}", 1),
        ("(?z)", 0),
        ("(?i)a(?i", 5),
        ("(?P<a-b>x)", 0),
        ("(?P<1>)", 0),
        ("(?P<a>x)|(?P<a>y)", 9),
        ("a\ud800", 1),
    ],
)
def test_a_wrong_pattern_is_told_with_its_position(pattern: str, position: int) -> None:
    refusal = explain_pattern(pattern)
    assert refusal is not None
    code, message = refusal
    assert code == "invalid_pattern"
    assert re.search(rf"at position {position}\b", message)


@pytest.mark.parametrize(
    ("pattern", "position", "name"),
    [
        ("a(?=b)", 1, "look-ahead"),
        ("(?!b)", 0, "look-ahead"),
        ("é(?<=b)", 1, "look-behind"),
        ("(?<!b)", 0, "look-behind"),
        (r"(a)\1", 3, "back-reference"),
        ("(?P<n>a)(?P=n)", 8, "back-reference"),
        (r"(?P<n>a)\k<n>", 8, "back-reference"),
        ("(?>a)", 0, "atomic"),
        ("(a)(?(1)b)", 3, "condition"),
        ("(?R)", 0, "recursion"),
        ("a(?#b)", 1, "comment"),
        ("(?ix)a", 0, "flag"),
        ("a++", 1, "possessive"),
        ("a{2}+", 1, "possessive"),
        (r"a\Z", 1, r"\\z"),
        (r"\u0041", 0, r"\\x{"),
        (r"a\Gb", 1, "escape"),
        (r"\d\C", 2, "cuts characters"),
    ],
)
def test_what_a_linear_engine_cannot_do_is_named(pattern: str, position: int, name: str) -> None:
    refusal = explain_pattern(pattern)
    assert refusal is not None
    code, message = refusal
    assert code == "unsupported_pattern"
    assert re.search(rf"at position {position}\b", message)
    assert re.search(name, message)


@pytest.mark.parametrize(
    "pattern",
    [
        "x" * (CHARACTERS_MAX + 1),
        "a{1001}",
        "a{1,100000}{1,100000}",
        "((a{100}){100}){100}",
        "(?:a{999}b)" * 4,
        f"a{{{REPETITIONS_MAX}}}b{{1}}",
        "(a)" * (GROUPS_MAX + 1),
        "(?P<n>a)" + "(a)" * GROUPS_MAX,
    ],
)
def test_what_would_grow_too_large_is_refused(pattern: str) -> None:
    refusal = explain_pattern(pattern)
    assert refusal is not None
    assert refusal[0] == "pattern_too_large"


def test_a_program_that_is_too_large_is_seen_when_it_is_made() -> None:
    assert explain_pattern(r"\pL{500}") is None
    with pytest.raises(PatternTooLargeError):
        compile_pattern(r"\pL{500}")


def test_the_instructions_of_a_search_are_those_of_its_structure() -> None:
    assert instructions("abc") < instructions("a{100}") < instructions("(a|b)*a(a|b){200}") < 1000
    assert instructions(r"\pL+\s[\pL\p{Nd}]+") < 50


def test_no_more_of_the_pattern_is_told_than_what_is_wrong() -> None:
    refusal = explain_pattern("[z-a" + "x" * 1000)
    assert refusal is not None
    assert len(refusal[1]) < 150


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?i)\PL" + r"\PL" * 1300,
        "(?i)" + "[\u0400-\U0010ffff]" * 800,
        "(?:a{0,99}b){3}" * 10,
        "[" * 4000 + "\\",
        "[a" * 2000,
        "(?<" * 1300,
        r"\p{" * 1300,
        r"\Q" * 2000,
        "(" * 4096,
        "(?:" * 2000,
        "((((" + "x?" * 2000,
    ],
)
def test_asking_is_cheap_also_for_hostile_patterns(pattern: str) -> None:
    def seconds() -> float:
        started = time.thread_time()
        explain_pattern(pattern[:CHARACTERS_MAX])
        return time.thread_time() - started

    # The first of these takes RE2 alone 0.6 s.
    assert min(seconds() for _ in range(3)) < 0.1


def test_nothing_is_kept_of_a_pattern() -> None:
    compile_pattern("once")
    assert explain_pattern("twice") is None
    assert re2._Regexp._make.cache_info().currsize == 0


_PIECES = (
    *"()[]{}*+?|^$\\-,:<>=!.12abims",
    *(
        "é",
        "\U0001f600",
        "[^",
        "(?P<n>",
        "(?P=n)",
        "(?<=",
        "(?i)",
        "(?s-i:",
        "[:alpha:]",
        "{2}",
        "{2,1}",
        "{1001}",
        "{,3}",
    ),
    *(r"\p{Lu}", r"\pN", r"\PN", r"\d", r"\x{41}", r"\x4", r"\Q", r"\E", r"\1", r"\C"),
)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(_PIECES), max_size=25).map("".join))
@example(r"[^,-[:alpha:](x")
@example(r"[\pN-(]")
@example("a{99999999999999999999}")
@example(r"\Q{1001}{1001}{1001}")
def test_all_is_refused_that_re2_refuses_and_little_else(pattern: str) -> None:
    refusal = explain_pattern(pattern)
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(pattern, options)
        taken = True
    except re2.error:
        taken = False
    finally:
        re2.purge()
    if refusal is None:
        assert taken
    elif taken:
        assert "group name" in refusal[1] or r"\C" in refusal[1] or "repetitions add up" in refusal[1]
    elif position := re.search(r"at position (\d+)", refusal[1]):
        assert 0 <= int(position[1]) < len(pattern)
