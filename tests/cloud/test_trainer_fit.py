import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from trainer_fleet import SIGNALS, readings

from cloud.feature_choice import features_of
from cloud.fitting import Source, fit_bundle, version_of
from cloud.network import NetworkSettings
from cloud.settings import TrainSettings
from cloud.training import Fitted, TrainingProcess
from schemas.errors import MotorcadeError, SettingsError
from scoring.bundle import Bundle, OffsetRange
from scoring.interpreter import TfliteModel
from scoring.scorer import BatchScorer

SETTINGS = TrainSettings(epochs=25, threads=1)
SOURCE = Source("vehicle.telemetry", (OffsetRange(0, 5, 1_005),), {"why": "a test"})
ROWS, FOLD = np.zeros((1, 1), np.float32), np.zeros(1, np.int64)
NOW_MS = 1_763_836_212_345


def trained() -> Bundle:
    with TrainingProcess() as process:
        return fit_bundle(readings(20, 60), SETTINGS, SOURCE, process.fit, now_ms=NOW_MS)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return trained()


def test_the_bundle_is_sound_and_says_where_it_comes_from(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert Bundle.from_record(bundle.to_record()) == bundle
    assert manifest.version == version_of(NOW_MS, manifest.model_sha256)
    assert manifest.version.startswith("20251122T183012Z-")
    assert manifest.feature_names[: len(SIGNALS)] == SIGNALS
    assert 0 < len(manifest.features) - len(SIGNALS) <= SETTINGS.memory_features
    assert manifest.provenance.offsets == SOURCE.offsets
    assert (manifest.provenance.readings, manifest.provenance.vehicles) == (1_200, 20)
    notes = manifest.provenance.notes
    assert (notes["why"], notes["split"], notes["folds"], notes["threshold_method"]) == (
        "a test",
        "vehicles",
        "4",
        "extrapolated",
    )
    assert float(notes["keras_tflite_difference"]) < 1e-4
    bounds = manifest.bounds
    assert bounds is not None
    assert bounds.alerts_per_vehicle_hour_max == (
        SETTINGS.alerts_bound * SETTINGS.false_alerts_per_hour
    )
    assert bounds.reading_ms_max == SETTINGS.reading_ms_bound


def test_the_bundle_says_what_its_training_data_looked_like(bundle: Bundle) -> None:
    reference = bundle.manifest.reference
    assert reference is not None
    assert (reference.vehicles, len(reference.features)) == (20, len(bundle.manifest.features))
    assert {sum(each.counts) + each.absent for each in reference.features} == {1_200}
    assert sum(reference.scores) == 1_200
    assert list(reference.score_quantiles) == sorted(reference.score_quantiles)


def test_normal_driving_scores_low_and_a_fault_high(bundle: Bundle) -> None:
    fresh = readings(10, 60, seed=9)
    scorer = BatchScorer(bundle)
    normal = scorer.score(features_of(fresh, bundle.manifest.features))
    assert np.isfinite(normal).all()
    assert (normal > bundle.manifest.threshold).mean() < 0.01
    values = fresh.values.copy()
    values[:, SIGNALS.index("low_voltage")] -= 0.5
    flat = features_of(replace(fresh, values=values), bundle.manifest.features)
    assert np.median(scorer.score(flat)) > bundle.manifest.threshold
    blamed = {signal.name for signal in scorer.explain(flat[-1:])[0]}
    assert blamed & {"low_voltage", "low_voltage:mean:60s", "low_voltage:mean:30s"}


def test_the_same_log_and_seed_give_the_same_model(bundle: Bundle) -> None:
    assert trained() == bundle


def no_fit(rows: object, fold: object, network: object) -> Fitted:
    raise AssertionError("must not be trained")


def test_too_few_readings_are_refused_in_words() -> None:
    with pytest.raises(SettingsError, match="60 readings of 2 vehicles are too few"):
        fit_bundle(readings(2, 30), TrainSettings(), SOURCE, no_fit, now_ms=NOW_MS)


def test_a_conversion_that_changes_the_model_is_refused(bundle: Bundle) -> None:
    width = len(bundle.manifest.features)

    def skewed(
        rows: np.ndarray[tuple[int, int], np.dtype[np.float32]],
        fold: np.ndarray[tuple[int], np.dtype[np.int64]],
        network: NetworkSettings,
    ) -> Fitted:
        model = TfliteModel(bundle.model, n_inputs=width, n_outputs=width)
        output = model.run(np.nan_to_num(rows)) + np.float32(0.1)
        return Fitted(bundle.model, (bundle.model,) * 4, output, np.array([1.0]), 1, {})

    with pytest.raises(MotorcadeError, match=r"TFLite differs from Keras by 0\.1"):
        fit_bundle(readings(20, 60), SETTINGS, SOURCE, skewed, now_ms=NOW_MS)


def test_versions_sort_by_time() -> None:
    assert version_of(1_000, "f" * 64) < version_of(2_000, "0" * 64)


def test_a_missing_tensorflow_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"motorcade\[cloud\]"):
        TrainingProcess().start()


def test_a_training_process_that_fails_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = tmp_path / "python"
    failing.write_text("#!/bin/sh\ncat > /dev/null\necho 'out of luck' >&2\nexit 7\n")
    failing.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(failing))
    with (
        TrainingProcess() as process,
        pytest.raises(MotorcadeError, match=r"status 7:\nout of luck"),
    ):
        process.fit(ROWS, FOLD, NetworkSettings())


def test_a_training_process_that_hangs_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = tmp_path / "python"
    hanging.write_text("#!/bin/sh\nexec sleep 600\n")
    hanging.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(hanging))
    with (
        TrainingProcess(timeout_s=0.2) as process,
        pytest.raises(MotorcadeError, match=r"longer than 0\.2 s"),
    ):
        process.fit(ROWS, FOLD, NetworkSettings())


def test_a_process_that_was_not_started_cannot_fit() -> None:
    with pytest.raises(MotorcadeError, match="not running"):
        TrainingProcess().fit(ROWS, FOLD, NetworkSettings())


@pytest.mark.parametrize(
    "change",
    [
        {"hidden": 0},
        {"corruption": 1.0},
        {"learning_rate": 0.0},
        {"threads": 0},
    ],
)
def test_network_settings_are_checked(change: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match=next(iter(change))):
        NetworkSettings(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"offsets": "0:1-2", "since_ms": 5},
        {"signal_presence": 0.0},
        {"validation_share": 0.9},
        {"min_readings": 5},
        {"max_readings": 400},
        {"threshold_margin": 0.5},
        {"policy_k": 11},
        {"memory_features": -1},
    ],
)
def test_trainer_settings_are_checked(change: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match="trainer"):
        TrainSettings(**change)  # type: ignore[arg-type]
