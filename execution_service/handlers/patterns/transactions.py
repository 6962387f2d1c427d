"""Finds sets of items that occur together often, and association rules about them.

Frequent sets are grown depth first, with the transactions of each item as a row of bits (Eclat: M. J. Zaki, "Scalable
Algorithms for Association Mining", IEEE TKDE 12, 2000; rows of bits: D. Burdick et al., "MAFIA", 2001). Rules and their
measures are those of R. Agrawal and R. Srikant, "Fast Algorithms for Mining Association Rules" (1994): the support of
A → B is the part of the transactions that hold A and B, its confidence support(A ∪ B) / support(A). Its lift is
confidence / support(B), after S. Brin et al., "Dynamic Itemset Counting and Implication Rules for Market Basket Data"
(1997).
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import TypeAlias

from execution_service.handlers.patterns.models import (
    LISTED_MAX,
    ItemSet,
    Rule,
    TransactionData,
    TransactionFindings,
)
from execution_service.handlers.patterns.stopping import stop_if_cancelled
from headrace.tasks import PermanentError, TaskContext

SETS_MAX = 20_000
# Bits that are compared, and that are kept.
WORK_MAX = 200_000_000_000
ROWS_BITS_MAX = 1_000_000_000
# What comparing two rows of bits takes besides, in bits.
_OVERHEAD = 5000

# Items of a set by their numbers, ascending.
Row: TypeAlias = tuple[int, ...]


def find_in_transactions(data: TransactionData, context: TaskContext) -> TransactionFindings:
    """Return the frequent sets and the rules. Raises PermanentError `cost_too_high` where there are far too many."""
    total = len(data.baskets)
    minimum = minimum_count(data.min_support, total)
    counts = Counter(item for basket in data.baskets for item in set(basket))
    # The rarest first: what grows from them stays small.
    items = sorted((item for item, count in counts.items() if count >= minimum), key=lambda item: (counts[item], item))
    numbers = {item: number for number, item in enumerate(items)}
    rows = [sorted({numbers[item] for item in basket if item in numbers}) for basket in data.baskets]
    frequent = FrequentSets(rows, len(items), minimum, data.max_size, context).found
    context.progress(0.5, f"{len(frequent)} frequent sets")

    sets = (
        ItemSet(items=sorted(items[number] for number in row), count=count, support=count / total)
        for row, count in frequent.items()
    )
    listed_sets = heapq.nsmallest(LISTED_MAX, sets, key=lambda found: (-found.count, len(found.items), found.items))
    rules = Rules(frequent, items, total, data.min_confidence, context)
    listed_rules = rules.best()
    return TransactionFindings(
        count=total,
        item_sets=listed_sets,
        item_set_count=len(frequent),
        rules=listed_rules,
        rule_count=rules.count,
        truncated=len(frequent) > LISTED_MAX or rules.count > LISTED_MAX,
    )


def minimum_count(min_support: float, total: int) -> int:
    """Return the smallest count whose part of the total is at least the support asked for."""
    count = int(min_support * total)  # may be one too few, also because of rounding
    return max(1, count if count / total >= min_support else count + 1)


class FrequentSets:
    """The sets of up to `size_max` items that occur in at least `minimum` transactions, with their counts.

    `rows` are the transactions as ascending numbers of the items that are frequent by themselves.
    """

    def __init__(
        self, rows: Sequence[Sequence[int]], items: int, minimum: int, size_max: int, context: TaskContext
    ) -> None:
        self.found: dict[Row, int] = {}
        self._minimum = minimum
        self._size_max = size_max
        self._context = context
        self._cost = len(rows) + _OVERHEAD
        self._work = 0
        if items * len(rows) > ROWS_BITS_MAX:
            raise _too_much(f"{items} frequent items times {len(rows)} transactions", items * len(rows), ROWS_BITS_MAX)
        self._bits = bit_rows(rows, items)
        self._partners = partners(rows, items, minimum)
        self._grow((), (1 << len(rows)) - 1, range(items))

    def _grow(self, prefix: Row, bits: int, candidates: Sequence[int]) -> None:
        """Add the sets of the prefix and a candidate, and what grows from them; `bits` tell who holds the prefix."""
        stop_if_cancelled(self._context)
        self._work += len(candidates) * self._cost
        if self._work > WORK_MAX:
            raise _too_much("Sets tried times transactions", self._work, WORK_MAX)
        grown = []
        for number in candidates:
            count = (bits & self._bits[number]).bit_count()
            if count >= self._minimum:
                self.found[*prefix, number] = count
                grown.append(number)
        if len(self.found) > SETS_MAX:
            raise _too_much("The number of frequent sets", len(self.found), SETS_MAX)
        if len(prefix) + 1 == self._size_max:
            return
        for index, number in enumerate(grown, 1):
            known = self._partners
            later = [other for other in grown[index:] if known is None or other in known[number]]
            if later:
                self._grow((*prefix, number), bits & self._bits[number], later)


def bit_rows(rows: Sequence[Sequence[int]], items: int) -> list[int]:
    """Return for each item a number whose bits say which transactions hold it."""
    bits = [bytearray(len(rows) // 8 + 1) for _ in range(items)]
    for index, row in enumerate(rows):
        for number in row:
            bits[number][index // 8] |= 1 << index % 8
    return [int.from_bytes(each, "little") for each in bits]


def partners(rows: Sequence[Sequence[int]], items: int, minimum: int) -> Mapping[int, set[int]] | None:
    """Return the higher items with which an item makes a frequent pair; None if that is dearer than trying them all."""
    if sum(len(row) ** 2 for row in rows) > items**2:
        return None
    pairs = Counter(pair for row in rows for pair in combinations(row, 2))
    found: defaultdict[int, set[int]] = defaultdict(set)
    for (low, high), count in pairs.items():
        if count >= minimum:
            found[low].add(high)
    return found


def _too_much(what: str, amount: int, limit: int) -> PermanentError:
    return PermanentError(
        "cost_too_high", f"{what}: {amount}; {limit} is the most. A higher min_support makes fewer frequent sets."
    )


class Rules:
    """The rules that the frequent sets make, `count` of them once the best have been found."""

    def __init__(
        self,
        frequent: Mapping[Row, int],
        items: Sequence[str],
        total: int,
        min_confidence: float,
        context: TaskContext,
    ) -> None:
        self.count = 0
        self._frequent = frequent
        self._items = items
        self._total = total
        self._min_confidence = min_confidence
        self._context = context

    def best(self) -> list[Rule]:
        """Return the first in the order of confidence, lift, support and alphabet."""
        return [
            Rule(
                antecedent=antecedent,
                consequent=consequent,
                support=-count / self._total,
                confidence=-confidence,
                lift=-lift,
            )
            for confidence, lift, count, antecedent, consequent in heapq.nsmallest(LISTED_MAX, self._all())
        ]

    def _all(self) -> Iterator[tuple[float, float, int, list[str], list[str]]]:
        for row, count in self._frequent.items():
            stop_if_cancelled(self._context)
            for size in range(1, len(row)):
                for antecedent in combinations(row, size):
                    confidence = count / self._frequent[antecedent]
                    if confidence >= self._min_confidence:
                        self.count += 1
                        consequent = tuple(number for number in row if number not in antecedent)
                        lift = confidence * self._total / self._frequent[consequent]
                        yield -confidence, -lift, -count, self._names(antecedent), self._names(consequent)

    def _names(self, row: Row) -> list[str]:
        return sorted(self._items[number] for number in row)
