"""Histograms that add up, and how far two of them are apart. Pure, on arrays.

Whoever scores counts into fixed bins; counts of many processes and many seconds are added; only
then are distributions compared. Hot path: `LogBins.count` costs some nanoseconds a value.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Shares = NDArray[np.float64]

_MANTISSA_BITS = 23
_EXPONENT_BIAS = 127
SMOOTHING = 0.5
"""Added to each effective count, so that an empty bin has a finite logarithm."""


@dataclass(frozen=True, slots=True)
class LogBins:
    """Bins of equal steps within each doubling: a relative error that is the same everywhere.

    The bin of a value is the upper bits of its float32, so that counting needs no logarithm, and
    edges are exact. The first bin holds what is below 2^low, the last one what is above 2^high.

    Attributes:
        low: Exponent of the first edge.
        high: Exponent of the last edge.
        bits: 2^bits bins a doubling.

    Example:
        >>> bins = LogBins(-1, 1, 1)
        >>> bins.edges.tolist()
        [0.5, 0.75, 1.0, 1.5, 2.0]
        >>> bins.count(np.array([0.1, 1.0, 1.4, 7.0])).tolist()
        [1, 0, 0, 2, 0, 1]

    References:
        HdrHistogram (Gil Tene) has this layout; why relative errors are what counts and adds up:
        Masson, Rim and Lee, DDSketch, PVLDB 12, 2019, doi:10.14778/3352063.3352135.
    """

    low: int
    high: int
    bits: int

    def __len__(self) -> int:
        return ((self.high - self.low) << self.bits) + 2

    @property
    def edges(self) -> NDArray[np.float64]:
        """Where one bin ends and the next begins; it belongs to the next. Shape (len - 1,)."""
        step = np.arange(len(self) - 1)
        within = 1.0 + (step & ((1 << self.bits) - 1)) / (1 << self.bits)
        return np.ldexp(within, self.low + (step >> self.bits))

    def count(self, values: NDArray[Any], weights: NDArray[Any] | None = None) -> Counts:
        """How many values fall in each bin; NaN falls in none.

        Args:
            values: Shape (N,).
            weights: Whole numbers: each value counts so often. Shape (N,).

        Returns:
            Shape (len,).
        """
        as_float = np.asarray(values, np.float32)
        known = ~np.isnan(as_float)
        if not known.all():
            as_float = as_float[known]
            weights = None if weights is None else weights[known]
        first = ((self.low + _EXPONENT_BIAS) << self.bits) - 1
        place = np.ascontiguousarray(as_float).view(np.int32) >> (_MANTISSA_BITS - self.bits)
        place -= np.int32(first)
        np.clip(place, 0, len(self) - 1, out=place)
        return np.bincount(place, weights, len(self)).astype(np.int64)

    def quantile(self, counts: Sequence[int] | Counts, q: float) -> float:
        """The value below which the share `q` of what was counted lies; NaN of nothing.

        Straight between the edges of its bin; in the last bin its lower edge.
        """
        sums = np.cumsum(np.asarray(counts, np.float64))
        if not len(sums) or sums[-1] <= 0:
            return math.nan
        wanted = q * sums[-1]
        at = min(int(np.searchsorted(sums, wanted)), len(self) - 1)
        edges = np.concatenate(([0.0], self.edges))
        if at >= len(edges) - 1:
            return float(edges[-1])
        before = sums[at - 1] if at else 0.0
        inside = (wanted - before) / max(sums[at] - before, 1e-12)
        return float(edges[at] + (edges[at + 1] - edges[at]) * min(max(inside, 0.0), 1.0))


SCORE_BINS = LogBins(-12, 8, 1)
"""Of score / threshold: what lies at 1 and above exceeds."""

TIME_BINS = LogBins(-20, 18, 2)
"""Of seconds: a microsecond to three days."""


def added(counts: Counts, more: Sequence[int] | Counts) -> Counts:
    """Sum of two histograms; an empty sequence stands for nothing counted.

    Raises:
        ValueError: They have different bins.
    """
    if not len(more):
        return counts
    if len(more) != len(counts):
        raise ValueError(f"{len(more)} bins do not add to {len(counts)}")
    return counts + np.asarray(more, np.int64)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many independent observations stand behind two histograms.

    Rows of one vehicle are alike, so vehicles are counted, not rows. Where a vehicle's rows are
    all the same (tyre pressure) that is exact; where they are not, the limits below are too wide
    and never too narrow (Kish, Survey Sampling, 1965: the design effect is at most the rows in a
    cluster).

    Attributes:
        reference: Behind the first, > 0.
        current: Behind the second, > 0.
    """

    reference: float
    current: float

    @property
    def variance(self) -> float:
        """1/m + 1/n."""
        return 1.0 / self.reference + 1.0 / self.current


