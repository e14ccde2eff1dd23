"""The last readings of each vehicle as one row: what a windowed model is shown.

A window is the features of a vehicle's last `window` readings, the oldest first; so a windowed
model stays a pure function of a row, and its memory is here, beside that of the features. It is
ready only where these readings lie in one history (`scoring.histories`: begun by a boot, or by a
gap of more than 60 s) and within `reach_s`; until then there is no row, and no score.

So a window is a function of the readings of the last `reach_s` seconds, the same to the bit
however the stream is cut into polls, and when the state is rebuilt by replaying that much.

State per vehicle: the features and times of `window` - 1 readings, in order; 2 kB for 32 readings
of 17 features. Memory is touched first when a vehicle comes.

Hot path: no loop over vehicles or readings.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from scoring.histories import TIME_MS_MAX, Block, Histories

READING_S = 10.0
"""Slowest usual rate: readings that on average lie further apart make no window."""

ROWS_BYTES = 4_000_000
"""Of the rows that are made at once."""

POOL_BYTES = 16_000_000
"""Of what is carried over from earlier polls into one; bounds the messages that one may have."""


def reach_s(window: int) -> float:
    """How far back a window reaches at most; 0 for a point model."""
    return (window - 1) * READING_S


def ending_at(
    rows: NDArray[np.float32], ends: NDArray[np.int64], window: int
) -> NDArray[np.float32]:
    """The windows that end with some rows of a matrix, each as one row, the oldest first.

    Args:
        rows: Shape (N, F), contiguous.
        ends: Numbers of rows, >= window - 1. Shape (n,).
        window: Rows in a window.

    Returns:
        Shape (n, window * F).

    Example:
        >>> ending_at(np.array([[1], [2], [3]], np.float32), np.array([1, 2]), 2).tolist()
        [[1.0, 2.0], [2.0, 3.0]]
    """
    n_features = rows.shape[1]
    if not len(ends):
        return np.empty((0, window * n_features), np.float32)
    every = sliding_window_view(rows.reshape(-1), window * n_features)
    windows: NDArray[np.float32] = every[(ends - window + 1) * n_features]
    return windows


def of_drive(rows: NDArray[np.float32], window: int) -> NDArray[np.float32]:
    """Rows of one vehicle's readings, each with those before it; all NaN where there are too few.

    Args:
        rows: In order. Shape (N, F), contiguous.
        window: Readings in a window.

    Returns:
        Shape (N, window * F).
    """
    windows = np.full((len(rows), window * rows.shape[1]), np.nan, np.float32)
    ends = np.arange(window - 1, len(rows))
    windows[ends] = ending_at(rows, ends, window)
    return windows


def messages_max(window: int, n_features: int) -> int:
    """Messages that may be taken in at once."""
    return max(1, POOL_BYTES // (4 * window * n_features))


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of R readings, made when they are asked for.

    Attributes:
        ready: Readings whose window is full, ascending. Shape (N,).
    """

    ready: NDArray[np.int64]
    _pool: NDArray[np.float32]
    _places: NDArray[np.int64]
    _window: int

    def rows(self, readings: NDArray[np.int64]) -> NDArray[np.float32]:
        """The windows of some of the readings that are ready. Shape (n, window * F)."""
        return ending_at(self._pool, self._places[readings], self._window)

    def oldest(self, readings: NDArray[np.int64]) -> NDArray[np.float32]:
        """The first reading in the windows of some that are ready. Shape (n, F)."""
        oldest: NDArray[np.float32] = self._pool[self._places[readings] - self._window + 1]
        return oldest

    def blocks(self) -> Iterator[NDArray[np.int64]]:
        """The readings that are ready, so many at a time that their rows are `ROWS_BYTES`."""
        most = max(1, ROWS_BYTES // (4 * self._window * self._pool.shape[1]))
        for start in range(0, len(self.ready), most):
            yield self.ready[start : start + most]


class WindowState:
    """The last readings of up to `max_vehicles` vehicles, addressed by row.

    Not for use by two threads at once.

    Args:
        window: Readings in a window, >= 2.
        n_features: Columns of a reading. F.
        max_vehicles: Rows.
    """

    def __init__(self, window: int, n_features: int, *, max_vehicles: int) -> None:
        self._window = window
        self._reach_ms = round(reach_s(window) * 1000)
        self._histories = Histories(max_vehicles)
        # What is behind `_known` readings from the end is of no meaning.
        self._known = np.zeros(max_vehicles, np.int64)
        self._features = np.zeros((max_vehicles, window - 1, n_features), np.float32)
        self._times_ms = np.zeros((max_vehicles, window - 1), np.int64)

    def update(
        self,
        rows: NDArray[np.int64],
        begins: NDArray[np.bool_],
        time_ms: NDArray[np.int64],
        features: NDArray[np.float32],
    ) -> Windows:
        """Take readings in, and give the window at each.

        Args:
            rows: Row of each reading's vehicle; readings of one vehicle stand together, in
                order of arrival. Shape (R,).
            begins: Where history begins anew (boot). Shape (R,).
            time_ms: Feature time. Shape (R,).
            features: NaN where absent. Shape (R, F).

        Raises:
            ContractError: MALFORMED: the readings of a vehicle do not stand together.
        """
        if not len(rows):
            return Windows(np.empty(0, np.int64), features, np.empty(0, np.int64), self._window)
        block = self._histories.block(rows, begins, np.clip(time_ms, 0, TIME_MS_MAX))
        pooled = self._pooled(block, features)
        self._keep(block, pooled)
        self._histories.advance(block)
        starts = pooled.places - (self._window - 1)
        full = pooled.known[block.segments.of] + block.segments.position >= self._window - 1
        full[full] = np.abs(block.raw_ms[full] - pooled.times_ms[starts[full]]) <= self._reach_ms
        return Windows(np.flatnonzero(full), pooled.features, pooled.places, self._window)

    def _pooled(self, block: Block, features: NDArray[np.float32]) -> "_Pool":
        """The readings of each stretch behind those that it goes on from."""
        kept = self._window - 1
        goes_on = np.flatnonzero(~block.fresh)
        carried = np.where(block.fresh, 0, kept)
        shift = np.cumsum(carried)
        places = np.arange(len(features)) + shift[block.segments.of]
        pool = np.empty((len(features) + int(shift[-1]), features.shape[1]), np.float32)
        times_ms = np.empty(len(pool), np.int64)
        pool[places], times_ms[places] = features, block.raw_ms
        before = places[block.segments.starts[goes_on], None] + np.arange(-kept, 0)
        rows = block.rows[goes_on]
        pool[before], times_ms[before] = self._features[rows], self._times_ms[rows]
        known = np.where(block.fresh, 0, self._known[block.rows])
        return _Pool(pool, times_ms, places, known)

    def _keep(self, block: Block, pooled: "_Pool") -> None:
        """Remember the end of each vehicle's last stretch."""
        kept = self._window - 1
        rows, ends = block.rows[block.last], pooled.places[block.segments.ends[block.last]]
        tail = np.maximum(ends[:, None] + np.arange(1 - kept, 1), 0)
        self._features[rows] = pooled.features[tail]
        self._times_ms[rows] = pooled.times_ms[tail]
        known = pooled.known[block.last] + block.segments.lengths[block.last]
        self._known[rows] = np.minimum(known, kept)


@dataclass(frozen=True, slots=True)
class _Pool:
    """Readings of P places, each stretch of a history in one run of them.

    Attributes:
        features, times_ms: Shape (P, F) and (P,).
        places: Of the R readings that were given.
        known: Readings that are known from before each stretch, `window` - 1 at most. Shape (G,).
    """

    features: NDArray[np.float32]
    times_ms: NDArray[np.int64]
    places: NDArray[np.int64]
    known: NDArray[np.int64]
