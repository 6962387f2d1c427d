"""Words and sentences of a text in any language, found by rules alone: no dictionary, no model.

A word is a run of letters, digits and the marks that belong to them. Apostrophes and hyphens belong to a word where
they stand inside it ("don't", "mother-in-law"), points and commas where they stand between digits ("3.14"). Anything
else parts words, also the underscore. In scripts that write no spaces between words the default rules of Unicode hold
(UAX #29, "Unicode Text Segmentation", section 4), which do not guess: a Chinese character is a word, and so is a
Hiragana one and a character of Thai, Lao, Khmer or Burmese with its marks; a run of Katakana is one word.

A sentence ends with `.`, `!`, `?` or `…` before white space, with the signs of other scripts (`。`, `।`, `؟` …)
anywhere, and with an empty line. The point after an initial, a dotted abbreviation ("J. S. Bach", "e.g.") or a title
("Dr. Who") ends none; other abbreviations are not known. Thai and Lao mark no ends: there a paragraph is a sentence.

Every pattern is possessive where it repeats, so that all of this takes linear time on any text.
"""

import functools
import re
import unicodedata
from collections.abc import Iterator
from enum import Enum

# Marks on one letter; more are not part of a word. As in the Stream-Safe Text Format of UAX #15, this bounds the time
# that the composed form takes, which grows with the square of a run of marks.
MARKS_MAX = 30

# Letters of which each is a word (UAX #29): ideographs and Hiragana, and the scripts of South East Asia, whose lines
# and words only a dictionary can break. Digits of the latter are left out: numbers are words everywhere.
_IDEOGRAPHS = "\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003fffd"
_HIRAGANA = "\u3041-\u3096\u309d-\u309f\U0001b001-\U0001b11f\U0001b150-\U0001b152"
_SOUTH_EAST_ASIAN = (
    "\u0e01-\u0e4f\u0e81-\u0ecf\u0edc-\u0edf\u1000-\u103f\u104a-\u108f\u109a-\u109f\u1780-\u17df\u1950-\u19cf"
    "\u1a20-\u1a7f\u1aa0-\u1aad\ua9e0-\ua9ef\ua9fa-\ua9fe\uaa60-\uaadf"
)
_KATAKANA = (
    "\u3031-\u3035\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"
    "\U0001aff0-\U0001affe\U0001b000\U0001b120-\U0001b122\U0001b155\U0001b164-\U0001b167"
)
_SINGLE = _IDEOGRAPHS + _HIRAGANA + _SOUTH_EAST_ASIAN
# Joiners, the soft hyphen, and two vowels that Unicode calls letters though they are written as marks.
_LIKE_MARKS = "\u00ad\u200c\u200d\u0e33\u0eb3"
_VARIATIONS = "\U000e0100-\U000e01ef"

_ONE_SPELLING = str.maketrans({"\u2019": "'", "\u2010": "-", "\u2011": "-", "\u00ad": None})
_JOINERS = "\u200c\u200d"

_LETTER_OR_DIGIT = re.compile(r"[^\W_]")
_EMPTY_LINE = re.compile(r"(?>\r\n|\r|\n)[^\S\r\n]*+[\r\n]|\u2029")
_LATIN_GREEK_CYRILLIC = "A-Za-z\u00c0-\u024f\u0370-\u04ff"
_ENDS = r".!?\u2026"
_ENDS_ANYWHERE = (
    r"\u0589\u061e\u061f\u06d4\u0700-\u0702\u0964\u0965\u104a\u104b\u1362\u1367\u1368\u17d4\u17d5\u203c\u203d"
    r"\u2047-\u2049\u3002\uff01\uff1f\uff61"
)
# Quotes and brackets; a French quote may stand after a space, but then opens none.
_CLOSING = (
    r"(?:[\"'\u2018\u2019\u201c\u201d\u203a)\]}\u300b\u300d\u300f\u3011\uff09\uff3d\uff63]"
    r"|[\ \u00a0\u202f]?\u00bb(?!\w))*+"
)
# Emoticons and the like after the end, on the same line; quotes, brackets and dashes there begin the next sentence.
_EMOTICONS = r"(?:[^\S\r\n]++[^\w\s\u00ab\u00bb\u2018\u201a\u201c\u201e\u2010-\u2015\"'(\[{<-][^\w\s]*+(?=\s|\Z))*+"
# It begins with one class of characters, which the engine looks for without trying the rest at every place.
_SENTENCE_END = re.compile(
    rf"""[{_ENDS}{_ENDS_ANYWHERE}]
    (?:
        (?<=[{_ENDS_ANYWHERE}])
    |
        (?<![{_ENDS}]{{2}})
        (?!  # the point of an initial, of an abbreviation of single letters, or of a title
            (?:(?<=(?<![\w'\u2019-])[{_LATIN_GREEK_CYRILLIC}]\.)|(?<=\b(?:Dr|Mr|Ms)\.)|(?<=\bMrs\.)|(?<=\bProf\.))
            (?![{_ENDS}])
        )
        (?=[{_ENDS}]*+{_CLOSING}(?:\s|\Z|[{_ENDS_ANYWHERE}]))
    )
    [{_ENDS}{_ENDS_ANYWHERE}]*+{_CLOSING}{_EMOTICONS}
    """,
    re.VERBOSE,
)


