"""The LSTM autoencoder: trained, frozen, calibrated, and what cannot be trained on."""

from dataclasses import replace

import numpy as np
import pytest
from trainer_fleet import SIGNALS, poll, readings

from cloud.feature_choice import window_ends
from cloud.fitting import Source, _of_features, fit_bundle, shown
from cloud.network import COMPARED_WINDOWS, NOT_SHOWN, NetworkSettings
from cloud.settings import TrainSettings
from cloud.training import Fitted, TrainingProcess
from schemas.errors import SettingsError
from scoring.bundle import Bundle
from scoring.stream import StreamScorer

SETTINGS = TrainSettings(kind="lstm", window=4, epochs=10, threads=1)
SOURCE = Source("vehicle.telemetry")
NOW_MS = 1_763_836_212_345


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    with pytest.MonkeyPatch.context() as patch, TrainingProcess() as process:
        # One fold: as with much data, and a fifth of the time.
        patch.setattr("cloud.split.CROSS_FIT_READINGS_MAX", 0)
        return fit_bundle(readings(16, 60), SETTINGS, SOURCE, process.fit, now_ms=NOW_MS)


def test_the_bundle_is_sound_and_says_that_it_takes_windows(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert Bundle.from_record(bundle.to_record()) == bundle
    assert (manifest.window, manifest.format) == (4, 3)
    assert manifest.feature_names[: len(SIGNALS)] == SIGNALS
    assert float(manifest.provenance.notes["keras_tflite_difference"]) < 1e-4
    # A quarter of the vehicles validate; all their readings but the first three end a window.
    assert manifest.provenance.notes["validation_readings"] == str(4 * 57)
    assert manifest.reference is not None
    assert sum(manifest.reference.scores) == 4 * 57


def test_normal_driving_scores_low_and_a_fault_high(bundle: Bundle) -> None:
    columns = poll(10, 60, seed=9)
    scorer = StreamScorer(bundle, max_vehicles=10)
    wanted = [SIGNALS.index(name) for name in scorer.signals]
    normal = replace(columns, values=columns.values[:, wanted], signals=scorer.signals)
    scores = scorer.process(normal, now_ms=0).scores
    assert np.isnan(scores).sum() == 10 * 3
    assert (scores > bundle.manifest.threshold).mean() < 0.02
    values = normal.values.copy()
    values[:, scorer.signals.index("low_voltage")] -= 0.6
    scorer.drop_all()
    flat = scorer.process(replace(normal, values=values), now_ms=0)
    assert np.nanmedian(flat.scores) > bundle.manifest.threshold
    leading = {opened.signals[0].name.split(":")[0] for opened in flat.transitions}
    assert leading == {"low_voltage"}


def no_fit(rows: object, fold: object, network: object) -> Fitted:
    raise AssertionError("must not be trained")


def test_drives_too_short_for_a_window_are_refused_in_words() -> None:
    short = readings(60, 10)
    with pytest.raises(SettingsError, match="too few vehicles drove 32 readings in a row"):
        fit_bundle(short, TrainSettings(kind="lstm"), SOURCE, no_fit, now_ms=NOW_MS)


def test_windows_that_no_manifest_takes_are_refused_before_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cloud.fitting.COLUMNS_MAX", 32 * 7)
    with pytest.raises(SettingsError, match=r"windows of 32 readings of \d+ features"):
        fit_bundle(readings(16, 60), TrainSettings(kind="lstm"), SOURCE, no_fit, now_ms=NOW_MS)


@pytest.mark.parametrize("change", [{"window": 1}, {"window": 129}])
def test_windows_of_the_settings_are_bounded(change: dict[str, int]) -> None:
    with pytest.raises(SettingsError, match="trainer window"):
        TrainSettings(**change)  # type: ignore[arg-type]


def test_the_error_of_a_feature_is_the_root_mean_square_over_its_window() -> None:
    errors = np.array([[3.0, 1.0, -4.0, np.nan], [0.0, np.nan, 0.0, np.nan]], np.float32)
    found = _of_features(errors, 2)
    np.testing.assert_allclose(found, [[12.5**0.5, 1.0], [0.0, np.nan]])
    assert _of_features(errors, 1) is errors


def test_windows_end_where_the_scorer_is_ready() -> None:
    driven = readings(3, 8)
    features = driven.values
    assert window_ends(driven, features, 1).tolist() == list(range(24))
    assert window_ends(driven, features, 6).tolist() == [5, 6, 7, 13, 14, 15, 21, 22, 23]


def test_windows_are_shown_a_block_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud.fitting.ROWS_BYTES", 2 * 4 * 3)
    rows = np.arange(6, dtype=np.float32).reshape(6, 1)
    blocks = [(ends.tolist(), made.tolist()) for ends, made in shown(rows, np.array([2, 4, 5]), 3)]
    assert blocks == [([2, 4], [[0, 1, 2], [2, 3, 4]]), ([5], [[3, 4, 5]])]


def test_keras_and_tflite_are_compared_at_all_rows_or_a_sample_of_windows() -> None:
    fold = np.zeros(5 * COMPARED_WINDOWS, np.int64)
    fold[0] = NOT_SHOWN
    assert len(NetworkSettings().compared(fold)) == len(fold) - 1
    compared = NetworkSettings(window=4).compared(fold)
    assert COMPARED_WINDOWS * 0.9 < len(compared) <= COMPARED_WINDOWS
    assert compared.min() > 0
