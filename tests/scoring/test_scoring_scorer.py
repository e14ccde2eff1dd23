import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scoring_bundles import small_bundle

from schemas.errors import ContractError, Reason, SettingsError
from scoring.bundle import Bundle
from scoring.interpreter import TfliteModel
from scoring.scorer import ERROR_CLIP, INPUT_CLIP, BatchScorer

BUNDLE = small_bundle()
WIDTH = len(BUNDLE.manifest.features)
SCORER = BatchScorer(BUNDLE)


def rows(random: np.random.Generator, n: int, *, missing: float = 0.0) -> NDArray[np.float32]:
    mean, scale = np.array(BUNDLE.manifest.mean), np.array(BUNDLE.manifest.scale)
    out = random.normal(mean, 3 * scale, (n, WIDTH)).astype(np.float32)
    out[random.random(out.shape) < missing] = np.nan
    return out


def plain_score(row: NDArray[np.float32]) -> float:
    """The definition, one row in double precision around the model."""
    manifest = BUNDLE.manifest
    inputs = (row.astype(np.float64) - manifest.mean) / manifest.scale
    present = ~np.isnan(inputs)
    inputs = np.clip(np.where(present, inputs, 0.0), -INPUT_CLIP, INPUT_CLIP)
    model = TfliteModel(BUNDLE.model, n_inputs=WIDTH, n_outputs=WIDTH)
    outputs = model.run(inputs[None].astype(np.float32))[0]
    errors = np.minimum(((inputs - outputs) / manifest.error_scale) ** 2, ERROR_CLIP**2)
    return float(errors[present].mean()) if 2 * present.sum() >= WIDTH else np.nan


@pytest.mark.parametrize("missing", [0.0, 0.2, 0.6])
def test_scores_follow_the_definition(missing: float) -> None:
    features = rows(np.random.default_rng(1), 40, missing=missing)
    expected = [plain_score(row) for row in features]
    np.testing.assert_allclose(SCORER.score(features), expected, rtol=1e-4)


def test_a_row_scores_the_same_bits_in_whatever_batch_it_is() -> None:
    random = np.random.default_rng(2)
    features = rows(random, 3000, missing=0.02)
    whole = SCORER.score(features)
    alone = np.concatenate([SCORER.score(row[None]) for row in features])
    np.testing.assert_array_equal(alone, whole)
    for size in (2, 3, 63, 64, 65, 255, 257, 511, 512, 513, 1023, 1025, 1500):
        parts = [SCORER.score(features[i : i + size]) for i in range(0, len(features), size)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), first=st.integers(0, 700), size=st.integers(0, 700))
def test_a_row_reproduces_the_same_bits_in_any_batch(seed: int, first: int, size: int) -> None:
    model = TfliteModel(BUNDLE.model, n_inputs=WIDTH, n_outputs=WIDTH)
    inputs = np.random.default_rng(seed).normal(size=(700, WIDTH)).astype(np.float32)
    expected = model.run(inputs)[first : first + size]
    np.testing.assert_array_equal(model.run(inputs[first : first + size]), expected)


def test_rows_of_any_memory_order_score_alike() -> None:
    features = rows(np.random.default_rng(3), 100)
    np.testing.assert_array_equal(SCORER.score(np.asfortranarray(features)), SCORER.score(features))
    np.testing.assert_array_equal(SCORER.score(features[::2]), SCORER.score(features)[::2])


def test_no_rows_have_no_scores() -> None:
    assert SCORER.score(np.empty((0, WIDTH), np.float32)).shape == (0,)
    assert SCORER.explain(np.empty((0, WIDTH), np.float32)) == []


def test_half_of_the_features_are_enough() -> None:
    row = rows(np.random.default_rng(4), 1)
    row[0, : WIDTH // 2] = np.nan
    assert np.isfinite(SCORER.score(row)).all()
    row[0, WIDTH // 2] = np.nan
    assert np.isnan(SCORER.score(row)).all()


def test_the_largest_numbers_are_clipped() -> None:
    features = np.full((1, WIDTH), 3e38, np.float32)
    assert SCORER.score(features)[0] == ERROR_CLIP**2
    features = np.full((1, WIDTH), -np.inf, np.float32)
    assert SCORER.score(features)[0] == ERROR_CLIP**2


def test_the_features_given_are_left_alone() -> None:
    features = rows(np.random.default_rng(5), 10, missing=0.1)
    before = features.copy()
    SCORER.score(features)
    SCORER.explain(features)
    np.testing.assert_array_equal(features, before)


def test_the_signal_at_fault_leads() -> None:
    features = np.array([BUNDLE.manifest.mean], np.float32)
    features[0, 2] = 140.0  # coolant, Celsius
    features[0, 4] = np.nan
    (signals,) = SCORER.explain(features, top=4)
    first = signals[0]
    assert (first.name, first.unit, first.value) == ("coolant_temperature", "Celsius", 140.0)
    assert first.deviation == pytest.approx((140.0 - first.expected) / BUNDLE.manifest.scale[2])
    assert [s.share for s in signals] == sorted((s.share for s in signals), reverse=True)
    assert "maf" not in [s.name for s in signals]
    (every,) = SCORER.explain(features, top=WIDTH)
    assert sum(signal.share for signal in every) == pytest.approx(1.0)


def test_many_rows_are_explained_as_one_by_one() -> None:
    features = rows(np.random.default_rng(6), 1500, missing=0.1)
    together = SCORER.explain(features)
    assert together[1400] == SCORER.explain(features[1400:1401])[0]


def test_a_matrix_of_another_width_is_refused() -> None:
    with pytest.raises(ContractError) as caught:
        SCORER.score(np.zeros((3, WIDTH + 1), np.float32))
    assert caught.value.reason is Reason.MODEL_FEATURES


def test_a_manifest_with_other_features_than_the_model_is_refused() -> None:
    manifest = BUNDLE.manifest
    fewer = replace(
        manifest,
        features=manifest.features[:-1],
        units=manifest.units[:-1],
        mean=manifest.mean[:-1],
        scale=manifest.scale[:-1],
        error_scale=manifest.error_scale[:-1],
    )
    with pytest.raises(ContractError) as caught:
        BatchScorer(Bundle(fewer, BUNDLE.model))
    assert caught.value.reason is Reason.MODEL_FEATURES


def test_a_bundle_made_by_hand_is_verified() -> None:
    with pytest.raises(ContractError) as caught:
        BatchScorer(Bundle(BUNDLE.manifest, BUNDLE.model + b"\0"))
    assert caught.value.reason is Reason.MODEL_HASH


def test_a_missing_runtime_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", None)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(SettingsError, match="edge"):
        BatchScorer(BUNDLE)
