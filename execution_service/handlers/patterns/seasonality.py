"""Finds what comes back in a series after a period, and how strong that is.

The season is that of the classical decomposition (M. G. Kendall and A. Stuart, "The Advanced Theory of Statistics" 3,
1983): the median of each phase after a moving average over one period has been taken away. It adds to the level, or, in
a series of positive values whose logarithms have a stronger season, multiplies it by up to 1,000. Its strength is
max(0, 1 - Var(R) / Var(S + R)), with the season S and the remainder R (X. Wang, K. Smith and R. Hyndman,
"Characteristic-Based Clustering for Time Series Data", 2006), of which outliers are pulled in.

A period is found where the autocorrelation of the series without its linear trend, once it has fallen to 0, is highest.
It must be a peak, with at least three periods in the series, of at least 0.25 and above 2.58/√n, the 99 % bound for
white noise (M. S. Bartlett, 1946), and the season at least of strength 0.3. From there the period moves on as long as
the next one is stronger; of that the shortest part is taken that is as strong, up to 0.05.

To pull in is to bring what is more than five robust standard deviations away to that distance; it is done before the
autocorrelation, too, so that a few outliers do not hide a season.
"""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from execution_service.handlers.patterns.models import CYCLES_MIN
from execution_service.handlers.patterns.robust import deviation

if TYPE_CHECKING:
    from execution_service.handlers.patterns.arrays import Array

AUTOCORRELATION_MIN = 0.25
STRENGTH_MIN = 0.3
FACTOR_MAX = 1000
_TOLERANCE = 0.05
_BARTLETT_99 = 2.58
_REACH = 5
_STEPS_MAX = 100


@dataclass(frozen=True, slots=True)
class Season:
    """What a series has in common with itself one period later; `pattern` begins with the first value's phase."""

    period: int
    strength: float
    autocorrelation: float
    pattern: "Array"
    multiplies: bool = False

    def remove(self, values: "Array") -> "Array":
        """Return the series without the season."""
        import numpy as np

        seasonal = np.resize(self.pattern, len(values))
        return values / seasonal if self.multiplies else values - seasonal

    def restore(self, value: float, index: int) -> float:
        """Return a value of the series without the season as it is with it."""
        seasonal = float(self.pattern[index % self.period])
        return value * seasonal if self.multiplies else value + seasonal


def season_of(values: "Array", period: int | None) -> Season | None:
    """Return the season of the given period, of which the series must hold three; without one, that which is found."""
    import numpy as np

    # Below 1, as the autocorrelation takes squares of sums.
    scale = float(np.abs(values).max()) or 1.0
    season = _season(values / scale, period)
    if season is not None:
        season = replace(season, pattern=season.pattern * scale)
    factors = _season(np.log(values), period) if values.min() > 0 else None
    if factors is None or np.abs(factors.pattern).max() > math.log(FACTOR_MAX):
        return season
    if season is not None and factors.strength <= season.strength + _TOLERANCE:
        return season
    return replace(factors, pattern=np.exp(factors.pattern), multiplies=True)


def _season(values: "Array", period: int | None) -> Season | None:
    values = values - values.mean()
    correlation = autocorrelation(values)
    if period is not None:
        return _decompose(values, correlation, period)
    period = _peak(correlation)
    if period is None:
        return None
    season = _sharpen(values, correlation, _decompose(values, correlation, period))
    if season.strength < STRENGTH_MIN:
        return None
    period = season.period
    parts = (_decompose(values, correlation, part) for part in range(2, period) if period % part == 0)
    return next((part for part in parts if part.strength >= season.strength - _TOLERANCE), season)


def autocorrelation(values: "Array") -> "Array":
    """Return the autocorrelation at all lags, of the series without its linear trend and its extremes."""
    import numpy as np

    n = len(values)
    time = np.arange(n) - (n - 1) / 2
    away = _pull_in(values - values.mean() - time * (time @ values) / (time @ time))
    spectrum = np.fft.rfft(away - away.mean(), 2 * n)
    covariance = np.fft.irfft(spectrum * spectrum.conj(), 2 * n)[:n]
    return covariance / covariance[0] if covariance[0] > 0 else np.zeros(n)


def _peak(correlation: "Array") -> int | None:
    """Return the lag that may be a period, None if no lag stands out."""
    lags = len(correlation) // CYCLES_MIN
    fallen = (correlation[: lags + 1] <= 0).nonzero()[0]
    if len(fallen) == 0:
        return None
    lag = int(fallen[0] + correlation[fallen[0] : lags + 1].argmax())
    height = correlation[lag]
    least = max(AUTOCORRELATION_MIN, _BARTLETT_99 / math.sqrt(len(correlation)))
    return lag if lag >= 2 and height >= least and height >= correlation[lag + 1] else None


def _sharpen(values: "Array", correlation: "Array", season: Season) -> Season:
    """Return the season of the period nearby that is strongest: over many periods, one that is off by one blurs it."""
    for _ in range(_STEPS_MAX):
        near = (season.period - 1, season.period + 1)
        periods = (period for period in near if 2 <= period <= len(values) // CYCLES_MIN)
        better = max((_decompose(values, correlation, period) for period in periods), key=lambda each: each.strength)
        if better.strength <= season.strength:
            break
        season = better
    return season


def _decompose(values: "Array", correlation: "Array", period: int) -> Season:
    import numpy as np

    level = moving_average(values, period)
    first = period // 2
    detrended = values[first : first + len(level)] - level
    # One row for each period, with gaps in the first and the last.
    phases = np.full(((first + len(level)) // period + 1) * period, np.nan)
    phases[first : first + len(level)] = detrended
    pattern = np.nanmedian(phases.reshape(-1, period), axis=0)
    pattern -= pattern.mean()
    seasonal = np.resize(np.roll(pattern, -first), len(detrended))
    remainder = _pull_in(detrended - seasonal)
    spread = (seasonal + remainder).var()
    strength = max(0.0, 1 - remainder.var() / spread) if spread > 0 else 0.0
    return Season(period=period, strength=float(strength), autocorrelation=float(correlation[period]), pattern=pattern)


def moving_average(values: "Array", period: int) -> "Array":
    """Return the mean over one period around each value that has one; over even periods the ends count half."""
    import numpy as np

    sums = np.concatenate(([0.0], values.cumsum()))
    means = (sums[period:] - sums[:-period]) / period
    return means if period % 2 else (means[1:] + means[:-1]) / 2


def _pull_in(values: "Array") -> "Array":
    import numpy as np

    reach = _REACH * deviation(values)
    return np.clip(values, -reach, reach)
