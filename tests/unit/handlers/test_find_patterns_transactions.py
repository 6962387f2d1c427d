"""Frequent sets and rules are those of the published example, and of counting all sets one by one."""

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execution_service.handlers.patterns import transactions
from execution_service.handlers.patterns.models import LISTED_MAX, TransactionData, TransactionFindings
from execution_service.handlers.patterns.stopping import FindingStoppedError
from execution_service.handlers.patterns.transactions import (
    SETS_MAX,
    bit_rows,
    find_in_transactions,
    minimum_count,
    partners,
)
from headrace.tasks import PermanentError, TaskContext

# J. Han, M. Kamber and J. Pei, "Data Mining: Concepts and Techniques" (3rd ed., 2012), example 6.3, table 6.1.
_ALL_ELECTRONICS = ["I1 I2 I5", "I2 I4", "I2 I3", "I1 I2 I4", "I1 I3", "I2 I3", "I1 I3", "I1 I2 I3 I5", "I1 I2 I3"]


def _find(baskets: list[list[str]], context: TaskContext | None = None, **options: Any) -> TransactionFindings:
    return find_in_transactions(TransactionData(baskets=baskets, **options), context or TaskContext())


def test_the_published_example_has_its_published_sets_and_rules() -> None:
    found = _find([line.split() for line in _ALL_ELECTRONICS], min_support=2 / 9, min_confidence=0.7)
    assert found.count == 9
    assert [(" ".join(each.items), each.count) for each in found.item_sets] == [
        ("I2", 7), ("I1", 6), ("I3", 6), ("I1 I2", 4), ("I1 I3", 4), ("I2 I3", 4), ("I4", 2), ("I5", 2), ("I1 I5", 2),
        ("I2 I4", 2), ("I2 I5", 2), ("I1 I2 I3", 2), ("I1 I2 I5", 2),
    ]  # fmt: skip
    # Of {I1, I2, I5}, three rules hold with a confidence of 70 %, all of them with 100 % (example 6.4).
    rules = {(" ".join(rule.antecedent), " ".join(rule.consequent)): rule for rule in found.rules}
    of_three = [pair for pair in rules if sorted(" ".join(pair).split()) == ["I1", "I2", "I5"]]
    assert of_three == [("I5", "I1 I2"), ("I2 I5", "I1"), ("I1 I5", "I2")]
    assert [rules[pair].confidence for pair in of_three] == [1, 1, 1]
    assert [rules[pair].lift for pair in of_three] == pytest.approx([9 / 4, 9 / 6, 9 / 7])
    assert all(rules[pair].support == pytest.approx(2 / 9) for pair in of_three)
    assert (found.item_set_count, found.rule_count, found.truncated) == (13, len(rules), False)


_BASKETS = st.lists(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=8), min_size=1, max_size=20)


@given(_BASKETS, st.floats(0.05, 1), st.floats(0, 1), st.integers(1, 5))
def test_sets_and_rules_are_those_of_counting_all(
    baskets: list[list[str]], min_support: float, min_confidence: float, max_size: int
) -> None:
    total = len(baskets)
    counts: dict[tuple[str, ...], int] = {}
    for size in range(1, max_size + 1):
        for items in itertools.combinations("abcdef", size):
            count = sum(set(items) <= set(basket) for basket in baskets)
            if count and count / total >= min_support:
                counts[items] = count
    rules = {}
    for items, count in counts.items():
        for size in range(1, len(items)):
            for antecedent in itertools.combinations(items, size):
                consequent = tuple(item for item in items if item not in antecedent)
                confidence = count / counts[antecedent]
                if confidence >= min_confidence:
                    rules[antecedent, consequent] = (confidence, confidence / (counts[consequent] / total))
    found = _find(baskets, min_support=min_support, min_confidence=min_confidence, max_size=max_size)
    assert {tuple(each.items): each.count for each in found.item_sets} == counts
    assert {(tuple(rule.antecedent), tuple(rule.consequent)) for rule in found.rules} == set(rules)
    for rule in found.rules:
        confidence, lift = rules[tuple(rule.antecedent), tuple(rule.consequent)]
        assert (rule.confidence, rule.lift) == pytest.approx((confidence, lift))
    assert found.rules == sorted(
        found.rules, key=lambda rule: (-rule.confidence, -rule.lift, -rule.support, rule.antecedent, rule.consequent)
    )


