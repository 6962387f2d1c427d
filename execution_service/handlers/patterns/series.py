"""Finds what an evenly spaced series of measurements shows: season, trend, outliers and changes.

In this order, as each step takes away what would mislead the next: the season goes before the trend and the outliers
are looked for, and the outliers before the changes. Each step says in its own module what it does.
"""

from typing import TYPE_CHECKING, Literal

from execution_service.handlers.patterns.changes import segments_of
from execution_service.handlers.patterns.models import (
    CYCLES_MIN,
    LISTED_MAX,
    Seasonality,
    Segment,
    SeriesData,
    SeriesFindings,
    SeriesOutlier,
    Trend,
)
from execution_service.handlers.patterns.outliers import local_level, score_min, scores
from execution_service.handlers.patterns.seasonality import Season, season_of
from execution_service.handlers.patterns.stopping import stop_if_cancelled
from execution_service.handlers.patterns.trend import ALL_PAIRS_MAX, mann_kendall, theil_sen
from headrace.tasks import PermanentError, TaskContext

if TYPE_CHECKING:
    from execution_service.handlers.patterns.arrays import Array

_SIGNIFICANT = 0.05
_ROUNDING = 1e-12


def find_in_series(data: SeriesData, context: TaskContext) -> SeriesFindings:
    """Return what the series shows. Raises PermanentError `too_short` if it does not hold three of its periods."""
    import numpy as np

    if data.period is not None and data.period * CYCLES_MIN > len(data.values):
        raise PermanentError(
            "too_short",
            f"A season of {data.period} values needs {CYCLES_MIN} times as many; the series has {len(data.values)}.",
        )
    values = np.asarray(data.values, dtype=np.float64)
    season = season_of(values, data.period)
    adjusted = season.remove(values) if season is not None else values
    _report(context, 0.3, "season")
    centre = float(np.median(adjusted))
    away = adjusted - centre
    scale = float(np.abs(away).max())
    if scale <= _ROUNDING * float(np.abs(values).max()):
        away, scale = np.zeros_like(away), 1.0  # nothing is left but rounding
    # From -1 to 1, so that no square of very small or very large values is lost.
    scaled = away / scale
    trend = _trend(scaled, scale)
    _report(context, 0.5, "trend")
    level = local_level(scaled)
    score = scores(scaled, level)
    far = np.flatnonzero(np.abs(score) > score_min(len(values)))
    _report(context, 0.6, "outliers")
    calm = scaled.copy()
    calm[far] = level[far]
    pieces = segments_of(calm)
    _report(context, 1, "changes")

    return SeriesFindings(
        count=len(values),
        trend=trend,
        seasonality=_seasonality(season) if season is not None else None,
        outliers=[
            _outlier(index, data.values[index], float(level[index]) * scale + centre, float(score[index]), season)
            for index in far[:LISTED_MAX].tolist()
        ],
        outlier_count=len(far),
        change_points=[piece.start for piece in pieces[1:]],
        segments=[
            Segment(start=piece.start, end=piece.end, mean=piece.mean * scale + centre, slope=piece.slope * scale)
            for piece in pieces
        ],
    )


def _outlier(index: int, value: float, level: float, score: float, season: Season | None) -> SeriesOutlier:
    expected = season.restore(level, index) if season is not None else level
    return SeriesOutlier(index=index, value=value, expected=expected, score=score)


def _seasonality(season: Season) -> Seasonality:
    return Seasonality(
        period=season.period,
        kind="multiplicative" if season.multiplies else "additive",
        strength=season.strength,
        autocorrelation=season.autocorrelation,
        pattern=season.pattern.tolist(),
    )


def _trend(adjusted: "Array", scale: float) -> Trend:
    score, p_value = mann_kendall(adjusted)
    direction: Literal["rising", "falling", "none"] = "none"
    if p_value < _SIGNIFICANT:
        direction = "rising" if score > 0 else "falling"
    return Trend(
        direction=direction,
        slope=theil_sen(adjusted) * scale,
        p_value=p_value,
        method="theil_sen" if len(adjusted) <= ALL_PAIRS_MAX else "theil_incomplete",
    )


def _report(context: TaskContext, fraction: float, done: str) -> None:
    stop_if_cancelled(context)
    context.progress(fraction, f"{done} found")
