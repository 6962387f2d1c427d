"""Different values are counted exactly while they are few, and within the error that is promised when they are many."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from execution_service.handlers.large_files.cells import Cells, pack
from execution_service.handlers.large_files.distinct import KEPT, DistinctCounter
from execution_service.handlers.large_files.kinds import hashes_of


def _cells(texts: list[str], quoted: bool | None = None) -> Cells:
    marks = None if quoted is None else np.full(len(texts), quoted)
    return Cells(*pack([text.encode() for text in texts]), np.zeros(len(texts), np.intp), marks)


@given(st.lists(st.lists(st.text(st.characters(blacklist_characters="\0", codec="utf-8"), min_size=1, max_size=70))))
def test_few_values_are_counted_exactly(batches: list[list[str]]) -> None:
    counter = DistinctCounter()
    for batch in batches:
        counter.add(hashes_of(_cells(batch)))
    assert counter.count() == (len({text for batch in batches for text in batch}), True)


@pytest.mark.parametrize("length", [1, 7, 8, 9, 16, 63, 64, 65, 200])
def test_every_byte_of_a_value_counts(length: int) -> None:
    texts = [
        "a" * length,
        *("a" * place + "b" + "a" * (length - place - 1) for place in range(length)),
        "a" * (length + 1),
    ]
    assert len(set(hashes_of(_cells(texts)).tolist())) == len(texts)


def test_a_hash_does_not_depend_on_what_stands_around_the_value() -> None:
    alone, among = hashes_of(_cells(["b" * 20])), hashes_of(_cells(["aaa", "b" * 20, "c" * 30]))
    assert alone[0] == among[1]


def test_hashes_are_the_same_everywhere() -> None:
    hashes = hashes_of(_cells(["a", "b" * 20, "c" * 100]))
    assert hashes.tolist() == [0xEDA3EBE27E2EDB64, 0x54F4AF5FC55AB6EB, 0x99A72716546A700B]


def test_text_and_what_it_looks_like_differ() -> None:
    assert hashes_of(_cells(["1"], quoted=True)) != hashes_of(_cells(["1"], quoted=False))


@pytest.mark.parametrize("different", [KEPT - 1, KEPT, 20_000, 300_000])
def test_many_values_are_estimated_within_four_standard_errors(different: int) -> None:
    counter = DistinctCounter()
    # Every value comes three times, in batches that overlap.
    order = np.concatenate([np.arange(different)] * 3)
    for start in range(0, len(order), 30_000):
        part = order[start : start + 30_000]
        buffer = np.char.add("value ", part.astype(np.str_)).tolist()
        counter.add(hashes_of(_cells(buffer)))
    count, exact = counter.count()
    assert exact == (different < KEPT)
    error = 0.0 if exact else 4 / (KEPT - 2) ** 0.5
    assert abs(count - different) <= different * error
