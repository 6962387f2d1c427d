"""What is a word and what is a sentence, in many scripts, and on texts made to be slow."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execution_service.handlers.words import (
    MARKS_MAX,
    Writing,
    find_words,
    folded,
    has_word,
    segments,
    sentences,
    writing,
)

# Letters, marks, digits and the signs that the rules are about, so that random texts are about them too.
_TEXTS = st.text(
    st.sampled_from("aAé\u0301\u0308B1 2٣.,!?…\"'’-_()»«:;🙂\u200d\u00ad\n\r\t\u2029漢の。カー゙ัน้ำ។"), max_size=60
)


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
        ("1.2.3.4a", ["1.2.3", "4a"]),
        ("٣٫١٤ ١٬٠٠٠", ["٣٫١٤", "١٬٠٠٠"]),
        ("naïve Straße", ["naïve", "straße"]),
        ("cafe\u0301", ["café"]),
        ("co\u00adoperate", ["cooperate"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("привет, мир", ["привет", "мир"]),
        ("ΣΊΣΥΦΟΣ", ["σίσυφος"]),
        ("الكِتَابُ جديدٌ", ["الكِتَابُ", "جديدٌ"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("한국어 텍스트", ["한국어", "텍스트"]),
        ("你好，世界", ["你", "好", "世", "界"]),
        ("𠮷野家", ["𠮷", "野", "家"]),
        ("ラーメンを食べる", ["ラーメン", "を", "食", "べ", "る"]),
        ("ﾊﾟﾝ", ["ﾊﾟﾝ"]),
        ("か\u3099く", ["が", "く"]),
        ("น้ำร้อน", ["น้ำ", "ร้", "อ", "น"]),
        ("ปี ๒๕๖๗", ["ปี", "๒๕๖๗"]),
        ("ພາສາ", ["ພ", "າ", "ສ", "າ"]),
        ("ភាសា", ["ភា", "សា"]),
        ("မြန်မာ", ["မြ", "န်", "မာ"]),
        ("PDFを3冊", ["pdf", "を", "3", "冊"]),
        ("𝒜𝓫𝓬", ["𝒜𝓫𝓬"]),
        ("🙂 …", []),
    ],
)
def test_words_are_found_in_any_script(text: str, words: list[str]) -> None:
    assert [folded(word) for word in find_words(text)] == words


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("mill", Writing.WORD),
        ("Mühle", Writing.WORD),
        ("한국어", Writing.WORD),
        ("ミル", Writing.WORD),
        ("๒๕๖๗", Writing.WORD),
        ("水", Writing.IDEOGRAPH),
        ("𠮷", Writing.IDEOGRAPH),
        ("の", Writing.HIRAGANA),
        ("น้ำ", Writing.LETTER),
        ("មែ", Writing.LETTER),
    ],
)
def test_it_is_told_how_a_word_is_written(word: str, kind: Writing) -> None:
    assert find_words(word) == [word]
    assert writing(word) is kind


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("No end", ["No end"]),
        ("One. Two! Three? Four…", ["One.", "Two!", "Three?", "Four…"]),
        ("Really?! Yes...", ["Really?!", "Yes..."]),
        ('He said "stop." Then he left.', ['He said "stop."', "Then he left."]),
        ("„Halt!“ rief er.", ["„Halt!“", "rief er."]),
        ("« Bonjour ! » Il part.", ["« Bonjour ! »", "Il part."]),
        ("Er ging. »Halt!«", ["Er ging.", "»Halt!«"]),
        ("It costs 3.50 today", ["It costs 3.50 today"]),
        ("see example.com for more", ["see example.com for more"]),
        ("A title\n\nA paragraph. And more", ["A title", "A paragraph.", "And more"]),
        ("one\r\n\r\ntwo\r\rthree\n \t\nfour\u2029five", ["one", "two", "three", "four", "five"]),
        ("one line\r\nsame sentence.", ["one line\r\nsame sentence."]),
        ("Dr. Who met Mrs. Bach. Prof. X did not.", ["Dr. Who met Mrs. Bach.", "Prof. X did not."]),
        ("J. S. Bach, e.g. here. U.S. mills", ["J. S. Bach, e.g. here.", "U.S. mills"]),
        ("I can't. She won't. Plan-b. Yes.", ["I can't.", "She won't.", "Plan-b.", "Yes."]),
        ("I don't know about plan B... He does.", ["I don't know about plan B...", "He does."]),
        ("你好。再见！「是吗？」他说", ["你好。", "再见！", "「是吗？」", "他说"]),
        ("他……走了。", ["他……走了。"]),
        ("नमस्ते। कैसे हो? ठीक॥", ["नमस्ते।", "कैसे हो?", "ठीक॥"]),
        ("ما هذا؟ هذا كتاب.", ["ما هذا؟", "هذا كتاب."]),
        ("ភាសា។ខ្មែរ។", ["ភាសា។", "ខ្មែរ។"]),
        ("ไทย ไทย", ["ไทย ไทย"]),
        ("Great! :) 🙂 Thanks. - A list", ["Great! :) 🙂", "Thanks.", "- A list"]),
        ("... Well. * * *", ["... Well. * * *"]),
        ("🙂\n\nFine.\n\n***", ["🙂", "Fine.", "***"]),
        (" \n\n ", []),
    ],
)
def test_texts_are_parted_where_sentences_end(text: str, found: list[str]) -> None:
    assert list(segments(text)) == found
    assert list(sentences(text)) == [segment for segment in found if find_words(segment)]


def test_a_letter_has_no_more_marks_than_a_person_would_write() -> None:
    assert find_words("e" + "\u0301" * (MARKS_MAX + 5) + "a") == ["e" + "\u0301" * MARKS_MAX, "a"]


@pytest.mark.parametrize(
    ("unit", "end"),
    [
        (".", "x"),
        ('."', "x"),
        (".) ", ""),
        ("1.", "a"),
        ("1", "a"),
        ("a'", "_"),
        ("a\u0315\u0316", ""),
        ("\u0315\u0316", "a"),
        ("\n", ""),
        ("\r\n \t", ""),
        ("Mr.", ""),
        ("! ", ""),
        (". \u00a0", ""),
        (":.", "x"),
    ],
    ids=ascii,
)
@pytest.mark.timeout(30)  # in linear time it takes a tenth of a second; in quadratic time, minutes
def test_no_text_takes_longer_than_its_length(unit: str, end: str) -> None:
    text = "a" + unit * (262_144 // len(unit)) + end
    words = find_words(text)
    assert len({folded(word) for word in words}) <= 3
    assert sum(1 for _ in segments(text)) <= 2


@given(_TEXTS)
def test_every_letter_and_digit_is_in_one_word(text: str) -> None:
    rest = text
    for word in find_words(text):
        before, found, rest = rest.partition(word)
        assert found
        assert not has_word(before)
    assert not has_word(rest)


@given(_TEXTS)
def test_segments_leave_out_nothing_but_space(text: str) -> None:
    parts = list(segments(text))
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(part == part.strip() != "" for part in parts)
    assert len(list(sentences(text))) == sum(bool(find_words(part)) for part in parts)


@given(_TEXTS)
def test_no_word_stands_in_two_sentences(text: str) -> None:
    assert [word for part in segments(text) for word in find_words(part)] == find_words(text)


@given(_TEXTS, _TEXTS)
def test_an_empty_line_parts_everything(first: str, second: str) -> None:
    joined = f"{first}\n\n{second}"
    assert find_words(joined) == [*find_words(first), *find_words(second)]
    assert list(segments(joined)) == [*segments(first), *segments(second)]


@given(st.text(max_size=40))
def test_words_of_any_text_are_compared_in_one_form(text: str) -> None:
    for word in find_words(text):
        once = folded(word)
        assert unicodedata.is_normalized("NFC", once)
        assert folded(once) == once
