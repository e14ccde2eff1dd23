"""From residuals and scores of normal driving to scales and a threshold. Pure, on arrays.

Rows are grouped by vehicle and in the order measured; `segment` numbers the stretch (vehicle and
boot) that a row belongs to, equal neighbours being one stretch.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoring.bundle import PolicySettings

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

BLOCK_S = 60
BUDGET_SHARE = 0.7
TAIL_BLOCKS = 0.25
ENOUGH_ALLOWED = 3


@dataclass(frozen=True, slots=True)
class Threshold:
    """A threshold and how it came about.

    Attributes:
        value: Scores above it count for the alert policy.
        method: 'block-maxima' (measured), or 'extrapolated' (fewer hours than the budget needs).
        hours: Vehicle-hours of normal driving behind it.
        blocks: Blocks of `BLOCK_S` with a score.
        expected_per_hour: Blocks per vehicle-hour that exceed it in this data.
    """

    value: float
    method: str
    hours: float
    blocks: int
    expected_per_hour: float


def residual_scale(
    residuals: NDArray[Any],
    segment: Int64,
    time_ms: Int64,
    *,
    floor: Float64,
    policy: PolicySettings,
    budget_per_hour: float,
) -> Float64:
    """The unit in which each feature's residual counts: the level it keeps to in normal driving.

    Level means what the policy sees, the residual that k of n readings exceed: a spike at a gear
    change counts nothing, a drift counts whole. It is the one that the feature alone would
    exceed as often as `BUDGET_SHARE` of the budget allows; with little driving, the highest. So
    the restless features (engine speed) do not set the threshold for the calm ones (tyres).

    Args:
        residuals: Shape (R, F), normalised units; NaN where a feature was absent.
        segment: Stretch of each row, shape (R,).
        time_ms: Feature time, shape (R,).
        floor: Least scale of each feature, shape (F,), > 0: half a step of the sensor, so that a
            signal which hardly moves does not alarm on its own quantisation.
        policy: That will decide.
        budget_per_hour: False alerts per vehicle-hour that are tolerable.

    Returns:
        Shape (F,), >= `floor`.
    """
    allowed = int(BUDGET_SHARE * budget_per_hour * driven_hours(segment, time_ms))
    levels = np.zeros(residuals.shape[1])
    for column, size in enumerate(np.abs(residuals).T):
        present = np.flatnonzero(np.isfinite(size))
        statistic = policy_statistic(size[present], segment[present], k=policy.k, n=policy.n)
        maxima = block_maxima(statistic, segment[present], time_ms[present])
        if len(maxima):
            levels[column] = maxima[min(allowed, len(maxima) - 1)]
    return np.maximum(levels, floor)


def policy_statistic(scores: NDArray[Any], segment: Int64, *, k: int, n: int) -> Float64:
    """The threshold below which 'k of the last n scores' would be met, at each row.

    It is the k-th largest of the last n scores of the stretch: an alert opens at a row exactly if
    this exceeds the threshold. -inf until k scores are there.

    Args:
        scores: Shape (R,), finite: the policy skips what has no score, so leave it out.
        segment: Shape (R,), stretch of each row; equal neighbours are one stretch.
        k: Scores that must exceed, 1 <= k <= n.
        n: Of how many.

    Returns:
        Shape (R,).
    """
    rows = len(scores)
    lagged = np.full((rows, n), -np.inf)
    clean = scores.astype(np.float64)
    for lag in range(min(n, rows)):
        same = segment[lag:] == segment[: rows - lag]
        lagged[lag:, lag] = np.where(same, clean[: rows - lag], -np.inf)
    return np.asarray(np.partition(lagged, n - k, axis=1)[:, n - k])


def block_maxima(statistic: Float64, segment: Int64, time_ms: Int64) -> Float64:
    """Greatest finite statistic of each stretch in each minute, descending, shape (B,)."""
    if not len(statistic):
        return np.empty(0)
    block = time_ms // (BLOCK_S * 1000)
    starts = np.flatnonzero(
        np.concatenate(([True], (np.diff(segment) != 0) | (np.diff(block) != 0)))
    )
    maxima = np.maximum.reduceat(statistic, starts)
    return np.sort(maxima[np.isfinite(maxima)])[::-1]


def driven_hours(segment: Int64, time_ms: Int64, *, gap_s: float = 10.0) -> float:
    """Vehicle-hours that the rows cover; a pause longer than `gap_s` counts nothing."""
    step = np.diff(time_ms)
    inside = (np.diff(segment) == 0) & (step > 0) & (step <= gap_s * 1000)
    return float(step[inside].sum()) / 3_600_000


def choose_threshold(
    maxima: Float64, hours: float, *, budget_per_hour: float, margin: float
) -> Threshold:
    """The threshold that keeps false alerts of normal driving within the budget.

    With enough driving (the budget allows `ENOUGH_ALLOWED` blocks or more to exceed) it is the
    quantile of the block maxima at `BUDGET_SHARE` of the budget. With less, that quantile is one
    odd vehicle's; then the tail is taken as exponential, fitted to the highest quarter of the
    maxima, and the level read off it where the budget is met, times `margin`. Never do more
    blocks of this data exceed than the budget allows, rounded up.

    Args:
        maxima: Block maxima, descending, shape (B,).
        hours: Vehicle-hours behind them, > 0.
        budget_per_hour: False alerts per vehicle-hour that are tolerable, > 0.
        margin: Factor on an extrapolated level, >= 1.

    Raises:
        ValueError: There are no maxima, or `hours` is not above 0.
    """
    if not len(maxima) or not hours > 0:
        raise ValueError("no normal driving to take a threshold from")
    allowed = BUDGET_SHARE * budget_per_hour * hours
    count = int(allowed)
    if count >= ENOUGH_ALLOWED and count < len(maxima):
        value, method = float(maxima[count]), "block-maxima"
    else:
        value, method = _extrapolated(maxima, allowed, margin), "extrapolated"
    exceeding = int((maxima > value).sum())
    return Threshold(value, method, hours, len(maxima), exceeding / hours)


def _extrapolated(maxima: Float64, allowed: float, margin: float) -> float:
    """Level that `allowed` blocks of as much driving exceed, by an exponential tail."""
    top = max(1, int(np.ceil(len(maxima) * TAIL_BLOCKS)))
    tail = maxima[: top + 1]
    scale = float(np.mean(tail[:top] - tail[-1]))
    level = float(tail[-1]) + scale * np.log(max(top / max(allowed, 1e-9), 1.0))
    least = float(maxima[min(int(np.ceil(allowed)), len(maxima) - 1)])
    return float(max(level * margin, least))
