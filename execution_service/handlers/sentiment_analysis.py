"""Task type `sentiment_analysis`: says how positive or negative an English text is, as a whole and by sentence.

The scores are those of VADER (C. J. Hutto and E. Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment
Analysis of Social Media Text", ICWSM 2014): a lexicon of English words, slang, emoticons and emoji with rules for
negation, emphasis and contrast. Other languages are not known to it: their words count as neutral, but for those that
are also English ones (a German article, "die", counts as negative).

- compound: the sum of the valences, normalised to the range from -1 to 1. A sentence is positive from 0.05 on,
  negative from -0.05 down, and neutral between, which are the thresholds that the authors publish.
- positive, neutral, negative: the shares of the sentence that fall into each kind; together about 1.
- The scores of the text are the means over its sentences, as the authors advise for more than one sentence.

VADER takes time that grows with the square of what it is given, so a sentence of more than 100 words is scored in
parts of 100, each as a sentence of its own. An emoji counts as six words here, as VADER reads it by its name.
"""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

from pydantic import Field

from execution_service.handlers.schema import HandlerModel
from execution_service.handlers.words import segments
from headrace.tasks import TaskContext, task

if TYPE_CHECKING:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

# The slowest text, of nothing but emoji, takes 5 s then; prose, a tenth of a second.
TEXT_CHARACTERS_MAX = 64 * 1024
SENTENCES_LISTED_MAX = 500
THRESHOLD = 0.05
PART_WORDS_MAX = 100
_EMOJI_WORDS = 6
_LOOK_EVERY = 100

# Everything that VADER's list of emoji holds is in here, and little else.
EMOJI = "\u00a9\u00ae\u203c-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
_UNIT = re.compile(rf"(?P<emoji>[{EMOJI}])|[^\s{EMOJI}]++")

_EXAMPLES = (
    {"text": "The new mill is wonderful! Only the old wheel is broken. Everyone here is very happy now :)"},
    {"text": "I do NOT like the noise!!! 😢"},
)


class Label(StrEnum):
    """What the compound score says."""

    POSITIVE = "positive"
    NEUTRAL = "neutral"
    NEGATIVE = "negative"


class SentimentData(HandlerModel):
    text: str = Field(
        min_length=1,
        max_length=TEXT_CHARACTERS_MAX,
        description="The text, in English. Emoticons, emoji, capitals and exclamation marks count.",
        examples=[_EXAMPLES[0]["text"]],
    )


class Sentiment(HandlerModel):
    label: Label = Field(
        description="`positive` from a compound score of 0.05 on, `negative` from -0.05 down, else `neutral`.",
        examples=["positive"],
    )
    compound: float = Field(
        ge=-1, le=1, allow_inf_nan=False, description="The sentiment, from -1 to 1.", examples=[0.6114]
    )
    positive: float = Field(ge=0, le=1, allow_inf_nan=False, description="Share that is positive.", examples=[0.48])
    neutral: float = Field(ge=0, le=1, allow_inf_nan=False, description="Share that is neutral.", examples=[0.52])
    negative: float = Field(ge=0, le=1, allow_inf_nan=False, description="Share that is negative.", examples=[0.0])


class SentenceSentiment(Sentiment):
    text: str = Field(
        max_length=TEXT_CHARACTERS_MAX, description="The sentence.", examples=["The new mill is wonderful!"]
    )


class SentimentResult(Sentiment):
    """The means over all sentences; all 0 and neutral for a text without any."""

    sentence_count: int = Field(ge=0, description="How many sentences the text has.", examples=[3])
    sentences: list[SentenceSentiment] = Field(
        max_length=SENTENCES_LISTED_MAX, description=f"The first {SENTENCES_LISTED_MAX} sentences, in their order."
    )
    truncated: bool = Field(description="Whether there are more sentences than are listed.", examples=[False])


class AnalysisStoppedError(Exception):
    """The attempt was cancelled."""


@task("sentiment_analysis", timeout=60, examples=_EXAMPLES)
def sentiment_analysis(data: SentimentData, context: TaskContext) -> SentimentResult:
    """Say how positive or negative an English text is, as a whole and by sentence (VADER)."""
    parts = [part for segment in segments(data.text) for part in scored_parts(segment)]
    scores: list[Mapping[str, float]] = []
    for number, part in enumerate(parts):
        if number % _LOOK_EVERY == 0:
            if context.cancelled:
                raise AnalysisStoppedError
            context.progress(number / len(parts), f"{number} of {len(parts)} sentences")
        scores.append(analyzer().polarity_scores(part))
    overall = mean_scores(scores)
    return SentimentResult(
        label=label(overall["compound"]),
        compound=overall["compound"],
        positive=overall["pos"],
        neutral=overall["neu"],
        negative=overall["neg"],
        sentence_count=len(parts),
        sentences=[
            SentenceSentiment(
                text=part,
                label=label(score["compound"]),
                compound=score["compound"],
                positive=score["pos"],
                neutral=score["neu"],
                negative=score["neg"],
            )
            for part, score in zip(parts[:SENTENCES_LISTED_MAX], scores, strict=False)
        ],
        truncated=len(parts) > SENTENCES_LISTED_MAX,
    )


@functools.cache
def analyzer() -> "SentimentIntensityAnalyzer":
    """Return the analyzer of this process, which reads its lexicon of 7,500 words once."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


def scored_parts(sentence: str) -> Iterator[str]:
    """Yield the sentence as it is scored: as a whole, or in parts of at most 100 words, cut between words."""
    begin = words = 0
    for unit in _UNIT.finditer(sentence):
        cost = _EMOJI_WORDS if unit["emoji"] else 1
        if words + cost > PART_WORDS_MAX:
            yield sentence[begin : unit.start()].rstrip()
            begin, words = unit.start(), 0
        words += cost
    yield sentence[begin:]


def label(compound: float) -> Label:
    """Return what a compound score says, by the published thresholds."""
    if compound >= THRESHOLD:
        return Label.POSITIVE
    return Label.NEGATIVE if compound <= -THRESHOLD else Label.NEUTRAL


def mean_scores(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the means, with as many digits as VADER gives each."""
    digits = {"compound": 4, "pos": 3, "neu": 3, "neg": 3}
    count = max(1, len(scores))
    return {name: round(sum(score[name] for score in scores) / count, places) for name, places in digits.items()}
