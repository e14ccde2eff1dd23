"""Which signals and which features with memory the autoencoder is given. Pure."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cloud.readings import Readings
from schemas.errors import SettingsError
from schemas.signals import SIGNAL_BY_NAME
from scoring.features import FeatureState
from scoring.manifest import FeatureKind, FeatureSpec
from scoring.windows import WindowState

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

SIGNALS_MIN = 3

# What has inertia is compared with its past, what jumps is smoothed; slow faults show against a
# value of some minutes ago, and a level that others explain over half a minute, not at once. For
# each the longest window that the data can carry is taken, in this order.
WISHES: tuple[tuple[str, FeatureKind, tuple[float, ...]], ...] = (
    ("coolant_temperature", FeatureKind.LAG, (180.0, 60.0)),
    ("map", FeatureKind.MEAN, (30.0, 10.0)),
    ("low_voltage", FeatureKind.MEAN, (60.0, 30.0, 10.0)),
    ("engine_speed", FeatureKind.MEAN, (30.0, 10.0)),
    ("speed", FeatureKind.MEAN, (30.0, 10.0)),
    ("maf", FeatureKind.MEAN, (30.0, 10.0)),
    ("state_of_charge", FeatureKind.LAG, (180.0, 60.0)),
    ("traction_battery_current", FeatureKind.MEAN, (60.0, 30.0, 10.0)),
    ("coolant_temperature", FeatureKind.MEAN, (120.0, 60.0, 30.0, 10.0)),
    ("intake_temp", FeatureKind.LAG, (180.0, 60.0)),
    ("tps", FeatureKind.MEAN, (30.0, 10.0)),
    ("engine_vibration", FeatureKind.MEAN, (30.0, 10.0)),
    ("maf", FeatureKind.RUN_LENGTH, (30.0, 10.0)),
)


def choose_signals(readings: Readings, *, presence: float) -> tuple[str, ...]:
    """Signals that are there in at least `presence` of the readings and that vary.

    One that never moves by a step of its sensor says nothing, and would alarm when it first does.

    Raises:
        SettingsError: Fewer than `SIGNALS_MIN` are left.
    """
    values = readings.values
    share = np.isfinite(values).mean(axis=0) if len(values) else np.zeros(values.shape[1])
    chosen = tuple(
        name
        for column, name in enumerate(readings.signals)
        if share[column] >= presence and _varies(values[:, column], name)
    )
    if len(chosen) < SIGNALS_MIN:
        raise SettingsError(
            f"only {len(chosen)} signals are present in {presence:.0%} of the readings and vary; "
            f"an autoencoder needs {SIGNALS_MIN} (lower trainer signal_presence, or train on "
            "vehicles of one kind)"
        )
    return chosen


def _varies(column: Float32, name: str) -> bool:
    # Half a step: quanta are nominal, and sums in float32 are not exact.
    spread = float(np.nanmax(column) - np.nanmin(column))
    return spread > 0.5 * SIGNAL_BY_NAME[name].quantum


def choose_features(
    readings: Readings, signals: Sequence[str], *, presence: float, memory_max: int
) -> tuple[FeatureSpec, ...]:
    """The signals themselves, and up to `memory_max` features with memory of them.

    Of each wish the longest window is taken at which the feature is ready in at least `presence`
    of the readings; a stretch of 25 s carries means of 10 s and no more. There are never more of
    them than signals: the scorer gives no score where most features are absent, and a vehicle
    shall have one from its first reading on.
    """
    plain = tuple(FeatureSpec(name) for name in signals)
    candidates = [
        FeatureSpec(name, kind, window_s)
        for name, kind, windows in WISHES
        if name in signals
        for window_s in windows
    ]
    if not candidates or memory_max == 0:
        return plain
    ready = np.isfinite(features_of(readings, candidates)).mean(axis=0) >= presence
    chosen: dict[tuple[str, FeatureKind], FeatureSpec] = {}
    for spec, is_ready in zip(candidates, ready, strict=True):
        if is_ready:
            chosen.setdefault((spec.signal, spec.kind), spec)
    return plain + tuple(chosen.values())[: min(memory_max, len(plain))]


def features_of(readings: Readings, specs: Sequence[FeatureSpec]) -> Float32:
    """The feature matrix (R, F) by the code that scores; NaN where absent or not ready."""
    features = np.full((len(readings), len(specs)), np.nan, np.float32)
    column_of = {name: column for column, name in enumerate(readings.signals)}
    for column, spec in enumerate(specs):
        if not spec.has_memory:
            features[:, column] = readings.values[:, column_of[spec.signal]]
    memory = [(column, spec) for column, spec in enumerate(specs) if spec.has_memory]
    if memory:
        columns = [column for column, _ in memory]
        features[:, columns] = _remembered(readings, [spec for _, spec in memory], column_of)
    return features


def window_ends(readings: Readings, features: Float32, window: int) -> Int64:
    """Readings at which a window of them is full, by the code that scores; 1: all."""
    if window == 1:
        return np.arange(len(readings))
    state = WindowState(window, features.shape[1], max_vehicles=max(len(readings.vehicle_ids), 1))
    return state.update(readings.vehicle, _begins(readings), readings.time_ms, features).ready


def _begins(readings: Readings) -> NDArray[np.bool_]:
    begins = np.ones(len(readings), np.bool_)
    begins[1:] = readings.segment[1:] != readings.segment[:-1]
    return begins


def _remembered(
    readings: Readings, specs: Sequence[FeatureSpec], column_of: dict[str, int]
) -> Float32:
    state = FeatureState(specs, max_vehicles=max(len(readings.vehicle_ids), 1))
    begins = _begins(readings)
    values = readings.values[:, [column_of[name] for name in state.signals]]
    return state.update(readings.vehicle, begins, readings.time_ms, values)


def quanta(specs: Sequence[FeatureSpec]) -> NDArray[np.float64]:
    """Step of each feature in its unit; a second for run lengths. Shape (F,)."""
    return np.array(
        [
            1.0
            if spec.kind is FeatureKind.RUN_LENGTH
            else max(SIGNAL_BY_NAME[spec.signal].quantum, 1e-3)
            for spec in specs
        ]
    )
