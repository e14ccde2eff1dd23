"""Features with memory: means, lags and run lengths, as arrays over many vehicles at once.

Exact definitions. Each vehicle has a *feature time*, `uptime_ms` of its batch plus the distance
to the batch's first reading: it belongs to one boot and never steps with the clock. Time is cut
into buckets of `BUCKET_S` = 5 s counted from the boot; b is the bucket of the reading at hand at
time t, and K = window_s / 5.

- MEAN: mean of the signal's present values in the buckets b-K+1 .. b, up to and including this
  reading; so it reaches back between window_s - 5 and window_s seconds. NaN if there is none.
- LAG: the last present value in bucket b-K or, if there was none, in the `HOLD_S` = 60 s before;
  so the age is between window_s - 5 and window_s where the signal comes every second. NaN if
  there is none.
- RUN_LENGTH: seconds since the value last became what it is, at most window_s; 0 at the reading
  that changes it. NaN where this reading lacks the signal. Absent readings do not end a run
  unless they last longer than 60 s.
- All three are NaN until the history reaches back window_s (b >= first bucket + K).
- History begins with a boot, with the vehicle's first reading, and after a gap in feature time of
  more than 60 s, forwards or backwards. Smaller backward steps count as standing still.

So a feature is a function of the vehicle's readings of the last `history_s` seconds, and is the
same to the bit however the stream is cut into polls, and when the state is rebuilt by replaying
that much of the log: sums are kept in fixed point (2^-20 of the signal's unit, finer than any
sensor), where addition is exact and wraps without harm, so there is no drift to bound.

State per vehicle: a ring of snapshots, one per bucket, of running sums, counts and latest values.
A feature is the difference between now and the snapshot K buckets ago; gaps carry the last
snapshot forward. Means of s signals and lags of l need 8·(s + l) + 4·s bytes a snapshot, times
max window / 5 s + 1 snapshots: 2 kB a vehicle for 4 means and one lag up to 180 s. Memory is
touched first when a vehicle comes.

Hot path: no loop over vehicles or readings.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ContractError, Reason
from scoring.histories import BUCKET_MS, HOLD_MS, HOLD_S, TIME_MS_MAX, Block, Histories
from scoring.run_lengths import RunLengths
from scoring.segments import Segments
from scoring.snapshots import Plan, SnapshotRing, Window
from scoring.specs import BUCKET_S, FeatureSpec

_Whole = TypeVar("_Whole", np.int64, np.uint32)

_HOLD_BUCKETS = HOLD_MS // BUCKET_MS
_FIXED = float(1 << 20)
_BLOCK_READINGS = 16_384


def history_s(specs: Sequence[FeatureSpec]) -> float:
    """How much of the log rebuilds the state: 0 without memory features."""
    windows = [spec.window_s for spec in specs if spec.has_memory]
    return max(windows) + BUCKET_S + HOLD_S if windows else 0.0


class FeatureState:
    """Memory features of up to `max_vehicles` vehicles, addressed by row.

    Not for use by two threads at once.

    Args:
        specs: Features with memory, Fm >= 1 of them.
        max_vehicles: Rows.

    Attributes:
        specs: As given; order of the columns that `update` returns.
        signals: Signals that `update` must be given, in this order. S of them.

    Raises:
        ContractError: MODEL_FEATURES: no spec, or one without memory.
    """

    def __init__(self, specs: Sequence[FeatureSpec], *, max_vehicles: int) -> None:
        if not specs or not all(spec.has_memory for spec in specs):
            raise ContractError(Reason.MODEL_FEATURES, "only features with memory have a state")
        self.specs = tuple(specs)
        self.signals = tuple(dict.fromkeys(spec.signal for spec in specs))
        self._plan = Plan.of(self.specs, self.signals)
        self._histories = Histories(max_vehicles)
        self._ring = SnapshotRing(self._plan, max_vehicles)
        self._runs = [RunLengths(max_vehicles) for _ in self._plan.run_signals]

    def update(
        self,
        rows: NDArray[np.int64],
        begins: NDArray[np.bool_],
        time_ms: NDArray[np.int64],
        values: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Take readings in, and give the features at each.

        Args:
            rows: Row of each reading's vehicle; readings of one vehicle stand together, in
                order of arrival. Shape (R,).
            begins: Where history begins anew (boot). Shape (R,).
            time_ms: Feature time. Shape (R,).
            values: Columns as `signals`, in the signals' units and ranges; NaN where absent.
                Shape (R, S).

        Returns:
            Shape (R, Fm), columns as `specs`; NaN where not ready or absent.

        Raises:
            ContractError: MALFORMED: shapes disagree, or the readings of a vehicle do not stand
                together; then nothing more is to be had of this state.
        """
        readings = len(rows)
        if values.shape != (readings, len(self.signals)) or not (
            len(begins) == len(time_ms) == readings
        ):
            raise ContractError(Reason.MALFORMED, "features: arrays do not fit together")
        features = np.empty((readings, len(self.specs)), np.float32)
        for start in range(0, readings, _BLOCK_READINGS):
            part = slice(start, start + _BLOCK_READINGS)
            self._update_block(
                rows[part], begins[part], time_ms[part], values[part], features[part]
            )
        return features

    def _update_block(
        self,
        rows: NDArray[np.int64],
        begins: NDArray[np.bool_],
        time_ms: NDArray[np.int64],
        values: NDArray[np.float32],
        features: NDArray[np.float32],
    ) -> None:
        block = self._histories.block(rows, begins, np.clip(time_ms, 0, TIME_MS_MAX))
        before = self._ring.before(block)
        now = self._now(block, before, values)
        for window in self._plan.windows:
            self._window(window, block, now, features)
        for run in range(len(self._plan.run_signals)):
            self._run(run, block, values, features)
        self._ring.store(block, before, now)
        self._histories.advance(block)

    def _now(
        self, block: Block, before: NDArray[np.int64], values: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        """The snapshot right after each reading. Shape (R, words)."""
        plan, segments = self._plan, block.segments
        now = np.empty((len(values), plan.words), np.int64)
        if plan.mean_columns.size:
            means = values[:, plan.mean_columns]
            absent = np.isnan(means)
            fixed = np.rint(means * _FIXED, dtype=np.float64)
            fixed[absent] = 0.0
            now[:, plan.sums] = _running(fixed.astype(np.int64), before[:, plan.sums], segments)
            counts = _running(
                (~absent).astype(np.uint32), before.view(np.uint32)[:, plan.counts], segments
            )
            now.view(np.uint32)[:, plan.counts] = counts
        for word, column in plan.lag_words:
            value = values[:, column]
            stamped = ((block.bucket + 1) << 32) | value.view(np.uint32)
            now[:, word] = segments.latest(stamped, ~np.isnan(value), before[:, word])
        return now

    def _window(
        self,
        window: Window,
        block: Block,
        now: NDArray[np.int64],
        features: NDArray[np.float32],
    ) -> None:
        """Means and lags that look back `window.buckets`."""
        plan, of = self._plan, block.segments.of
        target = block.bucket - window.buckets
        past = self._ring.past(block, target, now)
        not_ready = target < block.start_bucket[of]
        counts_now = now.view(np.uint32)[:, plan.counts]
        counts_past = past.view(np.uint32)[:, plan.counts]
        for column, source in window.means:
            total = now[:, source] - past[:, source]
            count = counts_now[:, source] - counts_past[:, source]
            with np.errstate(invalid="ignore"):
                feature = total / (count * _FIXED)
            feature[not_ready] = np.nan
            features[:, column] = feature
        for column, word in window.lags:
            stamped = past[:, word]
            feature = (stamped & 0xFFFFFFFF).astype(np.uint32).view(np.float32)
            stale = (stamped >> 32) - 1 < np.maximum(target - _HOLD_BUCKETS, 0)
            feature[stale | not_ready] = np.nan
            features[:, column] = feature

    def _run(
        self,
        run: int,
        block: Block,
        values: NDArray[np.float32],
        features: NDArray[np.float32],
    ) -> None:
        """Run lengths of one signal."""
        runs = self._runs[run].update(block, values[:, self._plan.run_signals[run]])
        here = runs.here
        length_s = (block.time_ms[here] - runs.since_ms) / 1000.0
        reach = block.bucket[here] - block.start_bucket[block.segments.of[here]]
        for column, window_s in self._plan.run_features[run]:
            ready = reach >= round(window_s / BUCKET_S)
            features[:, column] = np.nan
            features[here, column] = np.where(ready, np.minimum(length_s, window_s), np.nan)


def _running(
    steps: NDArray[_Whole], before: NDArray[_Whole], segments: Segments
) -> NDArray[_Whole]:
    """Running sums within each segment, from `before` on; whole numbers, wrapping. (R, C)."""
    total: NDArray[_Whole] = np.cumsum(steps, axis=0, dtype=steps.dtype)
    total += (before - (total[segments.starts] - steps[segments.starts]))[segments.of]
    return total
