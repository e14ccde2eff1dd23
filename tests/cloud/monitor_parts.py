"""Made-up releases and statistics for the tests of the monitor."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoring.bundle import Bundle
from scoring.catalog import Catalog
from scoring.reference import reference_of
from scoring.stats import ArmKey, ArmWindow, Tally

SMALL = Path(__file__).parents[1] / "scoring" / "data" / "small.motorcade"
NAMES = Bundle.load(SMALL).manifest.feature_names
NOW_MS = 1_790_000_000_000
NAME = "small"


def fleet_rows(
    rng: np.random.Generator, vehicles: int, rows: int, shift: Mapping[str, float] | None = None
) -> NDArray[np.float32]:
    """Rows (vehicles * rows, F) in standard deviations: vehicles differ, and readings do."""
    levels = rng.normal(0, 1, (vehicles, len(NAMES))).repeat(rows, axis=0)
    values = levels + rng.normal(0, 0.5, levels.shape)
    values[:, NAMES.index("map")] = np.round(np.abs(levels[:, 0]))  # on few levels
    for name, by in (shift or {}).items():
        values[:, NAMES.index(name)] += by
    return values.astype(np.float32)


def scores_of(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """A made-up score of each row."""
    return np.asarray((rows**2).mean(axis=1) * 5, np.float32)


def referenced(version: str, *, seed: int = 1, vehicles: int = 200) -> Bundle:
    """The small model with a reference of a made-up fleet."""
    rows = fleet_rows(np.random.default_rng(seed), vehicles, 30)
    reference = reference_of(rows, scores_of(rows), threshold=20.0, vehicles=vehicles)
    bundle = Bundle.load(SMALL)
    manifest = replace(bundle.manifest, version=version, reference=reference)
    return replace(bundle, manifest=manifest)


def catalog_of(*bundles: Bundle) -> Catalog:
    catalog = Catalog()
    for bundle in bundles:
        catalog = catalog.with_release(bundle)
    return catalog


def window(
    bundle: Bundle,
    rows: NDArray[np.float32],
    *,
    end_ms: int,
    vehicles: int,
    arm: str = "champion",
    component: str = "scorer",
    component_id: str = "s-1",
    length_ms: int = 2_000,
    **numbers: int,
) -> ArmWindow:
    """What a scorer would tell of these rows."""
    tally = Tally(bundle)
    tally.scores(scores_of(rows))
    tally.features(rows, end_ms)
    tally.vehicles(np.arange(vehicles))
    tally.add(**numbers)
    manifest = bundle.manifest
    key = ArmKey(component, component_id, "embedded", manifest.name, manifest.version, arm)
    return ArmWindow(key, end_ms - length_ms, end_ms, tally.close())


def record(window: ArmWindow) -> dict[str, Any]:
    return window.to_record()