@given(_BASKETS, st.randoms(use_true_random=False))
def test_the_order_of_transactions_and_items_does_not_matter(baskets: list[list[str]], random: Any) -> None:
    shuffled = [random.sample(basket, len(basket)) for basket in random.sample(baskets, len(baskets))]
    assert _find(baskets) == _find(shuffled)


@pytest.mark.parametrize(
    ("min_support", "total", "count"),
    [(0.07, 100, 7), (0.29, 100, 29), (2 / 9, 9, 2), (0.5, 3, 2), (1, 7, 7), (1e-9, 7, 1), (0.1, 3, 1), (0.7, 10, 7)],
)
def test_the_least_count_is_not_moved_by_rounding(min_support: float, total: int, count: int) -> None:
    assert minimum_count(min_support, total) == count


def test_partners_leave_out_pairs_that_are_not_frequent() -> None:
    rows = [[0, 1], [0, 1], [0, 2], [3], [1, 3]]
    assert partners(rows, 10, 2) == {0: {1}}
    assert partners([[0, 1, 2]] * 5, 3, 2) is None  # six pairs are tried sooner than counted
    assert bit_rows(rows, 4) == [0b00111, 0b10011, 0b00100, 0b11000]


def test_what_is_listed_is_the_best_and_the_rest_is_counted() -> None:
    # Eleven items that always come together: all their sets of up to six are frequent, and all rules hold.
    found = _find([[f"item {index:02}" for index in range(11)]] * 3, max_size=6)
    sizes = range(1, 7)
    assert found.item_set_count == sum(math.comb(11, size) for size in sizes)
    assert found.rule_count == sum(math.comb(11, size) * (2**size - 2) for size in sizes)
    assert (len(found.item_sets), len(found.rules), found.truncated) == (LISTED_MAX, LISTED_MAX, True)
    assert [each.items for each in found.item_sets[:12]] == [
        *([f"item {index:02}"] for index in range(11)),
        ["item 00", "item 01"],
    ]


@pytest.mark.parametrize(
    ("baskets", "product"),
    [
        pytest.param([[str(item) for item in range(40)]] * 10, f"{SETS_MAX} is the most", id="T08-sets"),
        pytest.param([[str(index)] for index in range(50_000)], "50000 frequent items times 50000", id="T08-bits"),
        pytest.param([[str(item) for item in range(600)]] * 600, f"{SETS_MAX} is the most", id="T08-pairs"),
    ],
)
def test_an_explosion_is_stopped(baskets: list[list[str]], product: str) -> None:
    with pytest.raises(PermanentError, match=product) as raised:
        _find(baskets, min_support=1e-6)
    assert raised.value.code == "cost_too_high"


def test_the_work_is_bounded_where_few_sets_are_frequent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "WORK_MAX", 5_000_000)
    baskets = [[f"{index}", f"{index + 1}"] for index in range(100)]
    assert _find(baskets, min_support=0.02, max_size=1).item_set_count == 99
    with pytest.raises(PermanentError, match="Sets tried times transactions") as raised:
        _find([[*map(str, range(50))], *([str(index)] for index in range(50))] * 10, min_support=0.01)
    assert raised.value.code == "cost_too_high"


def test_a_cancel_ends_the_search() -> None:
    with pytest.raises(FindingStoppedError):
        _find([["a", "b"]], TaskContext(is_cancelled=lambda: True))
