"""Releases of a few kinds, and a catalog of them, for tests of the model server."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scoring.bundle import Bundle
from scoring.catalog import Catalog

Float32 = NDArray[np.float32]

WINDOW_PATH = Path(__file__).parents[1] / "scoring" / "data" / "small_window.motorcade"
SMALL_PATH = Path(__file__).parents[1] / "scoring" / "data" / "small.motorcade"


@cache
def small() -> Bundle:
    return Bundle.load(SMALL_PATH)


def window_release(version: str, name: str = "small") -> Bundle:
    """The small LSTM as another version."""
    bundle = Bundle.load(WINDOW_PATH)
    return replace(bundle, manifest=replace(bundle.manifest, version=version, name=name))


def windows(count: int, bundle: Bundle, *, seed: int = 1, missing: float = 0.02) -> Float32:
    """Windows like those of training, flat, some cells absent; the last one is not full."""
    manifest = bundle.manifest
    random = np.random.default_rng(seed)
    shape = (count, manifest.window, len(manifest.mean))
    out = random.normal(manifest.mean, 3 * np.array(manifest.scale), shape).astype(np.float32)
    out[random.random(shape) < missing] = np.nan
    out[-1] = np.nan
    return out.reshape(count, -1)


def release(version: str, name: str = "anomaly", *, created_s: int = 0) -> Bundle:
    """The small model as another version; its scores are twice those of version '1' for '2', ..."""
    manifest = small().manifest
    factor = float(version) if version.isdigit() else 1.0
    return replace(
        small(),
        manifest=replace(
            manifest,
            name=name,
            version=version,
            created_time_ms=created_s * 1000,
            error_scale=tuple(e / factor**0.5 for e in manifest.error_scale),
        ),
    )


def unusable(version: str, name: str = "anomaly") -> Bundle:
    """Verifies as a record, but the model has fewer columns than the manifest has features."""
    good = release(version, name)
    manifest = good.manifest
    return replace(
        good,
        manifest=replace(
            manifest,
            features=manifest.features[:-1],
            mean=manifest.mean[:-1],
            scale=manifest.scale[:-1],
            error_scale=manifest.error_scale[:-1],
            units=manifest.units[:-1],
        ),
    )


def catalog_of(*bundles: Bundle) -> Catalog:
    catalog = Catalog()
    for bundle in bundles:
        catalog = catalog.with_release(bundle)
    return catalog


def rows(count: int, *, seed: int = 1, missing: float = 0.02) -> NDArray[np.float32]:
    """Rows like those of training, some features absent."""
    manifest = small().manifest
    random = np.random.default_rng(seed)
    shape = (count, len(manifest.mean))
    out = random.normal(manifest.mean, 3 * np.array(manifest.scale), shape).astype(np.float32)
    out[random.random(shape) < missing] = np.nan
    return out
