"""The description of one sample of numbers. Definitions are in the text of `calculate_statistics`."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from execution_service.handlers.statistics.models import LISTED_MAX, Histogram, Outliers, Quantile, SampleStatistics

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[np.float64]

BINS_MAX = 100


def describe(values: Sequence[float | None], quantiles: Sequence[float]) -> SampleStatistics | None:
    """Return the description of a sample, None if all its values are missing."""
    import numpy as np  # 16 MiB and 0.1 s, which a worker should not pay before the first sample

    present = [value for value in values if value is not None]
    if not present:
        return None
    sample = np.sort(np.asarray(present, dtype=np.float64))
    low, high = float(sample[0]), float(sample[-1])
    # Rounding may carry the quotient a step beyond values that are all the same.
    mean = min(max(math.fsum(present) / len(present), low), high)
    first, median, third = (float(q) for q in np.quantile(sample, (0.25, 0.5, 0.75)))
    variance, deviation, skewness, kurtosis = moments(sample, mean)
    asked = np.quantile(sample, quantiles) if quantiles else ()
    return SampleStatistics(
        count=len(present),
        missing=len(values) - len(present),
        mean=mean,
        median=median,
        modes=modes(sample),
        variance=variance,
        standard_deviation=deviation,
        min=low,
        max=high,
        quantiles=[Quantile(q=q, value=float(value)) for q, value in zip(quantiles, asked, strict=True)],
        skewness=skewness,
        kurtosis=kurtosis,
        outliers=outliers(sample, first, third),
        histogram=histogram(sample, third - first),
    )


def moments(sample: "Array", mean: float) -> tuple[float | None, float | None, float | None, float | None]:
    """Return variance, standard deviation, skewness and excess kurtosis, each None where it is not defined."""
    import numpy as np

    n = len(sample)
    if n < 2:
        return None, None, None, None
    away = sample - mean
    # Scaled to at most 1, so that no power of very small or very large values is lost.
    scale = float(np.max(np.abs(away)))
    if scale == 0 or sample[0] == sample[-1]:
        return 0.0, 0.0, None, None
    away /= scale
    m2, m3, m4 = (float(np.mean(away**power)) for power in (2, 3, 4))
    spread = m2 * n / (n - 1)
    skewness = math.sqrt(n * (n - 1)) / (n - 2) * m3 / m2**1.5 if n >= 3 else None
    kurtosis = (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * (m4 / m2**2 - 3) + 6) if n >= 4 else None
    return scale * (scale * spread), scale * math.sqrt(spread), skewness, kurtosis


def modes(sample: "Array") -> list[float]:
    """Return the most frequent values of a sorted sample, none if no value occurs twice."""
    import numpy as np

    values, counts = np.unique(sample, return_counts=True)
    most = int(counts.max())
    return [float(value) for value in values[counts == most][:LISTED_MAX]] if most > 1 else []


def outliers(sample: "Array", first_quartile: float, third_quartile: float) -> Outliers:
    """Return what of a sorted sample lies beyond Tukey's fences."""
    reach = 1.5 * (third_quartile - first_quartile)
    lower, upper = first_quartile - reach, third_quartile + reach
    beyond = sample[(sample < lower) | (sample > upper)]
    listed = [float(value) for value in beyond[:LISTED_MAX]]
    return Outliers(lower_fence=lower, upper_fence=upper, count=len(beyond), values=listed)


def histogram(sample: "Array", quartile_range: float) -> Histogram:
    """Return the histogram of a sorted sample."""
    import numpy as np

    low, high = float(sample[0]), float(sample[-1])
    bins = bin_count(len(sample), high - low, quartile_range)
    edges = np.linspace(low, high, bins + 1)
    if low == high or not np.all(np.diff(edges) > 0):
        # All values are the same, or so close together that doubles have no limits between them.
        return Histogram(edges=[low, high], counts=[len(sample)])
    counts, _ = np.histogram(sample, edges)
    return Histogram(edges=[float(edge) for edge in edges], counts=[int(count) for count in counts])


def bin_count(n: int, width: float, quartile_range: float) -> int:
    """Return how many bins a histogram of n values over `width` has."""
    freedman_diaconis = quartile_range > 0
    # Compared before it is rounded: with a far outlier the quotient may be infinite.
    wanted = width / (2 * quartile_range) * n ** (1 / 3) if freedman_diaconis else math.log2(n) + 1
    return BINS_MAX if wanted >= BINS_MAX else max(1, math.ceil(wanted))
