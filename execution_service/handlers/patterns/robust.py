"""Estimates that a few values, however wrong, do not change much."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from execution_service.handlers.patterns.arrays import Array

# Which part of its standard deviation the median and the mean absolute deviation of a normal distribution are.
_NORMAL_MEDIAN = 0.6744897501960817
_NORMAL_MEAN = 0.7978845608028654
# What is smaller than this part of the largest distance is rounding.
_NONE = 1e-12


def deviation(values: "Array") -> float:
    """Return the standard deviation by the median of the distances from the median (F. R. Hampel, 1974).

    Where more than half of the values are the same, it comes from the mean of the distances, as B. Iglewicz and
    D. Hoaglin have it ("How to Detect and Handle Outliers", 1993).
    """
    import numpy as np

    distances = np.abs(values - np.median(values))
    median = float(np.median(distances))
    return median / _NORMAL_MEDIAN if median > _NONE * distances.max() else float(distances.mean()) / _NORMAL_MEAN
