"""Task type `word_count`: counts characters, words and sentences of a text, and estimates the time to read it.

What a word and a sentence is stands in `words.py`. In Chinese, Japanese, Thai, Lao, Khmer and Burmese, which put no
spaces between words, single characters are counted as words; the result says how many of its words are such. Words are
compared in lower case, in Unicode's composed form (NFC), and with one kind of apostrophe and hyphen.

The reading time is that of an adult, from means of published studies; most adults are within a third of it:

- words: 238 a minute, silent reading of English non-fiction (M. Brysbaert, "How many words do we read per minute?",
  Journal of Memory and Language 109, 2019);
- Chinese characters: 255 a minute, and characters of Japanese, which is a text with Hiragana: 357 (S. Trauzettel-
  Klosinski and K. Dietz, "Standardized Assessment of Reading Performance", Investigative Ophthalmology & Visual
  Science 53, 2012, table 2; measured reading aloud);
- characters of the scripts of South East Asia: 68 ms each, as in the alphabetic languages of that study.
"""

import heapq
from collections import Counter

from pydantic import Field

from execution_service.handlers.schema import HandlerModel
from execution_service.handlers.words import Writing, find_words, folded, segments, writing
from headrace.tasks import task

TEXT_CHARACTERS_MAX = 4 * 1024 * 1024
TOP_WORDS = 10
TOP_WORDS_MAX = 100
# Longer "words" are data. One of them alone could be more than a result may hold.
LISTED_CHARACTERS_MAX = 200

_WORD_SECONDS = 60 / 238
_CHINESE_SECONDS = 60 / 255
_JAPANESE_SECONDS = 60 / 357
_LETTER_SECONDS = 0.068

_EXAMPLES = (
    {"text": "The mill turns. The water doesn't stop, and the mill-wheel turns on!", "top": 3},
    {"text": "水车转动。水不停，水车也不停。"},
)


class WordCountData(HandlerModel):
    text: str = Field(
        max_length=TEXT_CHARACTERS_MAX,
        description="The text to be counted, in any language.",
        examples=[_EXAMPLES[0]["text"]],
    )
    top: int = Field(
        default=TOP_WORDS, ge=1, le=TOP_WORDS_MAX, description="How many frequent words to list.", examples=[3]
    )


class WordFrequency(HandlerModel):
    word: str = Field(
        max_length=LISTED_CHARACTERS_MAX,
        description=f"The word in lower case; its first {LISTED_CHARACTERS_MAX} characters.",
        examples=["the"],
    )
    count: int = Field(ge=1, description="How often it occurs.", examples=[3])


class WordCountResult(HandlerModel):
    characters: int = Field(ge=0, description="Unicode code points of the text as it came.", examples=[68])
    words: int = Field(ge=0, description="All words.", examples=[12])
    characters_as_words: int = Field(
        ge=0,
        description="Those of the words that are single characters of a script without spaces: Chinese, Thai …",
        examples=[0],
    )
    sentences: int = Field(ge=0, description="Sentences that contain at least one word.", examples=[2])
    unique_words: int = Field(ge=0, description="Different words, without regard to case.", examples=[9])
    top_words: list[WordFrequency] = Field(
        max_length=TOP_WORDS_MAX,
        description="The most frequent words, ties in the order of their code points.",
        examples=[[{"word": "the", "count": 3}, {"word": "turns", "count": 2}, {"word": "and", "count": 1}]],
    )
    reading_seconds: float = Field(
        ge=0, allow_inf_nan=False, description="How long an adult reads, on average.", examples=[3.0]
    )


@task("word_count", timeout=60, examples=_EXAMPLES)
def word_count(data: WordCountData) -> WordCountResult:
    """Count the characters, words and sentences of a text, and estimate how long it takes to read."""
    return count_words(data.text, top=data.top)


def count_words(text: str, *, top: int = TOP_WORDS) -> WordCountResult:
    """Return the counts of a text; see the module's text for what counts as what."""
    written: Counter[str] = Counter()
    sentences = 0
    for segment in segments(text):
        if words := find_words(segment):
            sentences += 1
            written.update(words)
    frequencies: Counter[str] = Counter()
    writings: Counter[Writing] = Counter()
    for word, count in written.items():
        frequencies[folded(word)] += count
        writings[writing(word)] += count
    total = written.total()
    return WordCountResult(
        characters=len(text),
        words=total,
        characters_as_words=total - writings[Writing.WORD],
        sentences=sentences,
        unique_words=len(frequencies),
        top_words=[
            WordFrequency(word=word[:LISTED_CHARACTERS_MAX], count=count)
            for word, count in heapq.nsmallest(top, frequencies.items(), key=lambda item: (-item[1], item[0]))
        ],
        reading_seconds=round(reading_seconds(writings), 1),
    )


def reading_seconds(writings: Counter[Writing]) -> float:
    """Return how long it takes to read so many words of each writing."""
    is_japanese = writings[Writing.HIRAGANA] > 0
    return (
        writings[Writing.WORD] * _WORD_SECONDS
        + (writings[Writing.IDEOGRAPH] + writings[Writing.HIRAGANA])
        * (_JAPANESE_SECONDS if is_japanese else _CHINESE_SECONDS)
        + writings[Writing.LETTER] * _LETTER_SECONDS
    )
