"""Finds values that lie far from those around them.

What is expected is the median of eleven values around, and at both ends a robust line through the outermost six. A
value's score is its distance from that in robust standard deviations: the modified z-score of B. Iglewicz and
D. Hoaglin, "How to Detect and Handle Outliers" (1993), of which the magnitude 3.5 makes an outlier; in long series it
must be above √(2·ln n), which noise alone hardly reaches (D. Donoho and I. Johnstone, 1994). With the season taken out
before, this is a Hampel filter (F. R. Hampel, 1974) on what a seasonal decomposition leaves (J. Hochenbaum, O. Vallis
and A. Kejariwal, "Automatic Anomaly Detection in the Cloud Via Statistical Learning", 2017).
"""

import math
from typing import TYPE_CHECKING

from execution_service.handlers.patterns.robust import deviation
from execution_service.handlers.patterns.trend import theil_sen

if TYPE_CHECKING:
    from execution_service.handlers.patterns.arrays import Array

SCORE_MIN = 3.5
_HALF = 5
# A median of eleven is one of them, and follows the values: of normal noise, as many lie beyond 4.06 of the deviations
# that are left as beyond 3.5 of its own (from four million random numbers).
_FOLLOWS = 1.16
# Between these, in standard deviations on both sides, lie 80 % of a normal distribution.
_NORMAL_80 = 1.2815515655446004
# Of values from -1 to 1: distances that are rounding, and the least deviation where most values lie on their level, so
# that the ends of a curve without noise are no outliers.
_ROUNDING = 1e-9
_STILL = 0.01


def score_min(n: int) -> float:
    """Return the magnitude that a score must exceed in a series of n values."""
    return max(SCORE_MIN, math.sqrt(2 * math.log(n)))


def local_level(values: "Array") -> "Array":
    """Return what the values around lead to expect for each value of a series of at least three."""
    import numpy as np

    half = min(_HALF, (len(values) - 1) // 2)
    level = np.empty_like(values)
    windows = np.lib.stride_tricks.sliding_window_view(values, 2 * half + 1)
    level[half : len(values) - half] = np.median(windows, axis=1)
    level[:half] = _line(values[: half + 1])[:half]
    level[len(values) - half :] = _line(values[-half - 1 :])[1:]
    return level


def scores(values: "Array", level: "Array") -> "Array":
    """Return how many robust standard deviations each value, from -1 to 1, lies above its level.

    The deviation is the larger one of those by the median and by the 80 % quantile of the distances: where the season
    was taken from few periods, half of the values may lie on it almost exactly.
    """
    import numpy as np

    away = values - level
    median, most = np.quantile(np.abs(away), (0.5, 0.8))
    spread = _FOLLOWS * max(deviation(away), float(most) / _NORMAL_80)
    return away / max(spread, _STILL if median < _ROUNDING else _ROUNDING)


def _line(values: "Array") -> "Array":
    import numpy as np

    time = np.arange(len(values))
    slope = theil_sen(values)
    line: Array = slope * time + np.median(values - slope * time)
    return line
