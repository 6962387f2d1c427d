"""What is counted, how it is listed, and how long it takes to read."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from execution_service.handlers.word_count import (
    LISTED_CHARACTERS_MAX,
    TEXT_CHARACTERS_MAX,
    WordCountData,
    count_words,
    word_count,
)
from headrace.tasks import definition_of

# Article 1 of the Universal Declaration of Human Rights, in the translations that the United Nations publish.
_RIGHTS = {
    "en": "All human beings are born free and equal in dignity and rights. They are endowed with reason and "
    "conscience and should act towards one another in a spirit of brotherhood.",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen "
    "begabt und sollen einander im Geiste der Brüderlichkeit begegnen.",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de "
    "conscience et doivent agir les uns envers les autres dans un esprit de fraternité.",
    "ar": "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق. وقد وهبوا عقلاً وضميرًا وعليهم أن يعامل بعضهم بعضًا "
    "بروح الإخاء.",
    "hi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है। उन्हें बुद्धि और अन्तरात्मा "
    "की देन प्राप्त है और परस्पर उन्हें भाईचारे के भाव से बर्ताव करना चाहिए।",
    "zh": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",
    "ja": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。人間は、理性と良心とを"
    "授けられており、互いに同胞の精神をもって行動しなければならない。",
    "th": "มนุษย์ทั้งปวงเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
}


@pytest.mark.parametrize(
    ("language", "words", "single", "sentences", "most"),
    [
        ("en", 30, 0, 2, ("and", 4)),
        ("de", 26, 0, 2, ("und", 4)),
        ("fr", 34, 0, 2, ("et", 4)),
        ("ar", 19, 0, 2, ("أحرارًا", 1)),
        ("hi", 33, 0, 2, ("और", 4)),
        ("zh", 39, 39, 2, ("人", 2)),
        ("ja", 78, 78, 2, ("て", 5)),
        ("th", 47, 47, 1, ("ม", 3)),
    ],
)
def test_a_text_of_any_language_is_counted(
    language: str, words: int, single: int, sentences: int, most: tuple[str, int]
) -> None:
    result = count_words(_RIGHTS[language], top=1)
    assert (result.words, result.characters_as_words, result.sentences) == (words, single, sentences)
    assert [(item.word, item.count) for item in result.top_words] == [most]


def test_a_character_of_thai_is_a_letter_with_its_marks() -> None:
    letters = [c for c in _RIGHTS["th"] if unicodedata.category(c) == "Lo"]
    assert count_words(_RIGHTS["th"]).words == len(letters)


def test_the_most_frequent_words_come_first_and_ties_by_code_point() -> None:
    text = "b a B a c " + " ".join(f"x{i:02}" for i in range(20))
    result = count_words(text)
    assert [(item.word, item.count) for item in result.top_words[:4]] == [("a", 2), ("b", 2), ("c", 1), ("x00", 1)]
    assert len(result.top_words) == 10
    assert result.unique_words == 23
    assert [item.word for item in count_words(text, top=2).top_words] == ["a", "b"]
    assert len(count_words(text, top=100).top_words) == 23


def test_spellings_of_a_word_are_counted_together() -> None:
    result = count_words("Don't don’t DON'T, well-known well\u2010known, café cafe\u0301, co\u00adoperate cooperate")
    assert {item.word: item.count for item in result.top_words} == {
        "don't": 3,
        "well-known": 2,
        "café": 2,
        "cooperate": 2,
    }


def test_characters_are_those_of_the_text_as_it_came() -> None:
    assert count_words("cafe\u0301 İ").characters == 7


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", 0.0),
        ("word " * 238, 60.0),
        ("水" * 255, 60.0),
        ("水" * 200 + "の" * 157, 60.0),
        ("ก" * 1000, 68.0),
        ("word " * 119 + "水" * 255, 90.0),
    ],
)
def test_the_time_to_read_is_that_of_the_studies(text: str, seconds: float) -> None:
    assert count_words(text).reading_seconds == seconds


def test_a_word_as_long_as_the_text_may_be_is_cut_in_the_list_and_can_be_stored() -> None:
    result = count_words("é" * TEXT_CHARACTERS_MAX)
    assert (result.words, result.sentences) == (1, 1)
    assert result.top_words[0].word == "é" * LISTED_CHARACTERS_MAX
    assert len(definition_of(word_count).encode(result)) < 1000


@pytest.mark.parametrize("top", [0, 101, 1.0, True, "3", None])
def test_how_many_words_are_listed_is_a_number_from_1_to_100(top: object) -> None:
    with pytest.raises(ValidationError, match="top"):
        WordCountData.model_validate({"text": "one", "top": top})


_TEXTS = st.text(st.sampled_from("aAb é\u0301B1 2.,!?'- \n水の。カก้🙂"), max_size=60)


@given(st.text() | _TEXTS, st.integers(1, 100))
def test_any_text_has_counts_that_agree(text: str, top: int) -> None:
    result = count_words(text, top=top)
    assert result.characters == len(text)
    assert result.unique_words <= result.words
    assert result.characters_as_words <= result.words
    assert (result.sentences == 0) == (result.words == 0) == (result.unique_words == 0)
    assert result.sentences <= result.words
    assert len(result.top_words) == min(top, result.unique_words)
    counts = [item.count for item in result.top_words]
    assert counts == sorted(counts, reverse=True)
    assert (sum(counts) == result.words) == (result.unique_words <= top)


@given(_TEXTS, _TEXTS)
def test_counts_of_two_texts_add_up(first: str, second: str) -> None:
    one, two, both = (count_words(text, top=100) for text in (first, second, f"{first}\n\n{second}"))
    assert both.words == one.words + two.words
    assert both.characters_as_words == one.characters_as_words + two.characters_as_words
    assert both.sentences == one.sentences + two.sentences
    assert max(one.unique_words, two.unique_words) <= both.unique_words <= one.unique_words + two.unique_words
    counts = {item.word: item.count for item in both.top_words}
    for result in (one, two):
        for item in result.top_words:
            counts[item.word] -= item.count
    assert not any(counts.values())
