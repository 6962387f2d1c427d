"""The sentences that others are about are found, in their order, in any language."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from execution_service.handlers.text_summarization import (
    RESTART,
    SENTENCES_MAX,
    TEXT_CHARACTERS_MAX,
    SummarizationData,
    centrality,
    summarize,
    text_summarization,
)
from execution_service.handlers.words import sentences
from headrace.tasks import definition_of

# Abraham Lincoln, 19 November 1863, the Bliss copy; public domain.
_GETTYSBURG = """\
Four score and seven years ago our fathers brought forth on this continent, a new nation, conceived in Liberty, and
dedicated to the proposition that all men are created equal.

Now we are engaged in a great civil war, testing whether that nation, or any nation so conceived and so dedicated, can
long endure. We are met on a great battle-field of that war. We have come to dedicate a portion of that field, as a
final resting place for those who here gave their lives that that nation might live. It is altogether fitting and
proper that we should do this.

But, in a larger sense, we can not dedicate—we can not consecrate—we can not hallow—this ground. The brave men, living
and dead, who struggled here, have consecrated it, far above our poor power to add or detract. The world will little
note, nor long remember what we say here, but it can never forget what they did here. It is for us the living, rather,
to be dedicated here to the unfinished work which they who fought here have thus far so nobly advanced. It is rather
for us to be here dedicated to the great task remaining before us—that from these honored dead we take increased
devotion to that cause for which they gave the last full measure of devotion—that we here highly resolve that these
dead shall not have died in vain—that this nation, under God, shall have a new birth of freedom—and that government of
the people, by the people, for the people, shall not perish from the earth.
"""

# In each, one sentence has nothing to do with the mill by the river.
_MILLS = {
    "en": (
        "The river drives the wheel. The wheel drives the mill. My aunt sings. Without river and wheel the mill stands."
    ),
    "de": (
        "Der Fluss treibt das Rad. Das Rad treibt die Mühle. Meine Tante singt. Ohne Fluss und Rad steht die Mühle."
    ),
    "fr": (
        "La rivière entraîne la roue. La roue entraîne le moulin. Ma tante chante. Sans rivière et sans roue, le "
        "moulin s'arrête."
    ),
    "ar": ("النهر يدير العجلة. العجلة تدير الطاحونة. عمتي تغني. بدون النهر و العجلة تقف الطاحونة."),
    "hi": ("नदी पहिया चलाती है। पहिया चक्की चलाता है। मौसी गाती रहीं। नदी और पहिया न हों तो चक्की रुकती है।"),
    "zh": "河水推动水车。水车推动磨坊。姑姑唱歌。没有河水和水车，磨坊不动。",
    "ja": "川が水車を回す。水車が石臼を回す。おば、うたう。川と水車がないと石臼は回らない。",
    "th": ("แม่น้ำหมุนกังหัน\n\nกังหันหมุนโรงสี\n\nเธอจะฝัน\n\nไม่มีแม่น้ำกังหันโรงสีก็ไม่หมุน"),
}


@pytest.mark.parametrize("language", _MILLS)
def test_what_has_nothing_to_do_with_the_rest_is_left_out(language: str) -> None:
    result = summarize(_MILLS[language], count=3)
    assert [sentence.index for sentence in result.sentences] == [0, 1, 3]
    assert result.summary.count("\n") == 2
    assert result.sentence_count == 4


def test_a_speech_is_summarized_by_what_it_is_about() -> None:
    result = summarize(_GETTYSBURG, count=3)
    assert result.sentence_count == 10
    assert [sentence.index for sentence in result.sentences] == [1, 8, 9]
    first, second, last = (sentence.text for sentence in result.sentences)
    assert first.startswith("Now we are engaged in a great civil war, testing whether that nation")
    assert second.startswith("It is for us the living")
    assert last.endswith("shall not perish from the earth.")
    assert result.summary == "\n".join((first, second, last))


@pytest.mark.parametrize(
    ("ratio", "count"), [(0.000001, 1), (0.1, 1), (0.3, 3), (0.31, 4), (0.5, 5), (0.999, 10), (1, 10)]
)
def test_a_share_of_the_sentences_is_rounded_up(ratio: float, count: int) -> None:
    assert len(summarize(_GETTYSBURG, ratio=ratio).sentences) == count


def test_a_share_is_not_rounded_up_for_what_floating_point_adds() -> None:
    assert 0.07 * 100 > 7
    assert len(summarize(" ".join(f"Word{n}!" for n in range(100)), ratio=0.07).sentences) == 7


def test_a_text_with_fewer_sentences_comes_back_whole() -> None:
    result = summarize("One mill.  Two\nmills.", count=5)
    assert result.summary == "One mill.\nTwo mills."
    assert [(sentence.index, sentence.text) for sentence in result.sentences] == [(0, "One mill."), (1, "Two mills.")]


def test_a_text_without_words_has_an_empty_summary() -> None:
    result = summarize("🙂 ...")
    assert (result.summary, result.sentences, result.sentence_count) == ("", [], 0)


def test_a_repeated_sentence_counts_once() -> None:
    result = summarize("Buy now! The mill turns. BUY now. The water turns the mill. Buy now!", count=5)
    assert [sentence.index for sentence in result.sentences] == [0, 1, 3]
    assert result.sentence_count == 5


def test_of_equal_sentences_the_earlier_goes_first() -> None:
    text = "Mill one. River two. Wheel three. One mill. Two river. Three wheel."
    assert [sentence.index for sentence in summarize(text, count=4).sentences] == [0, 1, 2, 3]
    assert len({sentence.score for sentence in summarize(text, count=6).sentences}) == 1


def test_the_longest_text_is_summarized_and_the_result_can_be_stored() -> None:
    text = "".join(f"{chr(0x4E00 + n % 5000)}{chr(0x4E00 + n % 4999)}。" for n in range(TEXT_CHARACTERS_MAX // 3))
    result = summarize(text, ratio=1)
    assert len(result.sentences) == SENTENCES_MAX
    assert result.sentence_count == TEXT_CHARACTERS_MAX // 3
    # Sentences without a space between them: the line ends of the summary come on top of the text's length.
    length = TEXT_CHARACTERS_MAX // SENTENCES_MAX
    full = "".join(f"{chr(0x4E00 + n)}。".rjust(length, "水") for n in range(SENTENCES_MAX))
    longest = summarize(full.ljust(TEXT_CHARACTERS_MAX, "。"), ratio=1)
    assert len(longest.summary) == TEXT_CHARACTERS_MAX + SENTENCES_MAX - 1
    assert definition_of(text_summarization).encode(longest)


@pytest.mark.parametrize(
    "more",
    [
        {"sentences": 0},
        {"sentences": 1001},
        {"ratio": 0},
        {"ratio": 1.01},
        {"ratio": math.nan},
        {"sentences": 3, "ratio": 0.5},
    ],
    ids=str,
)
def test_one_length_is_given_and_within_bounds(more: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SummarizationData.model_validate({"text": "One.", **more})


_SENTENCES = st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6), min_size=1, max_size=8)


def _reference(texts: list[list[str]]) -> list[float]:
    """Centrality by the book: the whole matrix of cosines, and the walk's equation solved instead of walked."""
    size = len(texts)
    vocabulary = sorted({word for text in texts for word in text})
    frequency = np.array([[text.count(word) for word in vocabulary] for text in texts], dtype=np.float64)
    vectors = frequency * np.log(size / np.count_nonzero(frequency, axis=0))
    lengths = np.linalg.norm(vectors, axis=1)
    cosines = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            if i != j and lengths[i] and lengths[j]:
                cosines[i, j] = vectors[i] @ vectors[j] / (lengths[i] * lengths[j])
    steps = np.array([row / row.sum() if row.any() else np.full(size, 1 / size) for row in cosines])
    solved = np.linalg.solve(np.eye(size) - (1 - RESTART) * steps.T, np.full(size, RESTART / size))
    return [float(score) for score in solved]


@given(_SENTENCES)
def test_scores_are_those_of_the_random_walk(texts: list[list[str]]) -> None:
    scores = centrality(texts)
    assert scores == pytest.approx(_reference(texts), abs=1e-9)
    assert sum(scores) == pytest.approx(1)


@given(st.text(st.sampled_from("abc de.!?\n水。🙂"), max_size=120), st.integers(1, 12))
def test_a_summary_is_a_subsequence_of_the_sentences(text: str, count: int) -> None:
    result = summarize(text, count=count)
    found = [" ".join(sentence.split()) for sentence in sentences(text)]
    indices = [sentence.index for sentence in result.sentences]
    assert indices == sorted(set(indices))
    assert [found[index] for index in indices] == [sentence.text for sentence in result.sentences]
    assert (result.sentences == []) == (found == [])
    assert len(result.sentences) <= count
    longer = summarize(text, count=count + 1)
    assert set(indices) <= {sentence.index for sentence in longer.sentences}


@given(_SENTENCES)
def test_a_sentence_that_shares_no_word_is_never_the_only_one(texts: list[list[str]]) -> None:
    scores = centrality([*texts, ["z"]])
    assert scores[-1] == pytest.approx(min(scores))
