"""Scores are those that the authors of VADER publish; texts made to be slow are not."""

import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execution_service.handlers.sentiment_analysis import (
    EMOJI,
    PART_WORDS_MAX,
    SENTENCES_LISTED_MAX,
    AnalysisStoppedError,
    Label,
    SentimentData,
    SentimentResult,
    analyzer,
    label,
    scored_parts,
    sentiment_analysis,
)
from headrace.tasks import TaskContext


def _analyze(text: str, context: TaskContext | None = None) -> SentimentResult:
    return sentiment_analysis(SentimentData(text=text), context or TaskContext())


# Examples and scores of https://github.com/cjhutto/vaderSentiment/blob/master/README.rst
@pytest.mark.parametrize(
    ("text", "positive", "neutral", "negative", "compound"),
    [
        ("VADER is smart, handsome, and funny.", 0.746, 0.254, 0.0, 0.8316),
        ("VADER is smart, handsome, and funny!", 0.752, 0.248, 0.0, 0.8439),
        ("VADER is very smart, handsome, and funny.", 0.701, 0.299, 0.0, 0.8545),
        ("VADER is VERY SMART, handsome, and FUNNY.", 0.754, 0.246, 0.0, 0.9227),
        ("VADER is VERY SMART, handsome, and FUNNY!!!", 0.767, 0.233, 0.0, 0.9342),
        ("VADER is not smart, handsome, nor funny.", 0.0, 0.354, 0.646, -0.7424),
        ("The book was good.", 0.492, 0.508, 0.0, 0.4404),
        ("At least it isn't a horrible book.", 0.322, 0.678, 0.0, 0.431),
        ("The book was only kind of good.", 0.303, 0.697, 0.0, 0.3832),
        (
            "The plot was good, but the characters are uncompelling and the dialog is not great.",
            0.094,
            0.579,
            0.327,
            -0.7042,
        ),
        ("Today SUX!", 0.0, 0.221, 0.779, -0.5461),
        ("Not bad at all", 0.487, 0.513, 0.0, 0.431),
    ],
)
def test_a_sentence_has_its_published_scores(
    text: str, positive: float, neutral: float, negative: float, compound: float
) -> None:
    result = _analyze(text)
    assert (result.positive, result.neutral, result.negative, result.compound) == (
        positive,
        neutral,
        negative,
        compound,
    )
    assert result.label is (Label.POSITIVE if compound > 0 else Label.NEGATIVE)
    assert (result.sentence_count, result.truncated) == (1, False)
    assert result.sentences[0].text == text
    assert result.sentences[0].compound == compound


@pytest.mark.parametrize(
    ("compound", "expected"),
    [
        (1.0, Label.POSITIVE),
        (0.05, Label.POSITIVE),
        (0.0499, Label.NEUTRAL),
        (0.0, Label.NEUTRAL),
        (-0.0499, Label.NEUTRAL),
        (-0.05, Label.NEGATIVE),
        (-1.0, Label.NEGATIVE),
    ],
)
def test_the_label_follows_the_published_thresholds(compound: float, expected: Label) -> None:
    assert label(compound) is expected


def test_a_text_has_the_mean_of_its_sentences() -> None:
    result = _analyze("The book was good. Today SUX! It is a book.")
    assert [sentence.text for sentence in result.sentences] == ["The book was good.", "Today SUX!", "It is a book."]
    assert [sentence.label for sentence in result.sentences] == [Label.POSITIVE, Label.NEGATIVE, Label.NEUTRAL]
    assert result.compound == round((0.4404 - 0.5461 + 0) / 3, 4)
    assert (result.positive, result.neutral, result.negative) == (
        round(0.492 / 3, 3),
        round((0.508 + 0.221 + 1) / 3, 3),
        round(0.779 / 3, 3),
    )
    assert result.label is Label.NEUTRAL


def test_emoticons_and_emoji_are_scored_with_the_sentence_that_they_follow() -> None:
    result = _analyze("It is a book. :) It is a mill. 😢")
    assert [sentence.text for sentence in result.sentences] == ["It is a book. :)", "It is a mill. 😢"]
    assert [sentence.label for sentence in result.sentences] == [Label.POSITIVE, Label.NEGATIVE]
    assert _analyze("😊").label is Label.POSITIVE


def test_a_text_without_sentences_is_neutral() -> None:
    result = _analyze(" \n ")
    assert (result.label, result.compound, result.sentence_count, result.sentences) == (Label.NEUTRAL, 0.0, 0, [])


def test_the_first_sentences_are_listed_and_all_are_scored() -> None:
    result = _analyze("It is a book. " * SENTENCES_LISTED_MAX + "The book was good.")
    assert (result.sentence_count, result.truncated) == (SENTENCES_LISTED_MAX + 1, True)
    assert len(result.sentences) == SENTENCES_LISTED_MAX
    assert result.positive == round(0.492 / (SENTENCES_LISTED_MAX + 1), 3)


def test_a_long_sentence_is_scored_in_parts() -> None:
    result = _analyze("good " * (2 * PART_WORDS_MAX + 1))
    assert [len(sentence.text.split()) for sentence in result.sentences] == [PART_WORDS_MAX, PART_WORDS_MAX, 1]


@given(st.text(st.sampled_from("ab  \n\t🙂☺\ufe0f!水"), max_size=400), st.integers(1, 100))
def test_parts_hold_all_of_a_sentence_and_few_words(text: str, times: int) -> None:
    sentence = (text * times).strip() or "a"
    parts = list(scored_parts(sentence))
    assert "".join("".join(parts).split()) == "".join(sentence.split())
    assert all(0 < len(part.split()) <= PART_WORDS_MAX for part in parts)
    assert all(6 * len(re.findall(f"[{EMOJI}]", part)) <= PART_WORDS_MAX for part in parts)


def test_no_emoji_that_is_known_escapes_the_count() -> None:
    known = [emoji for emoji in analyzer().emojis if len(emoji) == 1]
    assert len(known) > 1000
    assert [emoji for emoji in known if not re.fullmatch(f"[{EMOJI}]", emoji)] == []
    assert max(len(analyzer().emojis[emoji].split()) for emoji in known) == 6


@pytest.mark.parametrize("unit", ["😂", "😹 ", "not x :) ", "but good ", "l x ", "!", "a", "\u0301", "x! "], ids=ascii)
@pytest.mark.timeout(30)  # 8,192 emoji at once would take minutes
def test_no_text_is_slow(unit: str) -> None:
    result = _analyze(unit * (8192 // len(unit)))
    assert result.sentence_count >= 1


def test_the_lexicon_is_read_once_and_without_an_http_client() -> None:
    code = (
        "import sys; from execution_service.handlers.sentiment_analysis import analyzer; "
        "assert 'vaderSentiment' not in sys.modules; assert analyzer() is analyzer(); "
        "assert 'requests' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_cancelled_analysis_stops_and_a_running_one_tells_how_far_it_is() -> None:
    with pytest.raises(AnalysisStoppedError):
        _analyze("A book.", TaskContext(is_cancelled=lambda: True))
    seen: list[float] = []
    _analyze("A book. " * 400, TaskContext(on_progress=lambda fraction, _: seen.append(fraction)))
    assert seen == [0.0, 0.25, 0.5, 0.75]
