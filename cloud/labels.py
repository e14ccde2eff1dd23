"""Which vehicles were faulty in a stretch of time, by `vehicle.labels`. Pure."""

from collections.abc import Iterable

import numpy as np

from cloud.readings import Readings
from schemas.records import Record

FOREVER_MS = 1 << 62


def faulty_vehicles(readings: Readings, labels: Iterable[Record]) -> set[str]:
    """Vehicles with a label that overlaps the event time of their readings.

    Args:
        readings: What would be trained on.
        labels: Records `VehicleLabel`, times as integers of milliseconds; without an `end_time`
            the fault is still present.
    """
    spans = _spans(readings)
    faulty = set()
    for label in labels:
        first_ms, last_ms = spans.get(label["vehicle_id"], (FOREVER_MS, -FOREVER_MS))
        end_ms = FOREVER_MS if label["end_time"] is None else label["end_time"]
        if label["start_time"] <= last_ms and end_ms >= first_ms:
            faulty.add(label["vehicle_id"])
    return faulty


def _spans(readings: Readings) -> dict[str, tuple[int, int]]:
    """First and last event time of each vehicle that has readings."""
    if not len(readings):
        return {}
    starts = np.flatnonzero(np.diff(readings.vehicle, prepend=-1))
    first = np.minimum.reduceat(readings.event_time_ms, starts)
    last = np.maximum.reduceat(readings.event_time_ms, starts)
    return {
        readings.vehicle_ids[vehicle]: (int(low), int(high))
        for vehicle, low, high in zip(readings.vehicle[starts], first, last, strict=True)
    }
