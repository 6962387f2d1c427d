"""What counts as a character, a word and a sentence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execution_service.handlers.word_count import count_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("   \n\t ", []),
        ("one", ["one"]),
        ("don't stop", ["don't", "stop"]),
        ("don’t", ["don't"]),
        ("'quoted'", ["quoted"]),
        ("mother-in-law - yes", ["mother-in-law", "yes"]),
        ("snake_case", ["snake", "case"]),
        ("3.14 and 1,000,000", ["3.14", "and", "1,000,000"]),
        ("v1.2b", ["v1", "2b"]),
        ("naïve Straße", ["naïve", "straße"]),
        ("cafe\u0301", ["café"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("привет, мир", ["привет", "мир"]),
        ("你好世界", ["你好世界"]),
        ("🙂 …", []),
    ],
)
def test_words_are_found_in_any_script(text: str, words: list[str]) -> None:
    result = count_words(text)
    assert result.words == len(words)
    assert sorted(item.word for item in result.top_words) == sorted(set(words))


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", 0),
        ("... !!! ?", 0),
        ("No end", 1),
        ("One. Two! Three? Four…", 4),
        ("Really?! Yes.", 2),
        ('He said "stop." Then he left.', 2),
        ("It costs 3.50 today", 1),
        ("see example.com for more", 1),
        ("A title\n\nA paragraph. And more", 3),
        ("one line\nsame sentence.", 1),
        ("你好。再见！", 2),
        ("Dr. Who", 2),
    ],
)
def test_sentences_end_where_the_rule_says(text: str, sentences: int) -> None:
    assert count_words(text).sentences == sentences


def test_the_ten_most_frequent_words_come_first_and_ties_by_alphabet() -> None:
    result = count_words("b a B a c " + " ".join(f"x{i:02}" for i in range(20)))
    assert [(item.word, item.count) for item in result.top_words[:4]] == [("a", 2), ("b", 2), ("c", 1), ("x00", 1)]
    assert len(result.top_words) == 10
    assert result.unique_words == 23


def test_characters_are_those_of_the_text_as_it_came() -> None:
    assert count_words("cafe\u0301 İ").characters == 7


@given(st.text())
def test_any_text_has_counts_that_agree(text: str) -> None:
    result = count_words(text)
    assert result.characters == len(text)
    assert result.unique_words <= result.words
    assert (result.sentences == 0) == (result.words == 0)
    assert sum(item.count for item in result.top_words) <= result.words
    assert result.sentences <= result.words