def psi(reference: Counts, current: Counts, sizes: Sizes) -> float:
    """Population stability index: Jeffreys' divergence of two histograms with the same bins.

    Each is scaled to its number of independent observations and smoothed by half an observation
    a bin, so that a bin empty by chance weighs little with few observations.

    Args:
        reference: Shape (B,), a sum above 0.
        current: Same shape, a sum above 0.
        sizes: Independent observations behind them.

    Returns:
        At least 0; 0 where the shares are equal and the sizes are.

    References:
        Siddiqi, Credit Risk Scorecards, 2006; Jeffreys, Proc. R. Soc. A 186, 1946.
    """
    expected = _smoothed(reference, sizes.reference)
    found = _smoothed(current, sizes.current)
    return float(((found - expected) * np.log(found / expected)).sum())


def psi_limit(reference: Counts, current: Counts, sizes: Sizes, *, alpha: float) -> float:
    """What the index exceeds with probability `alpha` though nothing changed.

    The index is then distributed as (1/m + 1/n) times chi-squared with one degree of freedom
    less than bins that hold anything.

    References:
        Yurdakul and Naranjo, J. Risk Model Validation 14(4), 2020, doi:10.21314/JRMV.2020.227.
    """
    occupied = int(((reference > 0) | (current > 0)).sum())
    return sizes.variance * chi_squared_quantile(1.0 - alpha, max(occupied - 1, 1))


def ks_distance(reference: Counts, current: Counts) -> float:
    """Greatest difference of two distribution functions, looked at where bins end; 0..1.

    Binning can only make it smaller, so `ks_limit` holds (Noether, Ann. Math. Stat. 34, 1963).
    """
    return float(np.abs(_rising(reference) - _rising(current)).max(initial=0.0))


def ks_limit(sizes: Sizes, *, alpha: float) -> float:
    """What the two-sample distance exceeds with probability at most `alpha` under no change.

    References:
        Smirnov, Ann. Math. Stat. 19, 1948; as a bound for finite samples with the constant 2:
        Wei and Dudley, Statist. Probab. Lett. 82, 2012, doi:10.1016/j.spl.2011.10.012.
    """
    return math.sqrt(-math.log(alpha / 2.0) / 2.0 * sizes.variance)


def chi_squared_quantile(share: float, degrees: int) -> float:
    """By Wilson and Hilferty's cube root (PNAS 17, 1931): within 3 % from two degrees on.

    Example:
        >>> round(chi_squared_quantile(0.999, 19), 1)  # exactly 43.8
        43.9
    """
    spread = 2.0 / (9.0 * degrees)
    root = 1.0 - spread + NormalDist().inv_cdf(share) * math.sqrt(spread)
    return degrees * max(root, 0.0) ** 3


def _smoothed(counts: Counts, size: float) -> Shares:
    scaled = counts * (size / counts.sum()) + SMOOTHING
    return np.asarray(scaled / scaled.sum(), np.float64)


def _rising(counts: Counts) -> Shares:
    return np.asarray(np.cumsum(counts) / max(counts.sum(), 1), np.float64)
