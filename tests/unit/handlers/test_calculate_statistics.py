"""The numbers are those of the definitions, also for samples that make naive formulas fail."""

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from execution_service.handlers.calculate_statistics import StatisticsData, StatisticsResult, bin_count, describe
from headrace.tasks import definition_of

_QUARTILES = [0.25, 0.5, 0.75]


def _describe(values: list[float]) -> StatisticsResult:
    return describe(values, _QUARTILES)


def test_a_known_sample_has_its_known_description() -> None:
    # Reference values: R 4 with e1071::skewness(x, type = 2), e1071::kurtosis(x, type = 2), quantile(x, type = 7).
    result = _describe([2, 4, 4, 4, 5, 5, 7, 9])
    assert (result.count, result.mean, result.median, result.modes) == (8, 5.0, 4.5, [4.0])
    assert result.variance == pytest.approx(32 / 7)
    assert result.standard_deviation == pytest.approx(math.sqrt(32 / 7))
    assert result.skewness == pytest.approx(0.8184876)
    assert result.kurtosis == pytest.approx(0.940625)
    assert [(item.q, item.value) for item in result.quantiles] == [(0.25, 4.0), (0.5, 4.5), (0.75, 5.5)]
    assert (result.outliers.lower_fence, result.outliers.upper_fence) == (1.75, 7.75)
    assert (result.outliers.count, result.outliers.values) == (1, [9.0])


def test_a_single_value_has_no_spread() -> None:
    result = _describe([3.5])
    assert (result.mean, result.median, result.min, result.max, result.modes) == (3.5, 3.5, 3.5, 3.5, [])
    assert (result.variance, result.standard_deviation, result.skewness, result.kurtosis) == (None, None, None, None)
    assert (result.histogram.edges, result.histogram.counts) == ([3.5, 3.5], [1])


def test_equal_values_have_no_variance_and_no_shape() -> None:
    result = _describe([0.1] * 10)
    assert (result.variance, result.standard_deviation, result.skewness, result.kurtosis) == (0.0, 0.0, None, None)
    assert (result.modes, result.outliers.count, result.histogram.counts) == ([0.1], 0, [10])


@pytest.mark.parametrize("size", [2, 3])
def test_shape_needs_enough_values(size: int) -> None:
    result = _describe([1.0, 2.0, 4.0][:size])
    assert (result.skewness is None) == (size < 3)
    assert result.kurtosis is None


def test_several_modes_are_all_named() -> None:
    assert _describe([3, 1, 3, 1, 2]).modes == [1.0, 3.0]
    assert _describe([1, 2, 3]).modes == []
    assert len(_describe([float(i // 2) for i in range(1000)]).modes) == 100


@pytest.mark.parametrize("scale", [1e150, 1e-150, 1e-300, 5e-324])
def test_very_large_and_very_small_values_are_not_lost(scale: float) -> None:
    result = _describe([-scale, 0.0, scale, scale])
    assert result.standard_deviation == pytest.approx(scale * math.sqrt(11 / 12), rel=0.5)
    assert result.skewness is not None
    assert all(math.isfinite(edge) for edge in result.histogram.edges)
    assert sum(result.histogram.counts) == 4


def test_a_large_offset_costs_no_precision() -> None:
    result = _describe([1e9 + 4, 1e9 + 7, 1e9 + 13, 1e9 + 16])
    assert result.variance == 30.0


def test_a_far_outlier_does_not_make_endless_bins() -> None:
    assert bin_count(1_000_000, 1e300, 1e-300) == 100
    assert len(_describe([*map(float, range(100)), 1e150]).histogram.counts) == 100


@pytest.mark.parametrize(
    "body",
    [
        b'{"values": []}',
        b'{"values": ["1"]}',
        b'{"values": [true]}',
        b'{"values": [null]}',
        b'{"values": [NaN]}',
        b'{"values": [Infinity]}',
        b'{"values": [1e400]}',
        b'{"values": [1e151]}',
        b'{"values": [1], "quantiles": [1.1]}',
        b'{"values": [1], "quantiles": [-0.1]}',
        b'{"values": [1], "more": 1}',
        b'{"values": 1}',
        b"{}",
    ],
)
def test_what_is_no_sample_is_refused(body: bytes) -> None:
    with pytest.raises(ValidationError):
        StatisticsData.model_validate_json(body)


def test_a_million_values_are_described_and_the_result_stays_small() -> None:
    from execution_service.handlers.calculate_statistics import calculate_statistics

    values = [float((i * 7919) % 1_000_003) for i in range(1_000_000)]
    result = describe(values, _QUARTILES)
    assert result.mean == pytest.approx(statistics.fmean(values))
    assert len(definition_of(calculate_statistics).encode(result)) < 10_000


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=50))
def test_any_sample_agrees_with_the_standard_library(values: list[float]) -> None:
    result = _describe(values)
    assert result.mean == pytest.approx(statistics.fmean(values), abs=1e-6)
    assert result.median == pytest.approx(statistics.median(values), abs=1e-9)
    assert result.variance == pytest.approx(statistics.variance(values), rel=1e-6, abs=1e-9)
    assert (result.min, result.max) == (min(values), max(values))
    assert sum(result.histogram.counts) == len(values)
    assert result.outliers.count == sum(
        not result.outliers.lower_fence <= value <= result.outliers.upper_fence for value in values
    )
    wanted = [statistics.quantiles(values, n=4, method="inclusive")[i] for i in range(3)]
    assert [item.value for item in result.quantiles] == pytest.approx(wanted, abs=1e-6)
