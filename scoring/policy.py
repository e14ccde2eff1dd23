"""The alert policy: k of n with hysteresis, over arrays, decided from scores alone.

For each vehicle the last n scores are remembered as bits. A score *exceeds* above the threshold,
and is *high* above `threshold * close_ratio`. A NaN score (the model could not say) is skipped:
it is neither for nor against, and the window reaches over it.

- Opens at the score with which at least k of the last n exceed.
- Closes at the score with which at most close_k of the last n are high, and at least n scores
  were seen since the vehicle's memory began (so that a restart or a boot closes nothing early).
- `since` is the event time of the exceedance that began the run; a run begins with an
  exceedance that has no other among the n - 1 scores before it.

Memory begins anew (`reset`) with a boot or with another model; an open alert stays open.

State is two 64-bit histories, a time and three bytes a vehicle. Hot path: a vehicle without a high
score in its window and in the poll, and without an open alert, costs one comparison.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ContractError, Reason
from scoring.manifest import PolicySettings
from scoring.segments import Segments, changes


@dataclass(frozen=True, slots=True)
class Decisions:
    """The transitions of one poll, T of them, in the order of the readings.

    Attributes:
        row: Reading that decided, as index into the arrays given. Shape (T,).
        opens: Whether it opens; otherwise it closes. Shape (T,).
        since_ms: Event time at which the run began; at a closing as at its opening or later,
            the caller knows the opening's. Shape (T,).
    """

    row: NDArray[np.int64]
    opens: NDArray[np.bool_]
    since_ms: NDArray[np.int64]


_NOTHING = Decisions(np.empty(0, np.int64), np.empty(0, np.bool_), np.empty(0, np.int64))


class AlertPolicy:
    """The policy and the memory of up to `max_vehicles` vehicles, addressed by row.

    Args:
        settings: k, n and so on.
        threshold: Of the model; > 0.
        max_vehicles: Rows; 27 bytes each.
    """

    def __init__(self, settings: PolicySettings, *, threshold: float, max_vehicles: int) -> None:
        self._settings = settings
        self._threshold = np.float32(threshold)
        self._high = np.float32(np.float32(threshold) * np.float32(settings.close_ratio))
        self._exceeding = np.zeros(max_vehicles, np.uint64)
        self._highs = np.zeros(max_vehicles, np.uint64)
        self._run_ms = np.zeros(max_vehicles, np.int64)
        self._unseen = np.full(max_vehicles, settings.n, np.int16)
        self._open = np.zeros(max_vehicles, np.bool_)

    # `_unseen` is int16, not uint8: NumPy would keep the type of `unseen - 1`, and wrap below 0.

    def reset(self, rows: NDArray[np.int64]) -> None:
        """Begin memory anew; open alerts stay open. Rows may repeat."""
        self._exceeding[rows] = 0
        self._highs[rows] = 0
        self._unseen[rows] = self._settings.n

    def set_open(self, rows: NDArray[np.int64], is_open: bool) -> None:
        """State from storage that alerts are open or not."""
        self._open[rows] = is_open

    def swap(self, settings: PolicySettings, threshold: float) -> None:
        """Take another model's settings; all memory begins anew, open alerts stay open."""
        self._settings = settings
        self._threshold = np.float32(threshold)
        self._high = np.float32(np.float32(threshold) * np.float32(settings.close_ratio))
        self.reset(np.arange(len(self._open)))

    def update(
        self,
        rows: NDArray[np.int64],
        begins: NDArray[np.bool_],
        scores: NDArray[np.float32],
        event_time_ms: NDArray[np.int64],
        *,
        decide: bool = True,
    ) -> Decisions:
        """Take scores in and decide.

        Args:
            rows: Row of each reading's vehicle; readings of one vehicle stand together, in
                order. Shape (R,).
            begins: Readings before which the vehicle's memory begins anew (boot). Shape (R,).
            scores: Shape (R,); NaN is skipped.
            event_time_ms: Shape (R,).
            decide: False: remember only; alerts stay as they are (replay).

        Returns:
            The transitions.

        Raises:
            ContractError: MALFORMED: the arrays differ in length.
        """
        if not len(rows) == len(begins) == len(scores) == len(event_time_ms):
            raise ContractError(Reason.MALFORMED, "policy: arrays differ in length")
        beginnings = np.flatnonzero(begins)
        active = self._active(rows, scores, beginnings)
        decisions = _NOTHING
        if active.size:
            window = self._window(rows, begins, scores, active)
            decisions = self._step(active, window, event_time_ms[active], decide=decide)
        self._reset_unscored(rows, beginnings, active)
        return decisions

    def _active(
        self,
        rows: NDArray[np.int64],
        scores: NDArray[np.float32],
        beginnings: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """Readings, not NaN, of vehicles for which anything can change."""
        busy = (self._highs != 0) | self._open
        with np.errstate(invalid="ignore"):
            high = np.flatnonzero(scores > self._high)
        busy[rows[high]] = True
        busy[rows[beginnings]] = True
        if not busy.any():
            return np.empty(0, np.int64)
        return np.flatnonzero(busy[rows] & ~np.isnan(scores))

    def _window(
        self,
        rows: NDArray[np.int64],
        begins: NDArray[np.bool_],
        scores: NDArray[np.float32],
        active: NDArray[np.int64],
    ) -> "_Window":
        """The active readings, cut where the vehicle changes or its memory begins anew."""
        row = rows[active]
        new_vehicle = changes(row)
        # A beginning may fall on a skipped reading, so it is the count of them that is compared.
        epoch = np.cumsum(begins)
        fresh = np.ones(len(active), np.bool_)
        np.not_equal(epoch[active[1:]], epoch[active[:-1]], out=fresh[1:])
        first = np.flatnonzero(new_vehicle)
        started = Segments.where(changes(rows)).starts
        started = started[np.searchsorted(started, active[first], side="right") - 1]
        fresh[first] = epoch[active[first]] > epoch[started] - begins[started]
        runs = Segments.where(new_vehicle | fresh)
        return _Window(
            vehicles=row[runs.starts],
            fresh=fresh[runs.starts],
            groups=Segments.where(new_vehicle),
            runs=runs,
            position=runs.position,
            exceeds=scores[active] > self._threshold,
            highs=scores[active] > self._high,
        )

    def _step(
        self,
        active: NDArray[np.int64],
        window: "_Window",
        event_time_ms: NDArray[np.int64],
        *,
        decide: bool,
    ) -> Decisions:
        n, vehicles, fresh = self._settings.n, window.vehicles, window.fresh
        old_exceeding = np.where(fresh, np.uint64(0), self._exceeding[vehicles])
        old_highs = np.where(fresh, np.uint64(0), self._highs[vehicles])
        unseen = np.where(fresh, n, self._unseen[vehicles])
        exceeding = window.counts(window.exceeds, old_exceeding, n)
        highs = window.counts(window.highs, old_highs, n)
        begins_run = window.exceeds & (exceeding == 1)
        run_ms = window.runs.latest(event_time_ms, begins_run, self._run_ms[vehicles])
        decisions = _NOTHING
        if decide:
            opens = exceeding >= self._settings.k
            seen = window.position >= unseen[window.runs.of] - 1
            at, opening = self._latch(window, opens, (highs <= self._settings.close_k) & seen)
            decisions = Decisions(active[at], opening, run_ms[at])
        last = window.last
        mask = np.uint64((1 << n) - 1)
        row = vehicles[last]
        self._exceeding[row] = (window.pushed(window.exceeds, old_exceeding) & mask)[last]
        self._highs[row] = (window.pushed(window.highs, old_highs) & mask)[last]
        self._run_ms[row] = run_ms[window.runs.ends[last]]
        self._unseen[row] = np.maximum(unseen - window.runs.lengths, 0)[last]
        return decisions

    def _latch(
        self, window: "_Window", opens: NDArray[np.bool_], closes: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Where the state changes, and whether to open. Memory ends with a run, the state not."""
        groups = window.groups
        vehicles = window.vehicles[window.runs.of[groups.starts]]
        was_open = self._open[vehicles]
        after = groups.latest(opens, opens | closes, was_open)
        before = np.empty_like(after)
        before[1:] = after[:-1]
        before[groups.starts] = was_open
        self._open[vehicles] = after[groups.ends]
        at = np.flatnonzero(after != before)
        return at, after[at]

    def _reset_unscored(
        self,
        rows: NDArray[np.int64],
        beginnings: NDArray[np.int64],
        active: NDArray[np.int64],
    ) -> None:
        """Vehicles whose memory begins anew with no score behind the beginning yet."""
        if not beginnings.size:
            return
        last_active = np.full(len(self._open), -1, np.int64)
        np.maximum.at(last_active, rows[active], active)
        self.reset(rows[beginnings[last_active[rows[beginnings]] < beginnings]])


@dataclass(frozen=True, slots=True)
class _Window:
    """Scores of vehicles, A readings, cut into G runs of one vehicle and one memory.

    Attributes:
        vehicles: Row of each run. Shape (G,).
        fresh: Whether memory begins with the run; otherwise the stored one goes on. Shape (G,).
        groups: The readings of each vehicle.
        runs: The runs.
        position: Place of each reading in its run. Shape (A,).
        exceeds, highs: Shape (A,).
    """

    vehicles: NDArray[np.int64]
    fresh: NDArray[np.bool_]
    groups: Segments
    runs: Segments
    position: NDArray[np.int64]
    exceeds: NDArray[np.bool_]
    highs: NDArray[np.bool_]

    @property
    def last(self) -> NDArray[np.int64]:
        """The last run of each vehicle."""
        return self.runs.of[self.groups.ends]

    def counts(
        self, bits: NDArray[np.bool_], history: NDArray[np.uint64], n: int
    ) -> NDArray[np.int64]:
        """Set bits among the last n of each reading, its own included."""
        total = np.cumsum(bits)
        first = np.maximum(np.arange(len(bits)) - n, self.runs.starts[self.runs.of] - 1)
        inside: NDArray[np.int64] = total - np.where(first >= 0, total[first], 0)
        left = n - 1 - self.position
        old = np.flatnonzero(left > 0)
        if len(old) and history.any():
            keep = (np.uint64(1) << left[old].astype(np.uint64)) - np.uint64(1)
            inside[old] += _popcount(history[self.runs.of[old]] & keep)
        return inside

    def pushed(self, bits: NDArray[np.bool_], history: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Histories with the bits shifted in, newest lowest."""
        shift = self.runs.ends[self.runs.of] - np.arange(len(bits))
        value = np.where(shift < 64, bits.astype(np.uint64) << _clipped(shift), np.uint64(0))
        new = np.bitwise_or.reduceat(value, self.runs.starts)
        lengths = self.runs.lengths
        kept = np.where(lengths < 64, history << _clipped(lengths), np.uint64(0))
        return np.asarray(new | kept, np.uint64)


def _clipped(shift: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Shift distances that the processor defines; 64 and more are masked by the caller."""
    return np.minimum(shift, 63).astype(np.uint64)


def _popcount(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Set bits of each word, by adding halves."""
    m1, m2, m4 = (
        np.uint64(0x5555555555555555),
        np.uint64(0x3333333333333333),
        np.uint64(0x0F0F0F0F0F0F0F0F),
    )
    words = words - ((words >> np.uint64(1)) & m1)
    words = (words & m2) + ((words >> np.uint64(2)) & m2)
    words = (words + (words >> np.uint64(4))) & m4
    return ((words * np.uint64(0x0101010101010101)) >> np.uint64(56)).astype(np.int64)
