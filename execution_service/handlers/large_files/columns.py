"""Sums up the columns of a table, batch by batch.

Means and squared deviations of each batch are joined to those of all before it as T. F. Chan, G. H. Golub and R. J.
LeVeque do ("Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", COMPSTAT 1982), the formula of
B. P. Welford (Technometrics 4, 1962) for many values at a time: no large sums whose difference is small.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from execution_service.handlers.large_files.cells import Cells
from execution_service.handlers.large_files.distinct import DistinctCounter
from execution_service.handlers.large_files.kinds import Kind, hashes_of, kinds_of
from execution_service.handlers.large_files.models import (
    ColumnSummary,
    ColumnType,
    DistinctValues,
    KindCounts,
    Lengths,
    NumberSummary,
)
from execution_service.handlers.large_files.packed import Floats, Indices

# One record for each column.
_TOTALS = np.dtype(
    [
        ("kinds", np.int64, len(Kind)),
        ("shortest", np.int64),
        ("longest", np.int64),
        ("numbers", np.int64),
        ("mean", np.float64),
        ("squares", np.float64),
        ("min", np.float64),
        ("max", np.float64),
    ]
)
_NOTHING = np.array([(0, 2**62, 0, 0, 0.0, 0.0, np.inf, -np.inf)], _TOTALS)


class ColumnTotals:
    """What is known of each column of a table whose columns may grow in number."""

    def __init__(self) -> None:
        self._totals: NDArray[Any] = np.zeros(0, _TOTALS)
        self._distinct: list[DistinctCounter] = []

    def add(self, cells: Cells, width: int) -> None:
        """Take in some cells of a table that has `width` columns by now."""
        self._grow(width)
        if not len(cells.starts):
            return
        totals, columns = self._totals, cells.columns
        present, firsts, counts = _segments(columns)
        lengths = cells.lengths_in_characters()
        totals["shortest"][present] = np.minimum(totals["shortest"][present], np.minimum.reduceat(lengths, firsts))
        totals["longest"][present] = np.maximum(totals["longest"][present], np.maximum.reduceat(lengths, firsts))
        kinds, which, values = kinds_of(cells)
        per_kind = np.bincount(columns * len(Kind) + kinds, minlength=width * len(Kind))
        totals["kinds"] += per_kind.reshape(width, len(Kind))
        if len(which):
            self._add_numbers(columns[which], values)
        hashes = hashes_of(cells)
        for column, first, count in zip(present.tolist(), firsts.tolist(), counts.tolist(), strict=True):
            self._distinct[column].add(hashes[first : first + count])

    def summaries(self, names: list[str], rows: int) -> list[ColumnSummary]:
        """Return what is known of each column of a table with that many rows."""
        self._grow(len(names))
        return [
            _summary(name, rows, record, distinct)
            for name, record, distinct in zip(names, self._totals, self._distinct, strict=True)
        ]

    def _grow(self, width: int) -> None:
        new = width - len(self._distinct)
        if new:
            self._totals = np.concatenate([self._totals, np.repeat(_NOTHING, new)])
            self._distinct += [DistinctCounter() for _ in range(new)]

    def _add_numbers(self, columns: Indices, values: Floats) -> None:
        present, firsts, counts = _segments(columns)
        means = np.add.reduceat(values, firsts) / counts
        deviations = values - np.repeat(means, counts)
        squares = np.add.reduceat(deviations * deviations, firsts)
        before = self._totals[present]
        numbers = before["numbers"] + counts
        step = means - before["mean"]
        before["mean"] += step * counts / numbers
        before["squares"] += squares + step * step * (before["numbers"] * (counts / numbers))
        before["numbers"] = numbers
        before["min"] = np.minimum(before["min"], np.minimum.reduceat(values, firsts))
        before["max"] = np.maximum(before["max"], np.maximum.reduceat(values, firsts))
        self._totals[present] = before


def _segments(columns: Indices) -> tuple[Indices, Indices, Indices]:
    """Return which columns there are in an ascending list, where each begins in it, and how often it is there."""
    counts = np.bincount(columns)
    present = np.flatnonzero(counts)
    return present, (np.cumsum(counts) - counts)[present], counts[present]


def _summary(name: str, rows: int, record: Any, distinct: DistinctCounter) -> ColumnSummary:
    kinds = {kind: int(record["kinds"][kind]) for kind in Kind}
    present = sum(kinds.values())
    numbers = int(record["numbers"])
    count, exact = distinct.count()
    return ColumnSummary(
        name=name,
        type=guess(kinds),
        present=present,
        missing=rows - present,
        kinds=KindCounts(**{kind.name.lower(): found for kind, found in kinds.items()}),
        distinct=DistinctValues(count=min(count, present), exact=exact),
        lengths=Lengths(min=int(record["shortest"]), max=int(record["longest"])) if present else None,
        numbers=NumberSummary(
            count=numbers,
            min=float(record["min"]),
            max=float(record["max"]),
            mean=float(record["mean"]),
            variance=float(record["squares"]) / (numbers - 1) if numbers > 1 else None,
        )
        if numbers
        else None,
    )


def guess(kinds: dict[Kind, int]) -> ColumnType:
    """Return the type that all values have; whole numbers among decimal ones are decimal, all else mixed is text."""
    found = {kind for kind, number in kinds.items() if number}
    if found == {Kind.INTEGER, Kind.DECIMAL}:
        return ColumnType.DECIMAL
    if not found:
        return ColumnType.EMPTY
    return ColumnType[found.pop().name] if len(found) == 1 else ColumnType.TEXT
