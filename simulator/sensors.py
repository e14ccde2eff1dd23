"""From the true state to what a logger reads: quantised, polled in turn, held between.

The recorded cars ask one sensor after the other, so a signal repeats its last value until its
turn comes: at 2 s, 58 % of speed values repeat. One unchanged signal is normal, all unchanged is
a frozen feed.
"""

import numpy as np
from numpy.typing import NDArray

from schemas.signals import SIGNAL_BY_NAME
from simulator.physics import SIMULATED_SIGNALS

Floats = NDArray[np.float32]

# Seconds between two polls of a sensor; below one reading interval: fresh in each reading.
_POLL_S: dict[str, float] = {
    "speed": 2.8,
    "engine_speed": 2.4,
    "coolant_temperature": 4.0,
    "intake_temp": 4.0,
    "air_temperature": 20.0,
    "low_voltage": 2.0,
    "state_of_charge": 5.0,
    "tire_pressure_row1_left": 15.0,
    "tire_pressure_row1_right": 15.0,
    "tire_pressure_row2_left": 15.0,
    "tire_pressure_row2_right": 15.0,
    "tps": 1.4,
    "pedal_position": 1.4,
}

QUANTA: Floats = np.array([SIGNAL_BY_NAME[name].quantum for name in SIMULATED_SIGNALS], np.float32)
MINIMA: Floats = np.array([SIGNAL_BY_NAME[name].minimum for name in SIMULATED_SIGNALS], np.float32)
MAXIMA: Floats = np.array([SIGNAL_BY_NAME[name].maximum for name in SIMULATED_SIGNALS], np.float32)
_PERIODS_S: Floats = np.array([_POLL_S.get(name, 0.0) for name in SIMULATED_SIGNALS], np.float32)


def quantise(values: Floats) -> Floats:
    """Round to the sensor's step and keep inside the range of the schema. Any shape (..., S)."""
    steps = np.rint(values / QUANTA) * QUANTA
    return np.asarray(np.clip(steps, MINIMA, MAXIMA), np.float32)


class Sensors:
    """The loggers of V vehicles, each with its own order of polling."""

    def __init__(self, vehicles: int, rng: np.random.Generator) -> None:
        signals = len(SIMULATED_SIGNALS)
        self._offset_s = (rng.random((vehicles, signals)) * _PERIODS_S).astype(np.float32)
        self._period_s = np.maximum(_PERIODS_S, 1e-3)
        self._turn = np.full((vehicles, signals), -1, np.int64)
        self._held = np.zeros((vehicles, signals), np.float32)

    def read(self, truth: Floats, time_s: float) -> Floats:
        """What is logged at `time_s`. Shapes (V, S); the result is fresh."""
        turn = np.floor((time_s + self._offset_s) / self._period_s).astype(np.int64)
        fresh = turn != self._turn
        self._turn = turn
        self._held = np.where(fresh, quantise(truth), self._held)
        return self._held.copy()