class Writing(Enum):
    """How a word is written, which says what counting such words means."""

    WORD = "a word between spaces, or a run of Katakana"
    IDEOGRAPH = "one Chinese character"
    HIRAGANA = "one Hiragana character"
    LETTER = "one letter of a script of South East Asia, with its marks"


def find_words(text: str) -> list[str]:
    """Return the words of a text in their order, each as it is written there."""
    words: list[str] = _word_pattern().findall(text)
    return words


def folded(word: str) -> str:
    """Return the form in which words are compared: lower case, composed (NFC), one kind of apostrophe and hyphen."""
    if word.isascii():
        return word.lower()
    return unicodedata.normalize("NFC", word.lower().translate(_ONE_SPELLING).strip(_JOINERS))


def writing(word: str) -> Writing:
    """Return how a word that was found is written."""
    if word.isascii():
        return Writing.WORD
    return next((kind for kind, first in _FIRST.items() if first.match(word)), Writing.WORD)


_FIRST = {
    Writing.HIRAGANA: re.compile(f"[{_HIRAGANA}]"),
    Writing.IDEOGRAPH: re.compile(f"[{_IDEOGRAPHS}]"),
    Writing.LETTER: re.compile(f"[{_SOUTH_EAST_ASIAN}]"),
}


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a text: what of its segments holds a word."""
    return (segment for segment in segments(text) if has_word(segment))


def segments(text: str) -> Iterator[str]:
    """Yield all of a text but the space around it, sentence by sentence.

    What holds no word (an emoji, a dash) belongs to the sentence before it, or to the next at the beginning of a
    paragraph. Only a paragraph without any word is a segment of its own.
    """
    for paragraph in _EMPTY_LINE.split(text):
        begin = end = 0
        worded = False
        for match in _SENTENCE_END.finditer(paragraph):
            if has_word(paragraph, end, match.end()):
                if worded:
                    yield paragraph[begin:end].strip()
                    begin = end
                worded = True
            end = match.end()
        if worded and has_word(paragraph, end):
            yield paragraph[begin:end].strip()
            begin = end
        if rest := paragraph[begin:].strip():
            yield rest


def has_word(text: str, begin: int = 0, end: int | None = None) -> bool:
    """Return whether there is a word in that part of a text: every letter and digit is part of one."""
    return _LETTER_OR_DIGIT.search(text, begin, len(text) if end is None else end) is not None


@functools.cache
def _word_pattern() -> re.Pattern[str]:
    # Python's \w knows letters and digits but not the marks that many scripts write vowels with. Those beyond U+FFFF
    # are many short ranges that are tried one by one: the look-ahead spares all other characters this.
    near = f"[{_marks(0x300, 0x10000)}{_LIKE_MARKS}]"
    far = f"(?=[\U00010000-\U0010ffff])[{_marks(0x10000, 0x1F000)}{_VARIATIONS}]"
    marks = f"(?:{near}|{far}){{0,{MARKS_MAX}}}+"
    letter = rf"[^\W_{_SINGLE}{_KATAKANA}]"
    part = f"(?:{letter}++{marks})++"
    return re.compile(
        # The last group of digits is given back where a letter follows it, and no more than that.
        rf"\d++(?:[.,\u066b\u066c]\d++)+(?!{letter})"
        rf"|{part}(?:['\u2019\u2010\u2011-]{part})*+"
        rf"|(?:[{_KATAKANA}]++{marks})++"
        rf"|(?=[^\W_])[{_SINGLE}]{marks}"
    )


def _marks(start: int, stop: int) -> str:
    """Return the body of a character class of the combining marks in a range of code points."""
    ranges: list[list[int]] = []
    for code in range(start, stop):
        if unicodedata.category(chr(code))[0] == "M":
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)
