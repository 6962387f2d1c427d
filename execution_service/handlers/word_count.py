"""Task type `word_count`: counts characters, words and sentences of a text.

A word is a run of letters, digits and combining marks of any script. Apostrophes and hyphens belong to a word where
they stand inside it ("don't", "mother-in-law"), points and commas where they stand between digits ("3.14"). Anything
else parts words, also the underscore. Words are compared in Unicode's composed form (NFC), in lower case, and with one
kind of apostrophe and hyphen. Scripts that write without spaces (Chinese, Japanese, Thai) count a run as one word.

A sentence ends with `.`, `!`, `?` or `…` before white space or at the end, with the full-width forms anywhere, or with
an empty line. What contains no word is no sentence. Abbreviations are not recognised: "Dr. Who" is two sentences.
"""

import functools
import re
import sys
import unicodedata
from collections import Counter

from pydantic import Field

from execution_service.handlers.schema import HandlerModel
from headrace.tasks import task

TEXT_CHARACTERS_MAX = 4 * 1024 * 1024
TOP_WORDS = 10

_EXAMPLE = "The mill turns. The water doesn't stop, and the mill-wheel turns on!"
_ONE_APOSTROPHE = str.maketrans({"\u2019": "'", "\u2010": "-", "\u2011": "-"})
_SENTENCE_END = re.compile(
    r"""[.!?\u2026]+["'\u201d\u2019)\]\u00bb]*(?=\s|\Z)"""
    r"""|[\u3002\uff01\uff1f]+["\u201d\u300d\u300f\uff09]*"""
    r"""|\n[^\S\n]*\n"""
)


class WordCountData(HandlerModel):
    text: str = Field(
        max_length=TEXT_CHARACTERS_MAX, description="The text to be counted, of any script.", examples=[_EXAMPLE]
    )


class WordFrequency(HandlerModel):
    word: str = Field(description="The word in lower case.", examples=["the"])
    count: int = Field(ge=1, description="How often it occurs.", examples=[3])


class WordCountResult(HandlerModel):
    characters: int = Field(ge=0, description="Unicode code points of the text as it came.", examples=[68])
    words: int = Field(ge=0, description="All words.", examples=[12])
    sentences: int = Field(ge=0, description="Sentences that contain at least one word.", examples=[2])
    unique_words: int = Field(ge=0, description="Different words, without regard to case.", examples=[9])
    top_words: list[WordFrequency] = Field(
        max_length=TOP_WORDS, description="The most frequent words, ties in the order of their code points."
    )


@task("word_count", timeout=60, examples=[{"text": _EXAMPLE}])
def word_count(data: WordCountData) -> WordCountResult:
    """Count the characters, words and sentences of a text."""
    return count_words(data.text)


def count_words(text: str) -> WordCountResult:
    """Return the counts of a text; see the module's text for what counts as what."""
    find_words = _word_pattern().findall
    frequencies: Counter[str] = Counter()
    sentences = 0
    comparable = unicodedata.normalize("NFC", text.lower()).translate(_ONE_APOSTROPHE)
    for sentence in _SENTENCE_END.split(comparable):
        if words := find_words(sentence):
            sentences += 1
            frequencies.update(words)
    top = sorted(frequencies.items(), key=lambda item: (-item[1], item[0]))[:TOP_WORDS]
    return WordCountResult(
        characters=len(text),
        words=frequencies.total(),
        sentences=sentences,
        unique_words=len(frequencies),
        top_words=[WordFrequency(word=word, count=count) for word, count in top],
    )


@functools.cache
def _word_pattern() -> re.Pattern[str]:
    # Python's \w knows letters and digits but not the marks that many scripts write vowels with.
    part = rf"(?:[^\W_]|[{_combining_marks()}])+"
    return re.compile(rf"\d+(?:[.,]\d+)+(?![^\W_])|{part}(?:['-]{part})*")


def _combining_marks() -> str:
    """Return the body of a character class of all combining marks."""
    ranges: list[list[int]] = []
    # Marks begin with U+0300 and end before U+1F000, but for the variation selectors of plane 14.
    for start, stop in ((0x300, 0x1F000), (0xE0100, 0xE01F0)):
        for code in range(start, min(stop, sys.maxunicode)):
            if unicodedata.category(chr(code))[0] == "M":
                if ranges and ranges[-1][1] == code - 1:
                    ranges[-1][1] = code
                else:
                    ranges.append([code, code])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)
