"""Tests a series for a monotonic trend, and measures its slope. Neither is misled by outliers.

The test is that of H. B. Mann (1945) and M. G. Kendall ("Rank Correlation Methods", 1975), with the variance for ties
and the correction for continuity. It counts pairs in order by merging (W. R. Knight, "A Computer Method for Calculating
Kendall's Tau with Ungrouped Data", 1966), in O(n log² n). It takes the values for independent but for the trend.

The slope is the median of the slopes of all pairs (P. K. Sen, 1968) up to 2,000 values; for longer series, where these
are too many, the median over the pairs that are half the series apart (H. Theil's incomplete method, 1950).
"""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from execution_service.handlers.patterns.arrays import Array, Integers

ALL_PAIRS_MAX = 2000


def mann_kendall(values: "Array") -> tuple[int, float]:
    """Return Kendall's S, the pairs that rise less those that fall, and the two-sided p-value against no trend."""
    import numpy as np

    _, ranks, ties = np.unique(values, return_inverse=True, return_counts=True)
    n = len(values)
    score = _rising_less_falling(ranks)
    tied = sum(int(t) * (int(t) - 1) * (2 * int(t) + 5) for t in ties[ties > 1])
    variance = (n * (n - 1) * (2 * n + 5) - tied) / 18
    if score == 0:
        return 0, 1.0
    return score, math.erfc((abs(score) - 1) / math.sqrt(2 * variance))


def theil_sen(values: "Array") -> float:
    """Return the median slope of all pairs of up to `ALL_PAIRS_MAX` values, of fewer pairs for more values."""
    import numpy as np

    n = len(values)
    if n > ALL_PAIRS_MAX:
        apart = n // 2
        return float(np.median(values[-apart:] - values[:apart])) / (n - apart)
    left, right = np.triu_indices(n, 1)
    return float(np.median((values[right] - values[left]) / (right - left)))


def _rising_less_falling(ranks: "Integers") -> int:
    """Return Kendall's S: at each width of blocks, that of the pairs with one in a left and one in its right block."""
    import numpy as np

    index = np.arange(len(ranks))
    keys = int(ranks.max()) + 1
    score = 0
    width = 1
    while width < len(ranks):
        # A key orders first by block, then by rank: one search serves all blocks.
        block = index // (2 * width) * keys
        is_left = index // width % 2 == 0
        left = np.sort((block + ranks)[is_left])
        right, base = (block + ranks)[~is_left], block[~is_left]
        below = np.searchsorted(left, right) - np.searchsorted(left, base)
        above = np.searchsorted(left, base + keys) - np.searchsorted(left, right, "right")
        score += int(below.sum() - above.sum())
        width *= 2
    return score
