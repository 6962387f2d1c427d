"""Finds where a series changes, and describes the segments between the changes.

Segments are sought twice: as levels, with a mean each, and as lines, with a slope each as well. What explains the
series at the lower price counts. Both searches are exact (PELT: R. Killick, P. Fearnhead and I. A. Eckley, "Optimal
Detection of Changepoints With a Linear Computational Cost", JASA 107, 2012): they minimise the squares that are left,
plus a penalty for each change of 1.5·ln(n) variances for its place and for each parameter of a segment, a half more
than Schwarz' BIC (1978). Segments have at least five values.

The variance is that of the noise in the long run. Noise with a memory of one step, AR(1), is told from changes by the
differences over one step and over two, whose variances are as 1 to 1 + ρ (S. Chakar et al., "A robust approach for
estimating change-points in the mean of an AR(1) process", Bernoulli 23, 2017); ρ counts from 0 to 0.9. A series of more
than 4,000 values is cut at a grid of 4,000 places first, and each change then moved to the best place around.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from execution_service.handlers.patterns.robust import deviation

if TYPE_CHECKING:
    from execution_service.handlers.patterns.arrays import Array, Indices

SEGMENT_MIN = 5
GRID_MAX = 4000
_MEMORY_MAX = 0.9
_PRICE = 1.5
# Noise of less than this, in a series from -1 to 1, would be lost in the rounding of sums.
_NOISE_MIN = 1e-5


@dataclass(frozen=True, slots=True)
class Piece:
    """A segment from `start` to before `end`."""

    start: int
    end: int
    mean: float
    slope: float


def segments_of(values: "Array") -> list[Piece]:
    """Return the segments of a series whose values lie between -1 and 1."""
    price = _PRICE * math.log(len(values)) * noise_variance(values)
    sums = Sums(values)
    levels, levels_cost = cut(sums, 1, price)
    lines, lines_cost = cut(sums, 2, price)
    sloping = lines_cost < levels_cost
    return [
        Piece(start, end, sums.mean(start, end), sums.slope(start, end) if sloping else 0.0)
        for start, end in pairwise([0, *(lines if sloping else levels), len(values)])
    ]


def noise_variance(values: "Array") -> float:
    """Return the variance of the noise in the long run; if it is independent, that is its variance.

    Few differences span a change, so that changes hardly matter.
    """
    one = deviation(values[1:] - values[:-1]) ** 2
    two = deviation(values[2:] - values[:-2]) ** 2
    memory = min(max(two / one - 1, 0), _MEMORY_MAX) if one > 0 else 0
    return max(one / 2 * (1 + memory) / (1 - memory) ** 2, _NOISE_MIN**2)


class Sums:
    """Sums over the beginnings of a series, from which the cost of any segment follows at once."""

    def __init__(self, values: "Array") -> None:
        import numpy as np

        time = np.arange(len(values)) / len(values)
        self.length = len(values)
        self._sums = [
            np.concatenate(([0.0], each.cumsum())) for each in (values, values**2, time, time**2, time * values)
        ]

    def mean(self, start: int, end: int) -> float:
        """Return the mean of a segment."""
        return float(self._sums[0][end] - self._sums[0][start]) / (end - start)

    def slope(self, start: int, end: int) -> float:
        """Return the slope of the straight line through a segment, for each step."""
        _, time_spread, product = self._spreads(start, end)
        return float(product / time_spread) / self.length

    def cost(self, parameters: int, starts: "Indices", ends: "Indices") -> "Array":
        """Return the sum of the squares that a level (one parameter) or a line (two) leaves of each segment."""
        import numpy as np

        spread, time_spread, product = self._spreads(starts, ends)
        return np.maximum(spread if parameters == 1 else spread - product**2 / time_spread, 0)

    def _spreads(self, starts: "Indices", ends: "Indices") -> tuple["Array", "Array", "Array"]:
        y, yy, t, tt, ty = (each[ends] - each[starts] for each in self._sums)
        lengths = ends - starts
        return yy - y * y / lengths, tt - t * t / lengths, ty - t * y / lengths


def cut(sums: Sums, parameters: int, price: float) -> tuple[list[int], float]:
    """Return where segments begin, but for the first, and what all of them cost."""
    import numpy as np

    n = sums.length
    step = math.ceil(n / GRID_MAX)
    penalty = (parameters + 1) * price
    # Where a segment may start, with the cost of the best segments up to there, and until which end it may be the best
    # start: one that is dearer than an end is never better than this again, once a segment from there is long enough.
    starts, costs, limits = np.array([0]), np.array([-price]), np.array([n + 1])
    begins: dict[int, int] = {}
    for end in [*range(step * math.ceil(SEGMENT_MIN / step), n - SEGMENT_MIN + 1, step), n]:
        starts, costs, limits = (each[limits > end] for each in (starts, costs, limits))
        ripe = starts <= end - SEGMENT_MIN
        totals = costs[ripe] + sums.cost(parameters, starts[ripe], end)
        best = int(totals.argmin())
        begins[end] = int(starts[ripe][best])
        cost = totals[best] + penalty
        limits[ripe] = np.where(totals > cost, np.minimum(limits[ripe], end + SEGMENT_MIN), limits[ripe])
        starts, costs, limits = np.append(starts, end), np.append(costs, cost), np.append(limits, n + 1)
    bounds = [n]
    while bounds[-1] > 0:
        bounds.append(begins[bounds[-1]])
    bounds.reverse()
    if step > 1:
        _move(bounds, sums, parameters, step)
    squares = sums.cost(parameters, np.array(bounds[:-1]), np.array(bounds[1:])).sum()
    return bounds[1:-1], float(squares) + penalty * (len(bounds) - 2) + parameters * price


def _move(bounds: list[int], sums: Sums, parameters: int, step: int) -> None:
    """Move each change to the best place up to a step away."""
    import numpy as np

    for index in range(1, len(bounds) - 1):
        before, here, after = bounds[index - 1 : index + 2]
        places = np.arange(max(here - step, before + SEGMENT_MIN), min(here + step, after - SEGMENT_MIN) + 1)
        costs = sums.cost(parameters, before, places) + sums.cost(parameters, places, after)
        bounds[index] = int(places[costs.argmin()])
