"""A made-up fleet for the benchmark: telemetry in Avro, and a model that fits it. Pure but for
the training process.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloud.network import NetworkSettings
from cloud.training import Fitted, TrainingProcess
from schemas.codec import Framing, encode_telemetry
from schemas.signals import SIGNAL_BY_NAME
from scoring.bundle import (
    Bundle,
    FeatureKind,
    FeatureSpec,
    Manifest,
    PolicySettings,
    Provenance,
    sha256_hex,
)

SIGNALS = (
    "speed",
    "engine_speed",
    "coolant_temperature",
    "maf",
    "map",
    "tps",
    "engine_load",
    "intake_temp",
    "short_term_fuel_trim",
    "long_term_fuel_trim",
    "timing_advance",
    "pedal_position",
    "air_temperature",
    "low_voltage",
    "tire_pressure_row1_left",
    "tire_pressure_row1_right",
    "tire_pressure_row2_left",
    "tire_pressure_row2_right",
)
"""The 18 signals that the fleet measures."""

MEMORY = (
    FeatureSpec("speed", FeatureKind.MEAN, 30.0),
    FeatureSpec("engine_speed", FeatureKind.MEAN, 30.0),
    FeatureSpec("maf", FeatureKind.MEAN, 30.0),
    FeatureSpec("map", FeatureKind.MEAN, 10.0),
    FeatureSpec("coolant_temperature", FeatureKind.LAG, 180.0),
    FeatureSpec("coolant_temperature", FeatureKind.MEAN, 120.0),
    FeatureSpec("low_voltage", FeatureKind.MEAN, 60.0),
    FeatureSpec("maf", FeatureKind.RUN_LENGTH, 30.0),
)

START_MS = 1_760_000_000_000
_TRAIN_ROWS = 8_192
_VALID_ROWS = 512
_THRESHOLD = 1e6  # Alerts cost little as long as they are few; none are wanted here.


@dataclass(frozen=True, slots=True)
class Fleet:
    """What is driven.

    Attributes:
        vehicles: Each sends in turn.
        readings_per_message: Readings of a message, a second apart.
        messages: In all.
        partitions: Of the topic; a vehicle's messages go to its number modulo this.
        seed: Of the values.
    """

    vehicles: int
    readings_per_message: int
    messages: int
    partitions: int
    seed: int = 1

    def records(self, schema_id: int, *, chunk: int) -> Iterator[dict[int, list[dict[str, bytes]]]]:
        """Telemetry in chunks of messages: partition to `value` and `key` of each record."""
        rng = np.random.default_rng(self.seed)
        levels = rng.normal(0.0, 0.3, (self.vehicles, len(SIGNALS))).astype(np.float32)
        for start in range(0, self.messages, chunk):
            number = np.arange(start, min(start + chunk, self.messages))
            yield self._chunk(number, levels, rng, schema_id)

    def _chunk(
        self,
        number: NDArray[np.int64],
        levels: NDArray[np.float32],
        rng: np.random.Generator,
        schema_id: int,
    ) -> dict[int, list[dict[str, bytes]]]:
        vehicle = number % self.vehicles
        seq = number // self.vehicles + 1
        each = self.readings_per_message
        uptime_ms = (seq - 1) * each * 1000
        reading_ms = np.repeat(uptime_ms, each) + np.tile(np.arange(each) * 1000, len(number))
        keys = [b"car-%06d" % v for v in vehicle.tolist()]
        values = encode_telemetry(
            keys,
            np.ones(len(number), np.int64),
            seq,
            seq,
            uptime_ms,
            np.ones(len(number), np.bool_),
            np.full(len(number), each, np.int64),
            START_MS + reading_ms,
            measured(levels[np.repeat(vehicle, each)], rng),
            signals=SIGNALS,
            framing=Framing.CONFLUENT,
            schema_id=schema_id,
        )
        records: dict[int, list[dict[str, bytes]]] = {p: [] for p in range(self.partitions)}
        partition = (vehicle % self.partitions).tolist()
        for p, key, value in zip(partition, keys, values, strict=True):
            records[p].append({"key": key, "value": value})
        return records


def measured(levels: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Readings (R, 18) about levels (R, 18) in units of each signal's scale, inside its range."""
    noise = rng.standard_normal(levels.shape, np.float32) * np.float32(0.1)
    values: NDArray[np.float32] = _MIDDLE + _SCALE * np.clip(levels + noise, -1.5, 1.5)
    return values


def _range_of(name: str) -> tuple[float, float]:
    signal = SIGNAL_BY_NAME[name]
    return (signal.minimum + signal.maximum) / 2, (signal.maximum - signal.minimum) / 8


_RANGES = np.array([_range_of(name) for name in SIGNALS], np.float32)
_MIDDLE, _SCALE = _RANGES[:, 0], _RANGES[:, 1]


def bench_bundle(*, memory: bool, seed: int = 1) -> Bundle:
    """An autoencoder of the 18 signals, with or without `MEMORY`, trained for one epoch.

    What it detects does not matter here; what it costs does, and that is set by its shape.

    Raises:
        SettingsError: TensorFlow is not installed.
    """
    features = tuple(FeatureSpec(name) for name in SIGNALS) + (MEMORY if memory else ())
    rows = np.random.default_rng(seed).standard_normal((_TRAIN_ROWS, len(features)), np.float32)
    with TrainingProcess() as process:
        fold = np.where(np.arange(_TRAIN_ROWS) < _VALID_ROWS, 0, -1)
        fitted = process.fit(rows, fold, NetworkSettings(epochs=1, seed=seed))
    return bundle_of(fitted, features)


def bundle_of(fitted: Fitted, features: tuple[FeatureSpec, ...]) -> Bundle:
    """The bundle around a trained network."""
    ranges = [_range_of(spec.signal) for spec in features]
    manifest = Manifest(
        name="bench",
        version=f"bench-{len(features)}",
        created_time_ms=START_MS,
        features=features,
        mean=tuple(middle for middle, _ in ranges),
        scale=tuple(scale for _, scale in ranges),
        threshold=_THRESHOLD,
        model_sha256=sha256_hex(fitted.model),
        policy=PolicySettings(),
        provenance=Provenance(notes={"purpose": "benchmark"}),
    )
    return Bundle(manifest, fitted.model)
