"""Task type `text_summarization`: the most central sentences of a text, in their order.

By continuous LexRank (G. Erkan and D. R. Radev, "LexRank: Graph-based Lexical Centrality as Salience in Text
Summarization", Journal of Artificial Intelligence Research 22, 2004, section 3.3): sentences recommend each other by
the cosine of their idf-weighted words, and the score of a sentence is its share of a random walk that follows
recommendations, and begins anew at any sentence with probability 0.15, and where nothing recommends another. The scores
of a text add up to 1. As in TextRank (R. Mihalcea and P. Tarau, EMNLP 2004), and other than in that paper, no sentence
recommends itself: one that has nothing to do with the rest would score above many that have.

A word's idf is log(N/n), with N the sentences of the text and n those that hold the word: what stands in every
sentence says nothing about any, so no list of stop words is needed, in no language. What words and sentences are
stands in `words.py`. A sentence that repeats an earlier one word for word counts once. Of equal scores the earlier
sentence goes first.

The matrix S of cosines is never built: with A the matrix of sentences by words, rows of length 1, it is A·Aᵀ without
its diagonal, and a step of the walk needs no more than A·(Aᵀ·x) - x. Time and memory grow with the length of the text,
not with its square.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Self, TypeAlias

from pydantic import ConfigDict, Field, model_validator

from execution_service.handlers.absent import Absent, without_default
from execution_service.handlers.schema import HandlerModel
from execution_service.handlers.words import find_words, folded, sentences
from headrace.tasks import task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[np.float64]

TEXT_CHARACTERS_MAX = 512 * 1024
SENTENCES_MAX = 1000
SENTENCES_DEFAULT = 3
RESTART = 0.15
# Each step brings the walk closer to its end by the factor 1 - RESTART at least, from a distance of at most 2.
_TOLERANCE = 1e-11
_STEPS_MAX = math.ceil(math.log(_TOLERANCE / 2, 1 - RESTART))
# More than the rounding errors of a sentence that shares no word with another.
_SIMILARITY_MIN = 1e-9

_EXAMPLES = (
    {
        "text": "Mills need water. A headrace leads water from the river to the wheel of the mill. My neighbour sings. "
        "The wheel turns the stone. When the river freezes, no water comes to the wheel, and the mill stands still.",
        "sentences": 2,
    },
    {"text": "水车转动。村里的磨坊靠水车。今天下雨。没有河水，水车就不转动，磨坊也停。", "ratio": 0.5},
)

Ratio = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class SummarizationData(HandlerModel):
    # Says in the schema what the validator checks, so that a client hears of it when it submits.
    model_config = ConfigDict(json_schema_extra={"dependentSchemas": {"ratio": {"properties": {"sentences": False}}}})

    text: str = Field(
        min_length=1,
        max_length=TEXT_CHARACTERS_MAX,
        description="The text to be summarized, in any language.",
        examples=[_EXAMPLES[0]["text"]],
    )
    sentences: int = Field(
        default=SENTENCES_DEFAULT,
        ge=1,
        le=SENTENCES_MAX,
        description="How many sentences the summary has; all, if the text has fewer.",
        examples=[2],
    )
    ratio: Ratio | Absent = Field(
        default=None,
        description=f"Instead of `sentences`: which share of the sentences the summary has, rounded up, and at most "
        f"{SENTENCES_MAX} of them.",
        examples=[0.3],
        json_schema_extra=without_default,
    )

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.model_fields_set >= {"sentences", "ratio"}:
            raise ValueError("only one of `sentences` and `ratio` can be given")
        return self


class CentralSentence(HandlerModel):
    index: int = Field(ge=0, description="Its place among the sentences of the text, from 0.", examples=[1])
    score: float = Field(
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Its share of the random walk: how central it is.",
        examples=[0.338198],
    )
    text: str = Field(
        max_length=TEXT_CHARACTERS_MAX,
        description="The sentence, with single spaces.",
        examples=["A headrace leads water from the river to the wheel of the mill."],
    )


class SummarizationResult(HandlerModel):
    summary: str = Field(
        max_length=TEXT_CHARACTERS_MAX + SENTENCES_MAX,
        description="The sentences, one on each line.",
        examples=[
            "A headrace leads water from the river to the wheel of the mill.\nWhen the river freezes, no water …"
        ],
    )
    sentences: list[CentralSentence] = Field(
        max_length=SENTENCES_MAX, description="The most central sentences, in the order of the text."
    )
    sentence_count: int = Field(ge=0, description="How many sentences the text has.", examples=[5])


@task("text_summarization", timeout=60, examples=_EXAMPLES)
def text_summarization(data: SummarizationData) -> SummarizationResult:
    """Pick the most central sentences of a text (LexRank), in their order."""
    return summarize(data.text, count=data.sentences, ratio=data.ratio)


def summarize(text: str, *, count: int = SENTENCES_DEFAULT, ratio: float | None = None) -> SummarizationResult:
    """Return the `count` most central sentences, or that share of all; see the module's text."""
    found = [" ".join(sentence.split()) for sentence in sentences(text)]
    # Of sentences of the same words the first stands for all.
    first: dict[tuple[str, ...], int] = {}
    for index, sentence in enumerate(found):
        first.setdefault(tuple(map(folded, find_words(sentence))), index)
    if ratio is not None:
        # A share like 0.1 of 30 is a little more than 3 in floating point, and means 3.
        count = min(SENTENCES_MAX, math.ceil(round(ratio * len(found), 6)))
    # Rounded to six digits, so that sentences alike are not told apart by the order in which their words were added.
    scores = [float(f"{score:.6g}") for score in centrality(list(first))]
    ranked = sorted(zip(first.values(), scores, strict=True), key=lambda item: (-item[1], item[0]))
    central = [CentralSentence(index=index, score=score, text=found[index]) for index, score in sorted(ranked[:count])]
    return SummarizationResult(
        summary="\n".join(sentence.text for sentence in central), sentences=central, sentence_count=len(found)
    )


