"""Task type `calculate_statistics`: describes a sample of numbers, or the columns of records.

JSON has no NaN. A missing value is `null`, or in records an absent column: missing values are counted, and left out of
everything else. Definitions, with n the number of values that are there, m their mean, and m2, m3, m4 the central
moments (1/n)·Σ(x-m)^k:

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

Sums are those of J. R. Shewchuk, "Adaptive Precision Floating-Point Arithmetic" (1997), as in Python's `math.fsum`;
moments are taken of deviations from the mean, so that a large offset costs no precision.
"""

from execution_service.handlers.statistics.models import (
    EXAMPLE_RECORDS,
    EXAMPLE_VALUES,
    StatisticsData,
    StatisticsResult,
)
from execution_service.handlers.statistics.records import describe_records
from execution_service.handlers.statistics.sample import describe
from headrace.tasks import ErrorKind, Limits, task

_EXAMPLES = (
    {"values": EXAMPLE_VALUES},
    {"records": EXAMPLE_RECORDS, "group_by": "mill"},
    {"values": [12, None, 15, 11], "quantiles": [0.9]},
)
_ERRORS = (
    ErrorKind("unknown_column", False, "No record has a column that `columns` or `group_by` names."),
    ErrorKind("not_numeric", False, "A column that was asked for holds something else than numbers, or none does not."),
    ErrorKind("cost_too_high", False, "Groups times columns are more than 500."),
)


@task("calculate_statistics", timeout=60, examples=_EXAMPLES, limits=Limits(memory_mib=512), errors=_ERRORS)
def calculate_statistics(data: StatisticsData) -> StatisticsResult:
    """Describe a sample of numbers, or the columns of records: moments, quantiles, modes, outliers and a histogram."""
    if data.records is not None:
        return StatisticsResult(describe_records(data.records, data.columns, data.group_by, data.quantiles))
    description = describe(data.values or (), data.quantiles)
    assert description is not None, "the data's validator asks for at least one number"
    return StatisticsResult(description)
