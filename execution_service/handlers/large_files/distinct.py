"""Counts different values in little memory: exactly while there are few, and then by an estimate.

The k smallest hashes of a column say how many there are: if the hashes fill their range evenly and the k-th smallest
stands at the fraction f of it, there are about (k-1)/f (Z. Bar-Yossef et al., "Counting Distinct Elements in a Data
Stream", RANDOM 2002; unbiased by K. Beyer et al., "On Synopses for Distinct-Value Estimation Under Multiset
Operations", SIGMOD 2007). Of the sketches known this is chosen since the same k hashes count exactly up to k, and
since it costs a comparison for almost every value. The relative standard error is 1/√(k-2): 1 %.
"""

import numpy as np

from execution_service.handlers.large_files.packed import Words

KEPT = 10_000
_SLOTS = 4096
# Sorting in costs as much for one hash as for some thousand.
_WAITING_MAX = 2500


class DistinctCounter:
    """Counts different hashes."""

    def __init__(self) -> None:
        self._smallest: Words = np.zeros(0, np.uint64)
        # Those that are still to be sorted in.
        self._waiting: list[Words] = []
        # By their last bits, hashes that were counted: most values are met again, and need not be sorted in then.
        # To begin with each slot holds a hash that belongs to another one.
        self._counted: Words = ~np.arange(_SLOTS, dtype=np.uint64)

    def add(self, hashes: Words) -> None:
        """Count the hashes of some values."""
        if len(self._smallest) == KEPT:
            hashes = hashes[hashes < self._smallest[-1]]
        hashes = hashes[self._counted[hashes % _SLOTS] != hashes]
        if len(hashes):
            self._counted[hashes % _SLOTS] = hashes
            self._waiting.append(hashes)
            if sum(map(len, self._waiting)) > _WAITING_MAX:
                self._sort_in()

    def count(self) -> tuple[int, bool]:
        """Return how many different hashes there were, and whether they were counted each for itself."""
        self._sort_in()
        if len(self._smallest) < KEPT:
            return len(self._smallest), True
        return round((KEPT - 1) / (int(self._smallest[-1]) / 2**64)), False

    def _sort_in(self) -> None:
        merged = np.sort(np.concatenate((self._smallest, *self._waiting)))
        self._smallest = merged[np.diff(merged, prepend=~merged[:1]) != 0][:KEPT]
        self._waiting.clear()
