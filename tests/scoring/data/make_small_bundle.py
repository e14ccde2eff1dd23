"""Makes `small.motorcade`, the model that the scoring tests load. Needs TensorFlow.

    python tests/scoring/data/make_small_bundle.py

The model learns nothing: its weights are random from a fixed seed, which is enough to test all
that surrounds a model.
"""

from pathlib import Path

import tensorflow as tf

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

FEATURES = (
    FeatureSpec("speed"),
    FeatureSpec("engine_speed"),
    FeatureSpec("coolant_temperature"),
    FeatureSpec("map"),
    FeatureSpec("maf"),
    FeatureSpec("speed", FeatureKind.MEAN, 10.0),
    FeatureSpec("engine_speed", FeatureKind.MEAN, 30.0),
    FeatureSpec("coolant_temperature", FeatureKind.LAG, 60.0),
    FeatureSpec("map", FeatureKind.RUN_LENGTH, 30.0),
)
MEAN = (50.0, 2000.0, 85.0, 100.0, 20.0, 50.0, 2000.0, 85.0, 2.0)
SCALE = (30.0, 700.0, 8.0, 30.0, 15.0, 30.0, 600.0, 8.0, 4.0)


def main() -> None:
    tf.keras.utils.set_random_seed(7)
    width = len(FEATURES)
    network = tf.keras.Sequential(
        [
            tf.keras.Input((width,)),
            tf.keras.layers.Dense(5, "tanh"),
            tf.keras.layers.Dense(width),
        ]
    )
    model = tf.lite.TFLiteConverter.from_keras_model(network).convert()
    manifest = Manifest(
        name="small",
        version="1",
        created_time_ms=1_750_000_000_000,
        features=FEATURES,
        mean=MEAN,
        scale=SCALE,
        error_scale=(0.5,) * width,
        threshold=20.0,
        model_sha256=sha256_hex(model),
        policy=PolicySettings(k=3, n=5, close_k=1, close_ratio=0.8),
        provenance=Provenance(
            topic="vehicle.telemetry",
            offsets=(OffsetRange(0, 0, 100), OffsetRange(1, 5, 80)),
            readings=175,
            vehicles=3,
            seed=7,
            trainer="make_small_bundle.py",
            notes={"purpose": "tests"},
        ),
    )
    Bundle(manifest, model).save(Path(__file__).with_name("small.motorcade"))


if __name__ == "__main__":
    main()
