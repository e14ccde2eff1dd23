"""What a new model is tried on: the newest telemetry in the spool, and a set that is built in.

The built-in set takes part always, because a new gateway has no telemetry, and what it has may
not hold every signal: two vehicles, one of them without some signals, sweep each signal through
its whole range. It says nothing of what is normal, so alerts on it are no fault.
"""

import math
from typing import Protocol

from edge.rows import Lane, StoredTelemetry
from schemas.records import encode_single_object
from schemas.signals import SIGNALS, Signal

ROWS_MAX = 2_000
BYTES_MAX = 2 * 1024 * 1024

VEHICLES = 2
BATCHES = 40
READINGS = 10
"""A second each; 400 readings a vehicle fill every window and every look-back of a feature."""

_EPOCH_MS = 1_700_000_000_000
_EDGE = 1e-3
_PERIOD_S = 97.0
"""Of the slowest sweep; not a divisor of the batches' length."""


class Recorded(Protocol):
    """The part of `edge.spool.SpoolReader` that is needed."""

    def first_position(self, lane: Lane) -> int | None:
        """Position of the oldest row."""

    def telemetry(self, *, after: int, rows_max: int, bytes_max: int) -> list[StoredTelemetry]:
        """Rows behind a position."""


def recorded(reader: Recorded, *, last: int) -> list[bytes]:
    """The newest payloads up to position `last`, at most ROWS_MAX and about BYTES_MAX of them.

    Raises:
        SpoolError: The spool cannot be read.
    """
    if reader.first_position(Lane.TELEMETRY) is None:
        return []
    rows = reader.telemetry(after=max(0, last - ROWS_MAX), rows_max=ROWS_MAX, bytes_max=BYTES_MAX)
    return [row.payload for row in rows]


def built_in() -> list[bytes]:
    """TelemetryBatch payloads that need no vehicle: VEHICLES x BATCHES of READINGS each."""
    return [_batch(vehicle, number) for number in range(BATCHES) for vehicle in range(VEHICLES)]


def _batch(vehicle: int, number: int) -> bytes:
    first_s = number * READINGS
    record = {
        "vehicle_id": f"trial-{vehicle}",
        "boot_id": 1,
        "seq": number + 1,
        "oldest_seq": 1,
        "uptime_ms": 1_000 * first_s,
        "clock_synced": True,
        "readings": [_reading(vehicle, first_s + second) for second in range(READINGS)],
    }
    return encode_single_object("TelemetryBatch", record)


def _reading(vehicle: int, second: int) -> dict[str, float | int | None]:
    # Of the last vehicle one reading in ten lacks two thirds of the signals.
    sparse = vehicle == VEHICLES - 1 and second % 10 == 0
    values = {
        signal.name: None if sparse and number % 3 else _value(signal, number, second)
        for number, signal in enumerate(SIGNALS)
    }
    return {**values, "event_time": _EPOCH_MS + 1_000 * second}


def _value(signal: Signal, number: int, second: int) -> float:
    """Swept from end to end, each signal at a pace of its own."""
    phase = 2 * math.pi * second * (1 + number % 7) / _PERIOD_S + number
    share = 0.5 + (0.5 - _EDGE) * math.sin(phase)
    return signal.minimum + share * (signal.maximum - signal.minimum)
