"""How much a model was shown: time driven, and readings of which a score may be expected.

Hot path: works on arrays, a batch at a time, without a loop over vehicles or readings.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.columns import TelemetryColumns
from scoring.stream import Scored

STEP_MAX_MS = 10_000
"""A longer pause between two readings of a vehicle counts as time not driven."""

_NEVER_MS = -(1 << 60)


@dataclass(frozen=True, slots=True)
class Seen:
    """Of one batch.

    Attributes:
        vehicle_s: Seconds between the readings of each vehicle, added up.
        judged: Readings that have signals enough for a score.
        missing: Of these, without one.
    """

    vehicle_s: float
    judged: int
    missing: int


class Exposure:
    """Follows up to `max_vehicles` vehicles by the rows that the scorer gives them.

    A windowed model has no score before its window is full; readings without a pause are counted
    for that. 16 bytes a row.

    Args:
        max_vehicles: Rows.
        window: Readings that the model is shown at once.
    """

    def __init__(self, max_vehicles: int, *, window: int) -> None:
        self._window = window
        self._last_ms = np.full(max_vehicles, _NEVER_MS, np.int64)
        self._run = np.zeros(max_vehicles, np.int64)

    def take(self, columns: TelemetryColumns, scored: Scored) -> Seen:
        """Count a batch that was scored; stale messages count nothing.

        Args:
            columns: Of M messages with R readings.
            scored: What came out.
        """
        fresh = np.flatnonzero(~np.repeat(scored.stale, columns.counts))
        if not fresh.size:
            return Seen(0.0, 0, 0)
        rows = np.repeat(np.concatenate(scored.vehicle_rows), columns.counts)[fresh]
        order = np.argsort(rows, kind="stable")
        vehicle_ms, run = self._follow(rows[order], columns.event_time_ms[fresh[order]])
        judged = fresh[order][run >= self._window]
        enough = np.concatenate([_enough(matrix) for matrix in scored.features])[judged]
        missing = np.isnan(scored.scores[judged][enough])
        return Seen(vehicle_ms / 1_000, int(enough.sum()), int(missing.sum()))

    def _follow(
        self, rows: NDArray[np.int64], time_ms: NDArray[np.int64]
    ) -> tuple[int, NDArray[np.int64]]:
        """Milliseconds driven, and how many readings stand in a row up to each, itself included.

        Args:
            rows: Grouped. Shape (N,), N >= 1.
            time_ms: In order of arrival within a group. Shape (N,).
        """
        first = np.ones(len(rows), np.bool_)
        np.not_equal(rows[1:], rows[:-1], out=first[1:])
        last = np.append(first[1:], True)
        before_ms = np.empty_like(time_ms)
        before_ms[1:] = time_ms[:-1]
        before_ms[first] = self._last_ms[rows[first]]
        step_ms = time_ms - before_ms
        joined = (step_ms > 0) & (step_ms <= STEP_MAX_MS)
        at = np.arange(len(rows))
        begin = np.maximum.accumulate(np.where(first | ~joined, at, 0))
        carried = np.where(first & joined, self._run[rows], 0)
        run = at - begin + 1 + carried[begin]
        self._last_ms[rows[last]] = time_ms[last]
        self._run[rows[last]] = run[last]
        return int(step_ms[joined].sum()), run


def _enough(features: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Rows of which half of the features or more are present, as `scoring.scorer` wants."""
    present = features.shape[1] - np.count_nonzero(np.isnan(features), axis=1)
    return np.asarray(2 * present >= features.shape[1], np.bool_)
