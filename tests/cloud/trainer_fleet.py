"""A small made-up fleet whose signals hang together, for the trainer's tests."""

import numpy as np
from numpy.typing import NDArray

from cloud.readings import ReadingCollector, Readings
from schemas.columns import TelemetryColumns

SIGNALS = ("speed", "engine_speed", "coolant_temperature", "maf", "map", "tps", "low_voltage")
START_MS = 1_750_000_000_000


def drive(vehicles: int, seconds: int, seed: int) -> NDArray[np.float32]:
    """Shape (vehicles, seconds, 7): each vehicle at another place of the same cycle."""
    rng = np.random.default_rng(seed)
    t = np.arange(seconds) + rng.uniform(0, 600, (vehicles, 1))
    noise = rng.normal(0, 1, (7, vehicles, seconds))
    speed = np.clip(60 + 50 * np.sin(t / 40) + noise[0], 0, None)
    rpm = 800 + 32 * speed + 20 * noise[1]
    pressure = 60 + 25 * np.cos(t / 40) + noise[4]
    columns = (
        speed,
        rpm,
        88 + 3 * np.sin(t / 100) + 0.3 * noise[2],
        0.0001 * pressure * rpm + 0.2 * noise[3],
        pressure,
        0.5 * pressure + noise[5],
        13.8 + 0.05 * noise[6],
    )
    return np.asarray(np.stack(columns, axis=-1), np.float32)


def poll(vehicles: int, seconds: int, *, seed: int = 0, boot_id: int = 1) -> TelemetryColumns:
    """A whole drive as one decoded poll, a reading a message, as the fleet sends it."""
    values = drive(vehicles, seconds, seed).transpose(1, 0, 2).reshape(-1, len(SIGNALS))
    messages = vehicles * seconds
    second = np.repeat(np.arange(seconds), vehicles)
    ones = np.ones(messages, np.int64)
    return TelemetryColumns(
        index=np.arange(messages),
        vehicle_ids=[b"car-%03d" % (i % vehicles) for i in range(messages)],
        boot_id=boot_id * ones,
        seq=second + 1,
        oldest_seq=ones,
        uptime_ms=1_000 * second,
        clock_synced=np.ones(messages, np.bool_),
        counts=ones,
        starts=np.arange(messages),
        event_time_ms=START_MS + 1_000 * second,
        values=values,
        signals=SIGNALS,
        rejected=[],
    )


def readings(vehicles: int, seconds: int, *, seed: int = 0) -> Readings:
    """The same as the trainer holds it."""
    collector = ReadingCollector(SIGNALS, max_readings=1_000_000, seed=1)
    collector.add(poll(vehicles, seconds, seed=seed))
    return collector.readings()
