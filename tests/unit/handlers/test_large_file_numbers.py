"""Numbers that are read many at once are those that Python reads one by one, to the last bit."""

import re
import struct

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from execution_service.handlers.large_files.cells import pack
from execution_service.handlers.large_files.numbers import MAGNITUDE_MAX, NUMBER_BYTES_MAX, parse

_FORM = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


def _parse(texts: list[str]) -> list[tuple[float, bool] | None]:
    found, values, whole = parse(*pack([text.encode() for text in texts]))
    return [
        (value, is_whole) if is_found else None
        for value, is_found, is_whole in zip(values.tolist(), found.tolist(), whole.tolist(), strict=True)
    ]


def _expected(text: str) -> tuple[float, bool] | None:
    if len(text) > NUMBER_BYTES_MAX or not _FORM.fullmatch(text) or abs(float(text)) > MAGNITUDE_MAX:
        return None
    return float(text), text.lstrip("+-").isdigit()


@given(st.lists(st.text("0123456789" * 2 + ".+-eE", min_size=1, max_size=40), min_size=1))
@example(["1", "-1", "+1", "00012", "-0", "12.5", ".5", "5.", "-.5", "1e5", "1E-5", "1e140", "1.1e140", "1e999"])
@example(["-", "+", ".", "-.", "1.2.3", "1.2.", "--1", "+-1", "1-", "1e", "e5", "1e5.5", "1ee5"])
@example(["9007199254740992", "9007199254740993", "9999999999999999", "900719925474099.3", "0.1234567890123456"])
@example(["12345678", "123456789", "1234567.8", "1234567812345678", "12345678.12345678", "-12345678.1234567"])
@example(["9" * NUMBER_BYTES_MAX, "9" * (NUMBER_BYTES_MAX + 1)])
def test_texts_of_the_characters_of_numbers_are_read_as_python_does(texts: list[str]) -> None:
    assert _parse(texts) == [_expected(text) for text in texts]


@given(st.lists(st.floats(-MAGNITUDE_MAX, MAGNITUDE_MAX), min_size=1), st.integers(0, 17))
def test_floats_are_read_to_the_last_bit(numbers: list[float], digits: int) -> None:
    for texts in (list(map(repr, numbers)), [f"{number:.{digits}e}" for number in numbers]):
        read = [struct.pack("d", item[0]) for item in _parse(texts) if item]
        assert read == [struct.pack("d", float(text)) for text in texts if abs(float(text)) <= MAGNITUDE_MAX]


@given(st.integers(1, 8), st.lists(st.integers(-(10**18), 10**18), min_size=1))
def test_decimals_are_rounded_as_python_does(places: int, numbers: list[int]) -> None:
    texts = [f"{number:+0{places + 2}d}" for number in numbers]
    texts = [text[:-places] + "." + text[-places:] for text in texts]
    assert _parse(texts) == [_expected(text) for text in texts]


@pytest.mark.parametrize(
    "text",
    [
        "1_0",
        " 1",
        "1 ",
        "nan",
        "inf",
        "-inf",
        "1,5",
        "0x10",
        "١",
        "½",
        "1/2",
        "1:2",
        "/1",
        ":1",
        "1;",
        "12\x1a",
        "=1+1",
    ],
)
def test_what_only_python_or_only_a_reader_takes_for_a_number_is_none(text: str) -> None:
    assert _parse([text, "1"]) == [None, (1.0, True)]


def test_no_texts_are_no_numbers() -> None:
    nothing = np.zeros(0, np.intp)
    assert len(parse(pack([])[0], nothing, nothing).found) == 0
