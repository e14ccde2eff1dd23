"""The history of each vehicle: its feature time, and where it begins anew."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ContractError, Reason
from scoring.segments import Segments, changes
from scoring.specs import BUCKET_S

HOLD_S = 60.0
"""A gap longer than this begins a new history; a value older than this no longer stands."""

TIME_MS_MAX = 1 << 41
"""Feature time is cut off here (69 years after boot)."""

BUCKET_MS = round(BUCKET_S * 1000)
HOLD_MS = round(HOLD_S * 1000)
NEVER_MS = -(1 << 60)


@dataclass(frozen=True, slots=True)
class Block:
    """Readings of one pass, cut into G stretches of one vehicle's uninterrupted history.

    Attributes:
        rows: Vehicle of each stretch. Shape (G,).
        segments: The stretches.
        fresh: Whether history begins with the stretch; otherwise it goes on. Shape (G,).
        last: Whether it is the vehicle's last in this pass. Shape (G,).
        raw_ms, time_ms, bucket: Of each reading. Shape (R,).
        bucket_before: Newest bucket before the stretch. Shape (G,).
        start_bucket: Bucket in which the history began. Shape (G,).
    """

    rows: NDArray[np.int64]
    segments: Segments
    fresh: NDArray[np.bool_]
    last: NDArray[np.bool_]
    raw_ms: NDArray[np.int64]
    time_ms: NDArray[np.int64]
    bucket: NDArray[np.int64]
    bucket_before: NDArray[np.int64]
    start_bucket: NDArray[np.int64]


class Histories:
    """Feature time of up to `max_vehicles` vehicles, addressed by row."""

    def __init__(self, max_vehicles: int) -> None:
        self._bucket = np.zeros(max_vehicles, np.int64)
        self._start_bucket = np.zeros(max_vehicles, np.int64)
        self._raw_ms = np.full(max_vehicles, NEVER_MS, np.int64)
        self._time_ms = np.full(max_vehicles, NEVER_MS, np.int64)
        self._place = np.zeros(max_vehicles, np.int64)

    def block(
        self, rows: NDArray[np.int64], begins: NDArray[np.bool_], raw_ms: NDArray[np.int64]
    ) -> Block:
        """Cut readings into stretches of one history, without changing the state.

        Args:
            rows: Grouped by vehicle. Shape (R,), R >= 1.
            begins: Where a history begins at any rate. Shape (R,).
            raw_ms: Feature time as the vehicle has it, 0..`TIME_MS_MAX`. Shape (R,).

        Raises:
            ContractError: MALFORMED: the readings of a vehicle do not stand together.
        """
        new_vehicle = changes(rows)
        first = np.flatnonzero(new_vehicle)
        self._check_grouped(rows[first])
        previous = np.empty_like(raw_ms)
        previous[1:] = raw_ms[:-1]
        previous[first] = self._raw_ms[rows[first]]
        step = raw_ms - previous
        begins = begins | (np.abs(step) > HOLD_MS)
        segments = Segments.where(new_vehicle | begins)
        owner = rows[segments.starts]
        fresh = begins[segments.starts]
        time_ms = self._monotonic(raw_ms, step, segments, owner, fresh)
        bucket = time_ms // BUCKET_MS
        last = np.ones(len(owner), np.bool_)
        last[:-1] = owner[1:] != owner[:-1]
        return Block(
            rows=owner,
            segments=segments,
            fresh=fresh,
            last=last,
            raw_ms=raw_ms,
            time_ms=time_ms,
            bucket=bucket,
            bucket_before=np.where(fresh, bucket[segments.starts] - 1, self._bucket[owner]),
            start_bucket=np.where(fresh, bucket[segments.starts], self._start_bucket[owner]),
        )

    def _monotonic(
        self,
        raw_ms: NDArray[np.int64],
        step: NDArray[np.int64],
        segments: Segments,
        owner: NDArray[np.int64],
        fresh: NDArray[np.bool_],
    ) -> NDArray[np.int64]:
        """Feature time that stands still over small backward steps."""
        floor = np.where(fresh, 0, self._time_ms[owner])
        backward = step < 0
        backward[segments.starts] = raw_ms[segments.starts] < floor
        if not backward.any():
            return raw_ms
        lifted = raw_ms.copy()
        np.maximum(lifted[segments.starts], floor, out=floor)
        lifted[segments.starts] = floor
        # A step per segment higher than any time keeps the running maximum inside of it.
        offset = segments.of * (2 * TIME_MS_MAX)
        return np.asarray(np.maximum.accumulate(lifted + offset) - offset, np.int64)

    def advance(self, block: Block) -> None:
        """Go on from the end of a block."""
        rows, ends = block.rows[block.last], block.segments.ends[block.last]
        self._bucket[rows] = block.bucket[ends]
        self._start_bucket[rows] = block.start_bucket[block.last]
        self._raw_ms[rows] = block.raw_ms[ends]
        self._time_ms[rows] = block.time_ms[ends]

    def _check_grouped(self, vehicles: NDArray[np.int64]) -> None:
        """A row that stands in two places finds the other's number in its place."""
        numbers = np.arange(len(vehicles))
        self._place[vehicles] = numbers
        if (self._place[vehicles] != numbers).any():
            raise ContractError(
                Reason.MALFORMED, "features: readings of a vehicle do not stand together"
            )
