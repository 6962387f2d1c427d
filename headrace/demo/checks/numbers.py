"""Results about numbers."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from headrace.demo.checks.requirements import require
from headrace.demo.inputs import OUTLIERS

_HISTOGRAM_LINES = 8
_HISTOGRAM_WIDTH = 40


def statistics_findings(result: Mapping[str, Any], values: Sequence[float]) -> list[str]:
    expected = {
        "count": len(values),
        "mean": statistics.fmean(values),
        "median": statistics.median(values),
        "standard_deviation": statistics.stdev(values),
        "min": min(values),
        "max": max(values),
    }
    for name, value in expected.items():
        require(
            math.isclose(result[name], value, rel_tol=1e-9),
            f"calculate_statistics says {name} = {result[name]}, and it is {value}",
        )
    outliers = result["outliers"]
    require(outliers["count"] == OUTLIERS, f"calculate_statistics found {outliers['count']} outliers, not {OUTLIERS}")
    return [
        ", ".join(f"{name.replace('_', ' ')} {value:,.6g}" for name, value in expected.items()),
        f"{outliers['count']} outliers above {outliers['upper_fence']:.1f}: the scales that went wrong",
        *histogram_lines(result["histogram"]["edges"], result["histogram"]["counts"]),
    ]


def histogram_lines(edges: Sequence[float], counts: Sequence[int]) -> list[str]:
    """Draw the fullest bins, in order."""
    require(len(edges) == len(counts) + 1, "the histogram of calculate_statistics has not one edge more than bins")
    fullest = sorted(sorted(range(len(counts)), key=lambda index: -counts[index])[:_HISTOGRAM_LINES])
    scale = _HISTOGRAM_WIDTH / max(counts)
    return [
        f"{edges[index]:8.2f} to {edges[index + 1]:8.2f}  {'#' * math.ceil(counts[index] * scale):<{_HISTOGRAM_WIDTH}} "
        f"{counts[index]:,}"
        for index in fullest
        if counts[index]
    ]