def centrality(sentences: Sequence[Sequence[str]]) -> list[float]:
    """Return the LexRank score of each sentence, given as its words. Scores are positive and add up to 1."""
    import numpy as np

    if not sentences:
        return []
    size = len(sentences)
    rows, columns, values = weights(sentences)

    def similar(x: "Array") -> "Array":
        """S·x: to the words, back to the sentences, and less what each would give itself."""
        by_word = np.bincount(columns, values * x[rows])
        by_sentence: Array = np.bincount(rows, values * by_word[columns]) - x
        return by_sentence

    total = similar(np.ones(size))
    alone = total < _SIMILARITY_MIN
    total[alone] = np.inf
    scores = np.full(size, 1 / size)
    for _ in range(_STEPS_MAX):
        anew = RESTART + (1 - RESTART) * float(scores[alone].sum())
        # S is symmetric: the transposed matrix of the walk times x is S·(x/total).
        after = anew / size + (1 - RESTART) * np.where(alone, 0, similar(scores / total))
        moved = float(np.abs(after - scores).sum())
        scores = after
        if moved < _TOLERANCE:
            break
    return [float(score) for score in scores]


def weights(sentences: Sequence[Sequence[str]]) -> tuple["NDArray[np.int64]", "NDArray[np.int64]", "Array"]:
    """Return the entries of A as rows, columns and values: tf·idf of each word of each sentence, rows of length 1."""
    import numpy as np

    numbers: dict[str, int] = {}
    tokens = [numbers.setdefault(word, len(numbers)) for sentence in sentences for word in sentence]
    owners = np.repeat(np.arange(len(sentences)), [len(sentence) for sentence in sentences])
    # One entry for each word of each sentence, however often it occurs there.
    places, frequency = np.unique(owners * len(numbers) + np.asarray(tokens, dtype=np.int64), return_counts=True)
    rows, columns = np.divmod(places, len(numbers))
    idf = np.log(len(sentences) / np.bincount(columns))
    values = frequency * idf[columns]
    length = np.sqrt(np.bincount(rows, values**2))[rows]
    return rows, columns, np.divide(values, length, out=np.zeros_like(values), where=length > 0)
