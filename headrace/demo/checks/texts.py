"""Results about texts."""

import re
import textwrap
from collections.abc import Mapping
from typing import Any

from headrace.demo.checks.requirements import require

_WIDTH = 92


def is_plausible(words: int, text: str) -> bool:
    """Counting what stands between spaces is another rule than the task's, and differs by little in prose."""
    expected = len(text.split())
    return abs(words - expected) <= 2 + expected // 50


def word_findings(result: Mapping[str, Any], text: str) -> list[str]:
    words = result["words"]
    require(result["characters"] == len(text), f"word_count found {result['characters']} characters of {len(text)}")
    require(is_plausible(words, text), f"word_count found {words} words in a text of about {len(text.split())}")
    top = [(entry["word"], entry["count"]) for entry in result["top_words"]]
    require(top[0] == max(top, key=lambda entry: entry[1]), "word_count does not list the most frequent word first")
    different, sentences = result["unique_words"], result["sentences"]
    return [
        f"{words:,} words, {different:,} different, in {sentences} sentences, {len(text):,} characters",
        "most frequent: " + ", ".join(f"{word} ({count})" for word, count in top[:8]),
    ]


def sentiment_findings(result: Mapping[str, Any], expected: Mapping[str, str]) -> list[str]:
    """`expected` has the label of each sentence."""
    found = {sentence["text"]: sentence["label"] for sentence in result["sentences"]}
    require(found == expected, f"sentiment_analysis says {found}")
    require(-1 <= result["compound"] <= 1, f"sentiment_analysis says compound = {result['compound']}")
    lines = [
        f"{sentence['label']:<9}{sentence['compound']:+.2f}  {sentence['text']}" for sentence in result["sentences"]
    ]
    return [*lines, f"in all: {result['label']} ({result['compound']:+.2f})"]


def summary_findings(result: Mapping[str, Any], text: str, sentences: int) -> list[str]:
    """A summary is made of sentences of the text, in their order."""
    chosen = [sentence["text"] for sentence in result["sentences"]]
    require(len(chosen) == sentences, f"text_summarization chose {len(chosen)} sentences, not {sentences}")
    places = [text.find(sentence) for sentence in chosen]
    require(places == sorted(places) and places[0] >= 0, "text_summarization has sentences that are not of the text")
    return [f"of {result['sentence_count']} sentences the most central ones:", *textwrap.wrap(" ".join(chosen), _WIDTH)]


def pattern_findings(result: Mapping[str, Any], text: str, pattern: str) -> list[str]:
    """Another engine has to find the same places."""
    matches = result["text"]["patterns"][0]["matches"]
    expected = [match.span() for match in re.finditer(pattern, text)]
    found = [(match["start"], match["end"]) for match in matches]
    require(found == expected, f"find_patterns found {len(found)} places, and there are {len(expected)}")
    kinds: dict[str, int] = {}
    for match in matches:
        kinds[match["text"].lower()] = kinds.get(match["text"].lower(), 0) + 1
    most = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))[:6]
    return [f"{len(found)} places: " + ", ".join(f"{word} ({count})" for word, count in most)]
