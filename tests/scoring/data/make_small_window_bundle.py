"""Makes `small_window.motorcade` and `fixed_batch.tflite`, for the tests. Needs TensorFlow.

    python tests/scoring/data/make_small_window_bundle.py

Windowed LSTMs of the trainer's own kind. They learn nothing: their weights are random from a fixed
seed, which is enough to test all that surrounds a model. The second one was converted with a fixed
batch of three windows.
"""

from pathlib import Path
from typing import Any

import tensorflow as tf

from cloud.lstm import build_lstm, unrolled
from cloud.network import NetworkSettings
from scoring.bundle import (
    Bundle,
    FeatureKind,
    FeatureSpec,
    Manifest,
    OffsetRange,
    PolicySettings,
    Provenance,
    sha256_hex,
)

WINDOW = 4
FEATURES = (
    FeatureSpec("speed"),
    FeatureSpec("engine_speed"),
    FeatureSpec("coolant_temperature"),
    FeatureSpec("map"),
    FeatureSpec("maf"),
    FeatureSpec("speed", FeatureKind.MEAN, 10.0),
)


def converted(function: Any, batch: int | None) -> bytes:
    shape = tf.TensorSpec((batch, WINDOW, len(FEATURES)), tf.float32)
    concrete = tf.function(function).get_concrete_function(shape)
    return bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert())


def main() -> None:
    tf.keras.utils.set_random_seed(7)
    settings = NetworkSettings(window=WINDOW, units=3)
    function = unrolled(tf, build_lstm(tf, len(FEATURES), settings), settings)
    model = converted(function, None)
    manifest = Manifest(
        name="small",
        version="1",
        created_time_ms=1_750_000_000_000,
        features=FEATURES,
        mean=(50.0, 2000.0, 85.0, 100.0, 20.0, 50.0),
        scale=(30.0, 700.0, 8.0, 30.0, 15.0, 30.0),
        error_scale=(0.5,) * len(FEATURES),
        threshold=20.0,
        model_sha256=sha256_hex(model),
        window=WINDOW,
        policy=PolicySettings(k=3, n=5, close_k=1, close_ratio=0.8),
        provenance=Provenance(
            topic="vehicle.telemetry",
            offsets=(OffsetRange(0, 0, 100), OffsetRange(1, 5, 80)),
            readings=175,
            vehicles=3,
            seed=7,
            trainer="make_small_window_bundle.py",
            notes={"purpose": "tests"},
        ),
    )
    here = Path(__file__)
    Bundle(manifest, model).save(here.with_name("small_window.motorcade"))
    here.with_name("fixed_batch.tflite").write_bytes(converted(function, 3))


if __name__ == "__main__":
    main()
