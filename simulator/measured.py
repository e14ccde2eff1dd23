"""What a source of driving gives the publisher: one tick's batches of many vehicles, as arrays."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Measured:
    """Batches of one tick: M batches, R readings, columns as the source's `signals`.

    Attributes:
        vehicle: Number of the vehicle. Shape (M,).
        new_boot: The vehicle's unit booted before this batch. Shape (M,).
        uptime_ms: Since boot, of the first reading. Shape (M,).
        clock_synced: Shape (M,).
        counts: Readings of each batch, >= 1. Shape (M,), sum R.
        event_time_ms: Shape (R,).
        values: NaN where absent. Shape (R, signals).
    """

    vehicle: Int64
    new_boot: NDArray[np.bool_]
    uptime_ms: Int64
    clock_synced: NDArray[np.bool_]
    counts: Int64
    event_time_ms: Int64
    values: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that was made to be, or was recorded as, the matter with a vehicle.

    Attributes:
        vehicle: Its number.
        code: What.
        signal: Where it shows first; None if unknown.
        start_event_ms: By the vehicle's clock.
        end_event_ms: Likewise; None: to the end.
    """

    vehicle: int
    code: str
    signal: str | None
    start_event_ms: int
    end_event_ms: int | None = None
    severity: float = 1.0


class Source(Protocol):
    """Where driving comes from. Pure but for its generator: it is told the time."""

    vehicle_ids: tuple[str, ...]
    signals: tuple[str, ...]
    period_s: float
    """Wall time between two ticks."""

    def tick(self, number: int, wall_ms: int) -> Measured | None:
        """What was measured in tick `number` (0, 1, ...); None when the drive is over."""

    def inject(self) -> list[Fault]:
        """Make some vehicles faulty from the next tick on."""

    def recorded_faults(self) -> list[Fault]:
        """Faults that begin in what the last tick gave, where the recording knows them."""
