"""Decoded polls for the tests, made by hand."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from schemas.columns import TelemetryColumns

EPOCH_MS = 1_750_000_000_000


@dataclass(frozen=True)
class Message:
    """A batch: `readings` holds (milliseconds after the first, values or None)."""

    vehicle: bytes
    boot_id: int
    seq: int
    uptime_ms: int
    readings: Sequence[tuple[int, Sequence[float | None]]]
    event_time_ms: int = EPOCH_MS
    clock_synced: bool = True
    facts: dict[str, object] = field(default_factory=dict)


def columns_of(messages: Sequence[Message], signals: tuple[str, ...]) -> TelemetryColumns:
    counts = np.array([len(message.readings) for message in messages], np.int64)
    values = [
        [math.nan if value is None else value for value in row]
        for message in messages
        for _, row in message.readings
    ]
    times = [message.event_time_ms + after for message in messages for after, _ in message.readings]
    return TelemetryColumns(
        index=np.arange(len(messages)),
        vehicle_ids=[message.vehicle for message in messages],
        boot_id=np.array([message.boot_id for message in messages], np.int64),
        seq=np.array([message.seq for message in messages], np.int64),
        oldest_seq=np.ones(len(messages), np.int64),
        uptime_ms=np.array([message.uptime_ms for message in messages], np.int64),
        clock_synced=np.array([message.clock_synced for message in messages], np.bool_),
        counts=counts,
        starts=np.cumsum(counts) - counts,
        event_time_ms=np.array(times, np.int64),
        values=np.array(values, np.float32).reshape(len(values), len(signals)),
        signals=signals,
        rejected=[],
    )
