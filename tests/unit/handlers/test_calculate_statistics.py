"""The numbers are those of the definitions, also for samples that make naive formulas fail."""

import json
import math
import statistics
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from execution_service.handlers.calculate_statistics import calculate_statistics
from execution_service.handlers.statistics.models import (
    CELL_TEXT_MAX,
    LISTED_MAX,
    NAME_MAX,
    RecordStatistics,
    SampleStatistics,
    StatisticsData,
    StatisticsResult,
)
from execution_service.handlers.statistics.records import DESCRIPTIONS_MAX, describe_records
from execution_service.handlers.statistics.sample import bin_count, describe
from headrace.tasks import RESULT_BYTES_MAX, PermanentError, definition_of

_QUARTILES = [0.25, 0.5, 0.75]

# F. J. Anscombe, "Graphs in Statistical Analysis", The American Statistician 27 (1973).
_ANSCOMBE_X = [10, 8, 13, 9, 11, 14, 6, 4, 12, 7, 5]
_ANSCOMBE = {
    "I": (_ANSCOMBE_X, [8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68]),
    "II": (_ANSCOMBE_X, [9.14, 8.14, 8.74, 8.77, 9.26, 8.10, 6.13, 3.10, 9.13, 7.26, 4.74]),
    "III": (_ANSCOMBE_X, [7.46, 6.77, 12.74, 7.11, 7.81, 8.84, 6.08, 5.39, 8.15, 6.42, 5.73]),
    "IV": ([8] * 7 + [19] + [8] * 3, [6.58, 5.76, 7.71, 8.84, 8.47, 7.04, 5.25, 12.50, 5.56, 7.91, 6.89]),
}


def _describe(values: Sequence[float | None], quantiles: Sequence[float] = _QUARTILES) -> SampleStatistics:
    description = describe(values, quantiles)
    assert description is not None
    return description


def _alternating(middle: float, low: float, high: float) -> list[float]:
    """As the data sets NumAcc2 to 4 of NIST are made: one value, then two others in turn, 500 times each."""
    return [middle, *(low if index % 2 else high for index in range(1000, 0, -1))]


# "Mavro" of NIST: the transmittance of a filter, less 2, in units of 0.0001 (R. Mavrodineanu).
_MAVRODINEANU = """
18 17 18 19 18 17 15 14 15 15 17 18 18 19 19 21 20 16 14 13 13 15 15 16 15 14 13 14 15 14 15 16 15 16 19 20 20 21 22 23
24 25 27 26 26 26 27 26 25 24"""
# "Michelso" of NIST: the speed of light, less 299,000 km/s, as A. A. Michelson measured it in 1879.
_MICHELSON = """
850 740 900 1070 930 850 950 980 980 880 1000 980 930 650 760 810 1000 1000 960 960 960 940 960 940 880 800 850 880 900
840 830 790 810 880 880 830 800 790 760 800 880 880 880 860 720 720 620 860 970 950 880 910 850 870 840 840 850 840 840
840 890 810 810 820 800 770 760 740 750 760 910 920 890 860 880 720 840 850 850 780 890 840 780 810 760 810 790 810 820
850 870 870 810 740 810 940 950 800 810 870"""


@pytest.mark.parametrize(
    ("values", "mean", "deviation", "precision"),
    [
        pytest.param([10000001.0, 10000003.0, 10000002.0], 10000002, 1, 0, id="NumAcc1"),
        pytest.param(_alternating(1.2, 1.1, 1.3), 1.2, 0.1, 1e-14, id="NumAcc2"),
        # What is lost here are digits of the values themselves, which are no binary fractions.
        pytest.param(_alternating(1000000.2, 1000000.1, 1000000.3), 1000000.2, 0.1, 1e-9, id="NumAcc3"),
        pytest.param(_alternating(10000000.2, 10000000.1, 10000000.3), 10000000.2, 0.1, 1e-8, id="NumAcc4"),
        pytest.param(
            [float(f"2.00{digits}") for digits in _MAVRODINEANU.split()],
            2.001856,
            0.000429123454003053,
            1e-12,
            id="Mavro",
        ),
        pytest.param(
            [299 + int(value) / 1000 for value in _MICHELSON.split()],
            299.8524,
            0.0790105478190518,
            1e-12,
            id="Michelso",
        ),
    ],
)
def test_the_certified_values_of_nist_are_met(
    values: list[float], mean: float, deviation: float, precision: float
) -> None:
    # Statistical Reference Datasets, univariate summary statistics, https://www.itl.nist.gov/div898/strd/.
    result = _describe(values)
    assert result.mean == pytest.approx(mean, rel=1e-15)
    assert result.standard_deviation == pytest.approx(deviation, rel=precision)


