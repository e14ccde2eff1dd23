"""Which readings train and which validate: by vehicle, never by row. Pure."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloud.readings import Readings

VEHICLES_MIN = 5
CROSS_FIT_READINGS_MAX = 30_000
FOLDS = 4


@dataclass(frozen=True, slots=True)
class Folds:
    """Who validates what.

    Attributes:
        fold: Fold that a reading validates, 0..count-1; -1 trains only. Shape (R,).
        count: How many folds.
        method: 'vehicles', or 'time-blocks' where there are too few vehicles.
    """

    fold: NDArray[np.int64]
    count: int
    method: str


def split(readings: Readings, *, share: float, seed: int) -> Folds:
    """Cut readings into folds.

    Much data: about `share` of the vehicles validate, the others train; one fold. Little
    (`CROSS_FIT_READINGS_MAX` or less): every vehicle validates once, in one of `FOLDS` folds, as
    a quarter of little is too little to take a threshold from.

    With fewer than `VEHICLES_MIN` vehicles one of them is no sample of the others. Then each
    vehicle's readings are cut into contiguous blocks of time and these are dealt out instead:
    neighbouring readings are alike, so rows by lot would put nearly the same reading on both
    sides.
    """
    rng = np.random.default_rng(seed)
    count = FOLDS if len(readings) <= CROSS_FIT_READINGS_MAX else 1
    parts = FOLDS if count > 1 else max(2, round(1 / share))
    vehicles = np.unique(readings.vehicle)
    if len(vehicles) >= VEHICLES_MIN:
        part_of = np.zeros(len(readings.vehicle_ids), np.int64)
        part_of[rng.permutation(vehicles)] = np.arange(len(vehicles)) % parts
        part, method = part_of[readings.vehicle], "vehicles"
    else:
        part, method = _blocks(readings, parts, rng), "time-blocks"
    return Folds(np.where(part < count, part, -1), count, method)


def _blocks(readings: Readings, parts: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Each vehicle's readings in `parts` contiguous blocks, numbered by lot."""
    part = np.zeros(len(readings), np.int64)
    for vehicle in np.unique(readings.vehicle):
        rows = np.flatnonzero(readings.vehicle == vehicle)
        part[rows] = rng.permutation(parts)[np.arange(len(rows)) * parts // len(rows)]
    return part
