"""What the uptime of a vehicle means in true time, for boots that began without a clock. Pure.

A batch says how long its vehicle had been up, which never steps. So one number a boot, the true
time of uptime 0, gives every reading its true time, also long after. It comes from

- the vehicle: once its clock is right, a batch says both, its uptime and the time;
- the gateway, where its own clock is right: a batch was measured before it was received, and after
  the receipt of an earlier batch that its vehicle no longer held, because only an acknowledgement
  frees one. Both bounds get closer with each batch, to about the time between two of them.

It is told once it is good, or when a vehicle has been heard for SETTLED_MS, and again when it has
become much better. After a restart the rows of the last minutes are taken in again, silently; what
they do not show any more may be told once more.

Bounded: `boots_max` boots are remembered; beyond that the one first met is forgotten.

Hot path: while all vehicles know the time, a batch costs one look at an array.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.receipts import UNKNOWN_MS
from edge.rows import StoredTelemetry
from edge.timekeeper import same_boot
from schemas.columns import TelemetryColumns
from schemas.records import Record

GOOD_ERROR_MS = 5_000
"""An error that small is told at once."""

SETTLED_MS = 60_000
"""A vehicle heard for so long is told of as it is."""

BETTER_BY = 4
"""It is told again when its error is so many times smaller."""

VEHICLE_ERROR_MS = 1_000
"""How far a vehicle's clock that is known to be right may be off."""

GATEWAY_ERROR_MS = 500
"""How far the gateway's may be off, with what both crystals drift."""

UNBOUNDED_MS = -1
"""`error_ms` where nothing says how long a batch was under way."""

VEHICLE_TIME_MS_MIN = 1_577_836_800_000
"""2020-01-01: a vehicle that shows less is not believed."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One batch of a vehicle.

    Attributes:
        event_ms: First event time, by the vehicle's clock.
        uptime_ms: At the first reading.
        made_ms: Uptime at the last reading, when the batch was made.
        synced: Whether the vehicle knew the time.
        gateway_boot: Of its receipt.
        monotonic_ms: Of its receipt.
        received_ms: True time of it; UNKNOWN_MS where that is not known.
    """

    seq: int
    oldest_seq: int
    event_ms: int
    uptime_ms: int
    made_ms: int
    synced: bool
    gateway_boot: int
    monotonic_ms: int
    received_ms: int


@dataclass(frozen=True, slots=True)
class Zero:
    """True time of a vehicle's uptime 0.

    Attributes:
        zero_ms: Since the epoch.
        error_ms: By how much it may be off; UNBOUNDED_MS: nobody knows.
        source: 'vehicle' or 'gateway'.
        synced_from_seq: First batch whose own times were right; -1: none yet.
    """

    zero_ms: int
    error_ms: int
    source: str
    synced_from_seq: int = -1


@dataclass(slots=True)
class VehicleBoot:
    """What is known of one boot of one vehicle, in the gateway's monotonic time.

    Attributes:
        gateway_boot: In which boot of the gateway the bounds hold.
        since_ms: When it was first heard in that.
        upper_ms: Uptime 0 was not after this.
        lower_ms: Nor before this; None: no bound yet.
        probe: Batch and receipt that a later batch without it is compared with.
        own_zero_ms: Uptime 0 by the vehicle's own, wrong clock.
        told_error_ms: Of what was told; None: nothing was.
        done: The vehicle knows the time, and that is told.
    """

    gateway_boot: int
    since_ms: int
    upper_ms: int
    probe: tuple[int, int]
    own_zero_ms: int
    lower_ms: int | None = None
    told_error_ms: int | None = None
    done: bool = False

    @classmethod
    def first(cls, heard: Heard) -> "VehicleBoot":
        """After one batch without the time."""
        return cls(
            heard.gateway_boot,
            heard.monotonic_ms,
            heard.monotonic_ms - heard.made_ms,
            (heard.seq, heard.monotonic_ms),
            heard.event_ms - heard.uptime_ms,
        )

    def hear(self, heard: Heard) -> None:
        """Another batch without the time."""
        self.own_zero_ms = heard.event_ms - heard.uptime_ms
        if not same_boot(heard.gateway_boot, self.gateway_boot):
            self._begin_bounds(heard)
            return
        self.upper_ms = min(self.upper_ms, heard.monotonic_ms - heard.made_ms)
        seq, received_ms = self.probe
        if heard.oldest_seq > seq:
            bound_ms = received_ms - heard.made_ms
            self.lower_ms = bound_ms if self.lower_ms is None else max(self.lower_ms, bound_ms)
            self.probe = (heard.seq, heard.monotonic_ms)

    def _begin_bounds(self, heard: Heard) -> None:
        """The gateway has booted: its monotonic time began anew."""
        afresh = VehicleBoot.first(heard)
        self.gateway_boot, self.since_ms = afresh.gateway_boot, afresh.since_ms
        self.upper_ms, self.lower_ms, self.probe = afresh.upper_ms, None, afresh.probe

    def by_gateway(self, heard: Heard) -> Zero | None:
        """What the bounds say, if it is worth telling; None while the gateway has no time."""
        if heard.received_ms == UNKNOWN_MS:
            return None
        gateway_zero_ms = heard.received_ms - heard.monotonic_ms
        if self.lower_ms is None:
            found = Zero(gateway_zero_ms + self.upper_ms, UNBOUNDED_MS, "gateway")
        else:
            width_ms = max(0, self.upper_ms - self.lower_ms)
            middle_ms = self.upper_ms - width_ms // 2
            error_ms = GATEWAY_ERROR_MS + (width_ms + 1) // 2
            found = Zero(gateway_zero_ms + middle_ms, error_ms, "gateway")
        settled = heard.monotonic_ms - self.since_ms >= SETTLED_MS
        return found if worth_telling(found.error_ms, self.told_error_ms, settled) else None


