"""Task type `calculate_statistics`: describes a sample of numbers.

Definitions, with n the number of values, m their mean, and m2, m3, m4 the central moments (1/n)·Σ(x-m)^k:

- variance: the unbiased sample variance Σ(x-m)²/(n-1); standard deviation: its square root; null for a single value.
- quantiles: linear interpolation between order statistics, definition 7 of R. J. Hyndman and Y. Fan, "Sample Quantiles
  in Statistical Packages", The American Statistician 50 (1996); the median is the quantile 0.5.
- modes: all values that occur most often, ascending, the first 100; empty when no value occurs twice.
- skewness: the adjusted Fisher-Pearson coefficient G1 = √(n(n-1))/(n-2) · m3/m2^1.5; null for n < 3.
- kurtosis: the excess G2 = (n-1)/((n-2)(n-3)) · ((n+1)(m4/m2² - 3) + 6); null for n < 4. Both after D. N. Joanes and
  C. A. Gill, "Comparing measures of sample skewness and kurtosis", The Statistician 47 (1998); null without variance.
- outliers: values beyond the fences Q1 - 1.5·IQR and Q3 + 1.5·IQR (J. W. Tukey, "Exploratory Data Analysis", 1977).
- histogram: bins of equal width between minimum and maximum, closed on the left, the last one on both sides; their
  width after D. Freedman and P. Diaconis, 2·IQR/n^(1/3) (1981), or as many as H. Sturges' 1+log2(n) (1926) where the
  IQR is 0; at most 100.
"""

import math
from typing import TYPE_CHECKING, Annotated, TypeAlias

from pydantic import Field

from execution_service.handlers.schema import HandlerModel
from headrace.tasks import task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[np.float64]

VALUES_MAX = 1_000_000
# Squares of values up to this, a million times over, stay below the largest double.
MAGNITUDE_MAX = 1e150
LISTED_MAX = 100
BINS_MAX = 100
_DEFAULT_QUANTILES = (0.25, 0.5, 0.75)
_EXAMPLE = [4.0, 7.5, 1.25, 7.5, 3.0, 42.0]

Value = Annotated[float, Field(ge=-MAGNITUDE_MAX, le=MAGNITUDE_MAX, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class StatisticsData(HandlerModel):
    values: list[Value] = Field(
        min_length=1, max_length=VALUES_MAX, description="The sample, in any order.", examples=[_EXAMPLE]
    )
    quantiles: list[Fraction] = Field(
        default=list(_DEFAULT_QUANTILES),
        max_length=LISTED_MAX,
        description="Which quantiles to calculate, from 0 to 1.",
        examples=[[0.05, 0.5, 0.95]],
    )


class Quantile(HandlerModel):
    q: float = Field(description="The fraction of the sample at or below the value.", examples=[0.5])
    value: float = Field(examples=[5.75])


class Outliers(HandlerModel):
    lower_fence: float = Field(description="Q1 - 1.5·IQR.")
    upper_fence: float = Field(description="Q3 + 1.5·IQR.")
    count: int = Field(ge=0, description="How many values lie beyond the fences.")
    values: list[float] = Field(max_length=LISTED_MAX, description="The first 100 of them, ascending.")


class Histogram(HandlerModel):
    edges: list[float] = Field(description="Limits of the bins, ascending: one more than there are bins.")
    counts: list[int] = Field(description="How many values fall into each bin.")


class StatisticsResult(HandlerModel):
    count: int = Field(ge=1, examples=[6])
    mean: float = Field(description="The arithmetic mean, from an exactly rounded sum.", examples=[10.875])
    median: float = Field(examples=[5.75])
    modes: list[float] = Field(max_length=LISTED_MAX, description="The most frequent values.", examples=[[7.5]])
    variance: float | None = Field(description="Sample variance (n-1); null for a single value.")
    standard_deviation: float | None = Field(description="Square root of the variance.")
    min: float = Field(examples=[1.25])
    max: float = Field(examples=[42.0])
    quantiles: list[Quantile] = Field(description="In the order in which they were asked for.")
    skewness: float | None = Field(description="Adjusted Fisher-Pearson coefficient; null where it is not defined.")
    kurtosis: float | None = Field(description="Bias-corrected excess kurtosis; null where it is not defined.")
    outliers: Outliers
    histogram: Histogram


@task("calculate_statistics", timeout=60, examples=[{"values": _EXAMPLE}])
def calculate_statistics(data: StatisticsData) -> StatisticsResult:
    """Describe a sample of numbers: moments, quantiles, modes, outliers and a histogram."""
    return describe(data.values, data.quantiles)


def describe(values: list[float], quantiles: list[float]) -> StatisticsResult:
    """Return the description of a sample; see the module's text for the definitions."""
    import numpy as np  # 16 MiB and 0.1 s, which a worker should not pay before the first sample

    sample = np.sort(np.asarray(values, dtype=np.float64))
    mean = math.fsum(values) / len(values)
    first, median, third = (float(q) for q in np.quantile(sample, (0.25, 0.5, 0.75)))
    variance, deviation, skewness, kurtosis = moments(sample, mean)
    asked = np.quantile(sample, quantiles) if quantiles else ()
    return StatisticsResult(
        count=len(values),
        mean=mean,
        median=median,
        modes=modes(sample),
        variance=variance,
        standard_deviation=deviation,
        min=float(sample[0]),
        max=float(sample[-1]),
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