def test_quantiles_are_those_of_the_handbook_of_nist() -> None:
    # NIST/SEMATECH e-Handbook of Statistical Methods, 7.2.6.2: the 90th percentile by definition 7.
    wafers = [
        95.1772,
        95.1567,
        95.1937,
        95.1959,
        95.1442,
        95.0610,
        95.1591,
        95.1195,
        95.1065,
        95.0925,
        95.1990,
        95.1682,
    ]
    assert _describe(wafers, [0.9]).quantiles[0].value == pytest.approx(95.19568, abs=1e-9)


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
        b'{"values": [null, null]}',
        b'{"values": [1], "records": [{"a": 1}]}',
        b'{"values": [1], "columns": ["a"]}',
        b'{"values": [1], "group_by": "a"}',
        b'{"values": null}',
        b'{"records": []}',
        b'{"records": [{}]}',
        b'{"records": [{"a": [1]}]}',
        b'{"records": [{"a": {"b": 1}}]}',
        b'{"records": [{"": 1}]}',
        b'{"records": [{"a": 1e151}]}',
        b'{"records": [{"a": 1}], "columns": []}',
        b'{"records": [{"a": 1}], "columns": ["a", "a"]}',
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
    values = [float((i * 7919) % 1_000_003) for i in range(1_000_000)]
    result = _describe(values)
    assert result.mean == pytest.approx(statistics.fmean(values))
    assert len(definition_of(calculate_statistics).encode(StatisticsResult(result))) < 10_000


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


_VALUES = st.lists(st.none() | st.floats(-1e12, 1e12), min_size=1, max_size=50).filter(any)


@given(_VALUES)
def test_the_mean_lies_among_the_values_and_the_bins_hold_them_all(values: list[float | None]) -> None:
    result = _describe(values)
    assert result.min <= result.mean <= result.max
    assert sum(result.histogram.counts) == result.count
    assert result.count + result.missing == len(values)
    assert result == _describe([*reversed(values)])


@given(st.lists(st.integers(-(2**20), 2**20), min_size=2, max_size=50), st.integers(-(2**30), 2**30))
def test_a_shift_moves_the_mean_and_leaves_the_spread(values: list[int], shift: int) -> None:
    # Of whole numbers, so that the shift itself loses nothing.
    before, after = _describe([float(value) for value in values]), _describe([float(value + shift) for value in values])
    assert after.mean == pytest.approx(before.mean + shift, abs=1e-6)
    assert after.variance == pytest.approx(before.variance, rel=1e-6, abs=1e-6)
    assert after.histogram.counts == before.histogram.counts
    assert after.outliers.count == before.outliers.count


def test_missing_values_are_counted_and_left_out() -> None:
    assert _describe([1, None, 3, None]) == _describe([3, 1]).model_copy(update={"missing": 2})
    assert describe([None], _QUARTILES) is None


def _records(rows: list[dict[str, Any]], **options: Any) -> RecordStatistics:
    data = StatisticsData.model_validate_json(json.dumps({"records": rows, **options}))
    result = calculate_statistics(data).root
    assert isinstance(result, RecordStatistics)
    return result


def test_anscombes_four_sets_are_alike_in_their_moments() -> None:
    rows = [{"set": name, "x": x, "y": y} for name, columns in _ANSCOMBE.items() for x, y in zip(*columns, strict=True)]
    result = _records(rows, group_by="set")
    assert (result.records, result.groups) == (44, 4)
    assert [(entry.group, entry.column) for entry in result.columns] == [
        (name, column) for name in ("I", "II", "III", "IV") for column in ("x", "y")
    ]
    for entry in result.columns:
        assert entry.records == 11
        assert entry.statistics is not None
        mean, variance = (9, 11) if entry.column == "x" else (7.5, 4.125)
        assert entry.statistics.mean == pytest.approx(mean, abs=0.002)
        assert entry.statistics.variance == pytest.approx(variance, abs=0.003)


def test_columns_without_being_asked_for_are_those_of_numbers_alone() -> None:
    rows = [{"id": "a", "n": 1, "mixed": 1, "flag": True, "empty": None}, {"mixed": "1", "late": 2.5}]
    assert [entry.column for entry in _records(rows).columns] == ["n", "late"]
    assert [entry.column for entry in _records(rows, group_by="n").columns] == ["late", "late"]


def test_columns_come_in_the_order_asked_for() -> None:
    result = _records([{"a": 1, "b": 2}], columns=["b", "a"])
    assert [(entry.group, entry.column) for entry in result.columns] == [(None, "b"), (None, "a")]