def worth_telling(error_ms: int, told_error_ms: int | None, settled: bool) -> bool:
    """Whether an estimate is good enough, or so much better than the one that was told.

    Example:
        >>> worth_telling(4_000, None, False), worth_telling(9_000, None, False)
        (True, False)
        >>> worth_telling(9_000, UNBOUNDED_MS, True), worth_telling(3_000, 4_000, True)
        (True, False)
    """
    if told_error_ms is None:
        return settled or UNBOUNDED_MS != error_ms <= GOOD_ERROR_MS
    if error_ms == UNBOUNDED_MS:
        return False
    return told_error_ms == UNBOUNDED_MS or error_ms * BETTER_BY <= told_error_ms


class VehicleClocks:
    """Follows the boots of vehicles that do not know the time.

    Args:
        boots_max: Boots remembered.
    """

    def __init__(self, *, boots_max: int) -> None:
        self._boots_max = boots_max
        self._boots: dict[tuple[str, int], VehicleBoot] = {}
        self._waiting = 0

    def hear(
        self,
        columns: TelemetryColumns,
        rows: Sequence[StoredTelemetry],
        received_ms: NDArray[np.int64],
    ) -> list[Record]:
        """Take a poll in.

        Args:
            columns: Decoded from `rows`, in the order of the spool.
            rows: The rows of `columns`, M of them.
            received_ms: True time of receipt, or UNKNOWN_MS. Shape (M,).

        Returns:
            What to tell, as `VehicleClock` records that lack `gateway_id` and `time`.
        """
        if not self._waiting and bool(columns.clock_synced.all()):
            return []
        told = []
        for message, (row, synced) in enumerate(
            zip(rows, columns.clock_synced.tolist(), strict=True)
        ):
            key = (row.vehicle_id, row.boot_id)
            boot = self._boots.get(key)
            if synced and (boot is None or boot.done):
                continue
            heard = _heard(columns, message, row, int(received_ms[message]))
            zero = self._take(key, boot, heard)
            if zero is not None:
                told.append(_record(key, self._boots[key], zero))
        return told

    def _take(self, key: tuple[str, int], boot: VehicleBoot | None, heard: Heard) -> Zero | None:
        if boot is None:
            boot = self._boots[key] = VehicleBoot.first(heard)
            self._waiting += 1
            self._make_room()
        elif heard.synced:
            return self._knows(boot, heard)
        elif boot.done:
            return None  # of before it knew, or its clock was lost again: uptime means the same
        else:
            boot.hear(heard)
        zero = boot.by_gateway(heard)
        if zero is not None:
            boot.told_error_ms = zero.error_ms
        return zero

    def _knows(self, boot: VehicleBoot, heard: Heard) -> Zero | None:
        """The vehicle has learnt the time."""
        if heard.event_ms < VEHICLE_TIME_MS_MIN:
            return None
        boot.done = True
        self._waiting -= 1
        return Zero(heard.event_ms - heard.uptime_ms, VEHICLE_ERROR_MS, "vehicle", heard.seq)

    def _make_room(self) -> None:
        if len(self._boots) > self._boots_max:
            oldest = self._boots.pop(next(iter(self._boots)))
            self._waiting -= not oldest.done


def _heard(
    columns: TelemetryColumns, message: int, row: StoredTelemetry, received_ms: int
) -> Heard:
    first = int(columns.starts[message])
    last = first + int(columns.counts[message]) - 1
    event_ms, uptime_ms = int(columns.event_time_ms[first]), int(columns.uptime_ms[message])
    return Heard(
        seq=row.seq,
        oldest_seq=int(columns.oldest_seq[message]),
        event_ms=event_ms,
        uptime_ms=uptime_ms,
        made_ms=uptime_ms + int(columns.event_time_ms[last]) - event_ms,
        synced=bool(columns.clock_synced[message]),
        gateway_boot=row.gateway_boot,
        monotonic_ms=row.monotonic_ms,
        received_ms=received_ms,
    )


def _record(key: tuple[str, int], boot: VehicleBoot, zero: Zero) -> Record:
    vehicle_id, boot_id = key
    return {
        "vehicle_id": vehicle_id,
        "boot_id": boot_id,
        "zero_time": zero.zero_ms,
        "error_ms": zero.error_ms,
        "source": zero.source,
        "offset_ms": zero.zero_ms - boot.own_zero_ms,
        "synced_from_seq": zero.synced_from_seq,
    }
