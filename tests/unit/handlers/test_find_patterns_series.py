"""Known series show what they are known for, noise shows nothing, and every step agrees with its definition."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from execution_service.handlers.find_patterns import find_patterns
from execution_service.handlers.patterns.changes import SEGMENT_MIN, Sums, cut, noise_variance, segments_of
from execution_service.handlers.patterns.models import (
    EXAMPLE_SERIES,
    MAGNITUDE_MAX,
    FindPatternsResult,
    SeriesData,
    SeriesFindings,
)
from execution_service.handlers.patterns.outliers import local_level, score_min, scores
from execution_service.handlers.patterns.robust import deviation
from execution_service.handlers.patterns.seasonality import moving_average, season_of
from execution_service.handlers.patterns.series import find_in_series
from execution_service.handlers.patterns.stopping import FindingStoppedError
from execution_service.handlers.patterns.trend import ALL_PAIRS_MAX, mann_kendall, theil_sen
from headrace.tasks import PermanentError, TaskContext, definition_of

# Annual flow of the Nile at Aswan, 1871 to 1970, in 10^8 m³: G. W. Cobb, "The Problem of the Nile", Biometrika 65
# (1978).
_NILE = """
1120 1160 963 1210 1160 1160 813 1230 1370 1140 995 935 1110 994 1020 960 1180 799 958 1140 1100 1210 1150 1250 1260
1220 1030 1100 774 840 874 694 940 833 701 916 692 1020 1050 969 831 726 456 824 702 1120 1100 832 764 821 768 845 864
862 698 845 744 796 1040 759 781 865 845 944 984 897 822 1010 771 676 649 846 812 742 801 1040 860 874 848 890 744 749
838 1050 918 986 797 923 975 815 1020 906 901 1170 912 746 919 718 714 740"""

# International airline passengers by month, 1949 to 1960, in thousands: series G of G. E. P. Box and G. M. Jenkins,
# "Time Series Analysis" (1970).
_AIRLINE = """
112 118 132 129 121 135 148 148 136 119 104 118 115 126 141 135 125 149 170 170 158 133 114 140 145 150 178 163 172 178
199 199 184 162 146 166 171 180 193 181 183 218 230 242 209 191 172 194 196 196 236 235 229 243 264 272 237 211 180 201
204 188 235 227 234 264 302 293 259 229 203 229 242 233 267 269 270 315 364 347 312 274 237 278 284 277 317 313 318 374
413 405 355 306 271 306 315 301 356 348 355 422 465 467 404 347 305 336 340 318 362 348 363 435 491 505 404 359 310 337
360 342 406 396 420 472 548 559 463 407 362 405 417 391 419 461 472 535 622 606 508 461 390 432"""

# Its seasonal figure, January to December, as R's decompose(AirPassengers, "multiplicative") has it, with means.
_AIRLINE_FIGURE = [0.910, 0.884, 1.007, 0.976, 0.981, 1.113, 1.227, 1.220, 1.060, 0.922, 0.801, 0.899]


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.split()]


def _find(values: Sequence[float] | Any, period: int | None = None) -> SeriesFindings:
    return find_in_series(SeriesData(values=[float(value) for value in values], period=period), TaskContext())


def _noise(n: int, seed: int = 1) -> Any:
    return np.random.default_rng(seed).normal(size=n)


def test_the_nile_changes_after_1898_and_has_no_season() -> None:
    # The change and both means as in A. Zeileis et al., "Testing and dating of structural changes", CSDA 44 (2003).
    found = _find(_numbers(_NILE))
    assert [1871 + index for index in found.change_points] == [1899]
    assert [round(segment.mean, 2) for segment in found.segments] == [1097.75, 849.97]
    assert [(segment.start, segment.end, segment.slope) for segment in found.segments] == [(0, 28, 0), (28, 100, 0)]
    assert found.seasonality is None
    assert found.trend.direction == "falling"


def test_the_airline_has_a_year_that_multiplies_and_grows() -> None:
    found = _find(_numbers(_AIRLINE))
    assert found.seasonality is not None
    assert (found.seasonality.period, found.seasonality.kind) == (12, "multiplicative")
    assert found.seasonality.pattern == pytest.approx(_AIRLINE_FIGURE, abs=0.04)
    assert found.seasonality.strength > 0.9
    assert found.trend.direction == "rising"
    assert found.trend.slope == pytest.approx(2.66, abs=0.1)  # least squares over the whole: 2.657
    assert found.outlier_count <= 2


def test_the_season_of_the_logarithms_adds() -> None:
    found = _find([math.log(value) for value in _numbers(_AIRLINE)], 12)
    assert found.seasonality is not None
    assert found.seasonality.kind == "additive"
    assert found.seasonality.pattern == pytest.approx([math.log(factor) for factor in _AIRLINE_FIGURE], abs=0.04)


def test_the_example_shows_a_week_a_bad_day_and_more_hens() -> None:
    found = find_in_series(SeriesData.model_validate(EXAMPLE_SERIES), TaskContext())
    assert found.seasonality is not None
    assert (found.seasonality.period, found.seasonality.kind) == (7, "additive")
    assert [(outlier.index, outlier.value) for outlier in found.outliers] == [(24, 3)]
    assert 18 < found.outliers[0].expected < 22
    assert found.change_points == [28]


@pytest.mark.parametrize("period", [2, 3, 7, 24, 100])
def test_a_season_without_noise_is_found_whole(period: int) -> None:
    pattern = _noise(period)
    found = _find(np.tile(pattern, 8))
    assert found.seasonality is not None
    assert found.seasonality.period == period
    assert found.seasonality.strength == pytest.approx(1)
    assert found.seasonality.pattern == pytest.approx(pattern - pattern.mean(), abs=1e-9)
    assert (found.outlier_count, found.change_points, found.trend.direction) == (0, [], "none")


def test_a_season_shows_through_noise_outliers_and_a_step() -> None:
    values = 3 * np.sin(np.arange(400) * 2 * np.pi / 24) + 0.3 * _noise(400)
    values[100] += 5
    values[250:] += 4
    found = _find(values)
    assert found.seasonality is not None
    assert found.seasonality.period == 24
    assert 100 in [outlier.index for outlier in found.outliers]
    assert found.outlier_count <= 3
    assert found.change_points == [250]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [10, 50, 1000])
def test_noise_shows_nothing(n: int, seed: int) -> None:
    found = _find(_noise(n, seed))
    assert found.seasonality is None
    assert found.change_points == []
    assert found.outlier_count <= 1


@pytest.mark.parametrize(
    ("values", "direction", "slope"),
    [
        ([5.0] * 20, "none", 0),
        (range(30), "rising", 1),
        ([-2 * index for index in range(3000)], "falling", -2),
        ([index**2 for index in range(30)], "rising", 29),
    ],
    ids=["constant", "line", "long-line", "parabola"],
)
def test_a_curve_without_noise_has_a_trend_at_most(values: Sequence[float], direction: str, slope: float) -> None:
    found = _find(values)
    assert (found.trend.direction, found.outlier_count, found.change_points) == (direction, 0, [])
    assert found.trend.slope == pytest.approx(slope)
    assert found.seasonality is None


@pytest.mark.parametrize("scale", [1e150, 1e-150, 1e-300])
def test_very_large_and_very_small_values_are_not_lost(scale: float) -> None:
    values = np.concatenate((np.zeros(30), np.ones(30))) + 0.05 * _noise(60)
    found = _find(values / np.abs(values).max() * scale)
    assert found.change_points == [30]
    assert found.segments[1].mean == pytest.approx(scale * values[30:].mean() / np.abs(values).max(), rel=0.01)


def test_a_step_on_a_slope_is_told_from_the_slope() -> None:
    values = 0.1 * np.arange(200) + _noise(200)
    values[120:] += 8
    found = _find(values)
    assert len(found.change_points) == 1
    assert abs(found.change_points[0] - 120) <= 1
    assert [segment.slope for segment in found.segments] == pytest.approx([0.1, 0.1], abs=0.02)


def test_noise_with_a_memory_is_not_taken_for_changes() -> None:
    noise = _noise(1000)
    values = np.array(list(itertools.accumulate(noise, lambda last, new: 0.6 * last + new)))
    assert len(_find(values).change_points) <= 1


@pytest.mark.parametrize("at", [0, 3, 15, 28, 29])
def test_an_outlier_is_found_wherever_it_is(at: int) -> None:
    values = 0.5 * np.arange(30) + _noise(30, seed=3)
    values[at] += 25
    found = _find(values)
    assert at in [outlier.index for outlier in found.outliers]
    (outlier,) = [outlier for outlier in found.outliers if outlier.index == at]
    assert outlier.value == values[at]
    assert outlier.expected == pytest.approx(0.5 * at, abs=4)


def test_a_period_needs_three_of_it() -> None:
    assert _find(range(12), 4).seasonality is not None
    with pytest.raises(PermanentError, match="5 values needs 3 times as many; the series has 12") as raised:
        _find(range(12), 5)
    assert raised.value.code == "too_short"


def test_a_period_that_is_none_is_measured_all_the_same() -> None:
    found = _find(_noise(3000), 10)
    assert found.seasonality is not None
    assert found.seasonality.strength < 0.05


def test_the_longest_series_is_read_to_its_end() -> None:
    values = 0.3 * _noise(100_000) + np.sin(np.arange(100_000) * 2 * np.pi / 1440)
    values[37_000:] += 1.5
    found = _find(values)
    assert found.seasonality is not None
    assert found.seasonality.period == pytest.approx(1440, abs=3)
    assert found.trend.method == "theil_incomplete"
    assert len(found.change_points) == 1
    assert abs(found.change_points[0] - 37_000) <= 5


def test_a_cancel_ends_the_search() -> None:
    with pytest.raises(FindingStoppedError):
        find_in_series(SeriesData(values=[1.0] * 10), TaskContext(is_cancelled=lambda: True))


# The steps by themselves, against their definitions.

_SERIES = st.lists(st.integers(-20, 20).map(float), min_size=10, max_size=60).map(np.array)


@given(_SERIES)
def test_kendalls_score_counts_all_pairs(values: Any) -> None:
    n = len(values)
    pairs = [np.sign(later - earlier) for earlier, later in itertools.combinations(values.tolist(), 2)]
    ties = [values.tolist().count(value) for value in set(values.tolist())]
    variance = (n * (n - 1) * (2 * n + 5) - sum(t * (t - 1) * (2 * t + 5) for t in ties)) / 18
    score, p_value = mann_kendall(values)
    assert score == sum(pairs)
    z = max(abs(score) - 1, 0) / math.sqrt(variance) if variance else 0
    assert p_value == pytest.approx(math.erfc(z / math.sqrt(2)))


@given(_SERIES)
def test_the_slope_is_the_median_of_all_slopes(values: Any) -> None:
    slopes = [
        (values[later] - values[earlier]) / (later - earlier)
        for earlier, later in itertools.combinations(range(len(values)), 2)
    ]
    assert theil_sen(values) == pytest.approx(float(np.median(slopes)))


def test_the_slope_of_a_long_series_agrees_with_all_pairs() -> None:
    values = 0.01 * np.arange(ALL_PAIRS_MAX + 1) + _noise(ALL_PAIRS_MAX + 1)
    assert theil_sen(values) == pytest.approx(theil_sen(values[:-1]), abs=2e-4)


@given(_SERIES, st.integers(2, 9))
def test_the_moving_average_is_the_mean_of_a_whole_period(values: Any, period: int) -> None:
    if period % 2:
        weights = np.full(period, 1 / period)
    else:
        weights = np.concatenate(([0.5], np.ones(period - 1), [0.5])) / period
    if len(weights) <= len(values):
        assert moving_average(values, period) == pytest.approx(np.convolve(values, weights, "valid"), abs=1e-9)


@given(_SERIES, st.integers(2, 3))
def test_a_season_is_put_back_as_it_was_taken_out(values: Any, period: int) -> None:
    for series in (values, values + 21.0):
        season = season_of(series, period)
        assert season is not None
        calm = season.remove(series)
        restored = [season.restore(float(value), index) for index, value in enumerate(calm)]
        assert restored == pytest.approx(series.tolist(), abs=1e-9)


def _cheapest(cost: Callable[[int, int], float], n: int, price: float, parameters: int) -> float:
    """All ways to cut are tried, from the left: what PELT finds by leaving out those that cannot win."""
    best = {0: -price}
    for end in range(SEGMENT_MIN, n + 1):
        totals = [best[start] + cost(start, end) for start in best if start <= end - SEGMENT_MIN]
        best[end] = min(totals) + (parameters + 1) * price
    return best[n]


@settings(deadline=None)
@given(_SERIES, st.sampled_from([1, 2]), st.floats(0.001, 2))
@example(np.array([0, 0, 0, -8, -20, 0, 0, 0, 0, 0, 3, -20, 0, 0, 0, 0, 4.0]), 1, 0.0625)
def test_the_segments_are_the_cheapest_of_all(values: Any, parameters: int, price: float) -> None:
    scaled = values / 20
    n = len(scaled)

    def cost(start: int, end: int) -> float:
        part = scaled[start:end]
        fitted = np.polyval(np.polyfit(np.arange(end - start), part, parameters - 1), np.arange(end - start))
        return float(((part - fitted) ** 2).sum())

    bounds, total = cut(Sums(scaled), parameters, price)
    assert total == pytest.approx(_cheapest(cost, n, price, parameters), abs=1e-9)
    assert all(end - start >= SEGMENT_MIN for start, end in itertools.pairwise([0, *bounds, n]))


@given(_SERIES)
def test_segments_cover_the_series_with_their_means(values: Any) -> None:
    scaled = values / 20
    pieces = segments_of(scaled)
    assert [piece.start for piece in pieces] == [0, *(piece.end for piece in pieces[:-1])]
    assert pieces[-1].end == len(values)
    for piece in pieces:
        assert piece.mean == pytest.approx(float(scaled[piece.start : piece.end].mean()), abs=1e-9)


@pytest.mark.parametrize("memory", [0.0, 0.5])
def test_the_variance_of_the_noise_is_that_in_the_long_run(memory: float) -> None:
    noise = _noise(20_000)
    values = np.array(list(itertools.accumulate(noise, lambda last, new: memory * last + new)))
    values[10_000:] += 10  # a change is no noise
    assert noise_variance(values) == pytest.approx(1 / (1 - memory) ** 2, rel=0.15)


def test_the_robust_deviation_is_that_of_normal_noise_and_unmoved_by_outliers() -> None:
    values = _noise(10_000)
    assert deviation(values) == pytest.approx(1, abs=0.03)
    values[:2000] = 1e6
    assert deviation(values) < 1.6
    assert deviation(np.array([3.0] * 10)) == 0


@pytest.mark.parametrize("n", [50, 1000, 20_000])
def test_scores_reach_their_limit_in_noise_as_rarely_as_they_should(n: int) -> None:
    found = trials = 0
    for seed in range(max(2, 20_000 // n)):
        values = _noise(n, seed)
        found += int((np.abs(scores(values, local_level(values))) > score_min(n)).sum())
        trials += n
    # Normal noise goes beyond 3.5 standard deviations in one of 2,150 cases.
    assert found / trials < 2 / 2150


_ANY = st.floats(-MAGNITUDE_MAX, MAGNITUDE_MAX) | st.sampled_from([0.0, 1.0, -1.0, 5e-324, MAGNITUDE_MAX])
_ANY_POSITIVE = st.floats(5e-324, MAGNITUDE_MAX) | st.sampled_from([5e-324, 1.0, MAGNITUDE_MAX])


@settings(deadline=None)
@given(
    st.lists(_ANY, min_size=10, max_size=40) | st.lists(_ANY_POSITIVE, min_size=10, max_size=40),
    st.none() | st.integers(2, 3),
)
def test_whatever_the_numbers_the_findings_can_be_stored(values: list[float], period: int | None) -> None:
    # Nothing overflows on the way, as warnings are errors here, and neither NaN nor infinity comes out.
    found = _find(values, period)
    definition_of(find_patterns).encode(FindPatternsResult(series=found))
    assert found.segments[-1].end == len(values)
