"""How long a signal has had its value; defined in `scoring.features`."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scoring.histories import HOLD_MS, NEVER_MS, Block
from scoring.segments import Segments, changes


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of one signal at the P readings of a block that have it.

    Attributes:
        here: These readings. Shape (P,).
        since_ms: When the value became what it is. Shape (P,).
    """

    here: NDArray[np.int64]
    since_ms: NDArray[np.int64]


class RunLengths:
    """The latest value of one signal of each vehicle, and since when it stands."""

    def __init__(self, max_vehicles: int) -> None:
        self._value = np.zeros(max_vehicles, np.float32)
        self._since_ms = np.zeros(max_vehicles, np.int64)
        self._seen_ms = np.full(max_vehicles, NEVER_MS, np.int64)

    def update(self, block: Block, signal: NDArray[np.float32]) -> Runs:
        """Take a block in. `signal` has shape (R,), NaN where absent."""
        here = np.flatnonzero(~np.isnan(signal))
        if not here.size:
            self._forget(block)
            return Runs(here, here)
        of = block.segments.of[here]
        present = Segments.where(changes(of))
        stretch = of[present.starts]
        value, time_ms = signal[here], block.time_ms[here]
        begins = self._begins(block, present, stretch, value, time_ms)
        since_ms = present.latest(time_ms, begins, self._since_ms[block.rows[stretch]])
        self._forget(block)
        last = block.last[stretch]
        rows, ends = block.rows[stretch[last]], present.ends[last]
        self._value[rows] = value[ends]
        self._since_ms[rows] = since_ms[ends]
        self._seen_ms[rows] = time_ms[ends]
        return Runs(here, since_ms)

    def _begins(
        self,
        block: Block,
        present: Segments,
        stretch: NDArray[np.int64],
        value: NDArray[np.float32],
        time_ms: NDArray[np.int64],
    ) -> NDArray[np.bool_]:
        """Where a run begins: another value than the one before, or none before in time."""
        rows = block.rows[stretch]
        old_value, old_ms = np.empty_like(value), np.empty_like(time_ms)
        old_value[1:], old_ms[1:] = value[:-1], time_ms[:-1]
        old_value[present.starts] = self._value[rows]
        old_ms[present.starts] = np.where(block.fresh[stretch], NEVER_MS, self._seen_ms[rows])
        begins: NDArray[np.bool_] = (value != old_value) | (time_ms - old_ms > HOLD_MS)
        return begins

    def _forget(self, block: Block) -> None:
        """A new history knows no earlier value."""
        if block.fresh.any():
            self._seen_ms[block.rows[block.fresh]] = NEVER_MS
