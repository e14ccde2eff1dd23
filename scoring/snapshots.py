"""Snapshots of each vehicle's running sums: what they hold, and a ring of them, one a bucket."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scoring.histories import Block
from scoring.specs import BUCKET_S, FeatureKind, FeatureSpec


@dataclass(frozen=True, slots=True)
class Window:
    """Features that look back equally far.

    Attributes:
        buckets: How far.
        means: (feature column, place among the mean signals).
        lags: (feature column, word).
    """

    buckets: int
    means: tuple[tuple[int, int], ...]
    lags: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Where everything lies.

    A snapshot is `words` 64-bit words: sums of the mean signals; latest values of the lag
    signals (bucket + 1 in the upper half, float32 bits in the lower; 0: never); counts of the
    mean signals, 32 bits each. Columns are those of the values and features of `FeatureState`.

    Attributes:
        slots: Snapshots of a vehicle, one a bucket: the longest window and the bucket at hand.
        words: Of a snapshot.
        mean_columns: Value column of each mean signal.
        sums: Their words.
        counts: Their 32-bit half words.
        lag_words: (word, value column) of each lag signal.
        windows: Means and lags, by how far they look back.
        run_signals: Value column of each run length signal.
        run_features: (feature column, window_s) of the features of each.
    """

    slots: int
    words: int
    mean_columns: NDArray[np.int64]
    sums: slice
    counts: slice
    lag_words: tuple[tuple[int, int], ...]
    windows: tuple[Window, ...]
    run_signals: tuple[int, ...]
    run_features: tuple[tuple[tuple[int, float], ...], ...]

    @staticmethod
    def of(specs: tuple[FeatureSpec, ...], signals: tuple[str, ...]) -> "Plan":
        """Lay out snapshots for these features with memory, of values in this order."""
        mean_signals = _signals_of(specs, FeatureKind.MEAN)
        lag_signals = _signals_of(specs, FeatureKind.LAG)
        run_signals = _signals_of(specs, FeatureKind.RUN_LENGTH)
        means, lags = len(mean_signals), len(lag_signals)
        lag_word = {signal: means + i for i, signal in enumerate(lag_signals)}
        looking = [spec for spec in specs if spec.kind is not FeatureKind.RUN_LENGTH]
        windows = sorted({round(spec.window_s / BUCKET_S) for spec in looking})
        return Plan(
            slots=max(windows, default=0) + 1,
            words=max(means + lags + (means + 1) // 2, 1),
            mean_columns=np.array([signals.index(name) for name in mean_signals], np.int64),
            sums=slice(0, means),
            counts=slice(2 * (means + lags), 2 * (means + lags) + means),
            lag_words=tuple((word, signals.index(name)) for name, word in lag_word.items()),
            windows=tuple(_window(specs, k, mean_signals, lag_word) for k in windows),
            run_signals=tuple(signals.index(name) for name in run_signals),
            run_features=tuple(
                tuple(
                    (column, spec.window_s)
                    for column, spec in enumerate(specs)
                    if spec.kind is FeatureKind.RUN_LENGTH and spec.signal == name
                )
                for name in run_signals
            ),
        )


def _window(
    specs: tuple[FeatureSpec, ...],
    buckets: int,
    mean_signals: tuple[str, ...],
    lag_word: dict[str, int],
) -> Window:
    here = [
        (column, spec)
        for column, spec in enumerate(specs)
        if round(spec.window_s / BUCKET_S) == buckets
    ]
    return Window(
        buckets=buckets,
        means=tuple(
            (column, mean_signals.index(spec.signal))
            for column, spec in here
            if spec.kind is FeatureKind.MEAN
        ),
        lags=tuple(
            (column, lag_word[spec.signal]) for column, spec in here if spec.kind is FeatureKind.LAG
        ),
    )


def _signals_of(specs: tuple[FeatureSpec, ...], kind: FeatureKind) -> tuple[str, ...]:
    return tuple(dict.fromkeys(spec.signal for spec in specs if spec.kind is kind))


class SnapshotRing:
    """The last `slots` snapshots of each vehicle; a bucket without readings repeats the last.

    Rows of 64-bit words, `slots` of them a vehicle, so that one look-back touches one line of
    the cache. Memory is zeroed by the operating system when first touched.
    """

    def __init__(self, plan: Plan, max_vehicles: int) -> None:
        self._slots = plan.slots
        self._words = np.zeros((max_vehicles * plan.slots, plan.words), np.int64)

    def before(self, block: Block) -> NDArray[np.int64]:
        """The newest snapshot before each stretch; zeros where history begins. (G, words)."""
        before = self._words[block.rows * self._slots + block.bucket_before % self._slots]
        before[block.fresh] = 0
        return before

    def past(
        self, block: Block, target: NDArray[np.int64], now: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """The snapshot at the end of each reading's target bucket.

        Args:
            block: The readings.
            target: Bucket of each, before its own. Shape (R,).
            now: The snapshot right after each. Shape (R, words).

        Returns:
            Shape (R, words); any value where the target lies before the history.
        """
        segments, of = block.segments, block.segments.of
        held = np.minimum(target, block.bucket_before[of])
        past = self._words[block.rows[of] * self._slots + held % self._slots]
        if block.fresh.any():
            past[block.fresh[of]] = 0
        inside = np.flatnonzero(target >= block.bucket[segments.starts][of])
        if inside.size:
            keys = (of << 32) | block.bucket
            wanted = (of[inside] << 32) | target[inside]
            past[inside] = now[np.searchsorted(keys, wanted, side="right") - 1]
        return np.asarray(past, np.int64)

    def store(self, block: Block, before: NDArray[np.int64], now: NDArray[np.int64]) -> None:
        """Keep what later polls look back at: of each vehicle the last stretch."""
        anew = block.rows[block.last & block.fresh]
        if anew.size:
            self._words.reshape(-1, self._slots, self._words.shape[1])[anew] = 0
        oldest = block.bucket[block.segments.ends] - self._slots + 1
        self._carry(block, before, oldest)
        self._keep(block, now, oldest)

    def _carry(self, block: Block, before: NDArray[np.int64], oldest: NDArray[np.int64]) -> None:
        """Until the first reading of a stretch the snapshot before it stands."""
        first = block.bucket[block.segments.starts]
        gap = block.last & ~block.fresh & (first - block.bucket_before > 1)
        if gap.any():
            start = np.maximum(block.bucket_before + 1, oldest)
            self._fill(block.rows[gap], start[gap], first[gap] - 1, before[gap])

    def _keep(self, block: Block, now: NDArray[np.int64], oldest: NDArray[np.int64]) -> None:
        """A reading's snapshot stands from its bucket until the next reading's."""
        bucket, segments = block.bucket, block.segments
        until = np.empty_like(bucket)
        until[:-1] = bucket[1:] - 1
        until[segments.ends] = bucket[segments.ends]
        stands = (until >= bucket) & (until >= oldest[segments.of]) & block.last[segments.of]
        at = np.flatnonzero(stands)
        of = segments.of[at]
        self._fill(block.rows[of], np.maximum(bucket[at], oldest[of]), until[at], now[at])

    def _fill(
        self,
        rows: NDArray[np.int64],
        first: NDArray[np.int64],
        last: NDArray[np.int64],
        snapshots: NDArray[np.int64],
    ) -> None:
        """Write each snapshot into the buckets first..last of its row."""
        slots = self._slots
        lengths = np.maximum(last - first + 1, 0)
        if (lengths == 1).all():
            self._words[rows * slots + first % slots] = snapshots
            return
        which = np.repeat(np.arange(len(rows)), lengths)
        bucket = first[which] + np.arange(len(which)) - (np.cumsum(lengths) - lengths)[which]
        self._words[rows[which] * slots + bucket % slots] = snapshots[which]