def test_groups_come_in_the_order_of_the_records_and_tell_types_apart() -> None:
    keys: list[Any] = [1, "1", True, 1.0, None, "", False, 0]
    result = _records([*({"key": key, "n": 1} for key in keys), {"n": 2}], columns=["n"], group_by="key")
    groups = [(entry.group, entry.records) for entry in result.columns]
    # Without its type, True equals 1 also in the comparison here.
    assert [(type(group), group, records) for group, records in groups] == [
        (int, 1, 2), (str, "1", 1), (bool, True, 1), (type(None), None, 2), (str, "", 1), (bool, False, 1), (int, 0, 1)
    ]  # fmt: skip


def test_a_column_that_a_group_does_not_have_has_no_statistics_there() -> None:
    first, second = _records([{"g": 1, "n": 5}, {"g": 2}, {"g": 2, "n": None}], group_by="g").columns
    assert (first.records, first.statistics) == (1, _describe([5]))
    assert (second.records, second.statistics) == (2, None)


@pytest.mark.parametrize(
    ("options", "code", "named"),
    [
        ({"columns": ["m"]}, "unknown_column", "'m'"),
        ({"group_by": "m"}, "unknown_column", "'m'"),
        ({"columns": ["text"]}, "not_numeric", "/records/1"),
        ({"columns": ["flag"]}, "not_numeric", "/records/0"),
        ({"group_by": "n"}, "not_numeric", "No column"),
    ],
)
def test_columns_that_cannot_be_described_are_named(options: dict[str, Any], code: str, named: str) -> None:
    rows: list[dict[str, Any]] = [{"n": 1, "text": None, "flag": False}, {"n": 1, "text": "x", "flag": True}]
    with pytest.raises(PermanentError, match=named) as raised:
        _records(rows, **options)
    assert raised.value.code == code


def test_groups_times_columns_are_bounded() -> None:
    rows = [{"g": index, "a": 1, "b": 2} for index in range(DESCRIPTIONS_MAX // 2)]
    assert len(_records(rows, group_by="g", columns=["a", "b"]).columns) == DESCRIPTIONS_MAX
    with pytest.raises(PermanentError, match="251 groups times 2 columns make 502") as raised:
        _records([*rows, {"g": -1, "a": 1, "b": 2}], group_by="g", columns=["a", "b"])
    assert raised.value.code == "cost_too_high"


def test_the_largest_result_can_be_stored() -> None:
    def awkward(index: int, scale: float) -> float:
        return -math.sqrt(index + 2) * scale  # with all its digits

    # Every list in every description is full: modes, outliers, quantiles, and bins.
    sample = [awkward(index, 1e-100) for index in range(80)] + [awkward(index, 1e140) for index in range(20)]
    rows: list[dict[str, Any]] = [
        {"\1" * NAME_MAX: value, "g": f"{group:\1>{CELL_TEXT_MAX}}"}
        for group in range(DESCRIPTIONS_MAX)
        for value in sample * 2
    ]
    quantiles = [1 - math.sqrt(index + 2) / 100 for index in range(LISTED_MAX)]
    result = describe_records(rows, None, "g", quantiles)
    assert 5_000_000 < len(definition_of(calculate_statistics).encode(StatisticsResult(result))) < RESULT_BYTES_MAX


_CELL = st.none() | st.integers(-100, 100) | st.floats(-1e6, 1e6)
_ROW = st.fixed_dictionaries({"n": _CELL}, optional={"group": st.sampled_from(["a", "b", 1, True, None]), "m": _CELL})


@given(st.lists(_ROW, min_size=1, max_size=30).filter(lambda rows: any(row["n"] is not None for row in rows)))
def test_the_groups_add_up_to_the_records(rows: list[dict[str, Any]]) -> None:
    if not any("group" in row for row in rows):
        rows[0]["group"] = "a"
    grouped = describe_records(rows, ["n"], "group", [])
    (whole,) = describe_records(rows, ["n"], None, []).columns
    assert whole.statistics is not None
    parts = [entry.statistics for entry in grouped.columns if entry.statistics is not None]
    assert sum(entry.records for entry in grouped.columns) == whole.records == len(rows)
    assert sum(part.count for part in parts) == whole.statistics.count
    assert min(part.min for part in parts) == whole.statistics.min
    assert max(part.max for part in parts) == whole.statistics.max
    for entry in grouped.columns:
        if entry.statistics is not None:
            assert entry.statistics.count + entry.statistics.missing == entry.records
