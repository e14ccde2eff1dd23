"""The network of a windowed model: its definition, its bits, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scoring_bundles import WINDOW_PATH, small_bundle, window_bundle

from schemas.errors import ContractError, Reason
from scoring.bundle import Bundle, Manifest, sha256_hex
from scoring.interpreter import TfliteModel
from scoring.manifest import COLUMNS_MAX, WINDOW_MAX
from scoring.scorer import ERROR_CLIP, INPUT_CLIP, BatchScorer

BUNDLE = window_bundle()
MANIFEST = BUNDLE.manifest
WINDOW, WIDTH = MANIFEST.window, len(MANIFEST.features)
SCORER = BatchScorer(BUNDLE)
FIXED = WINDOW_PATH.with_name("fixed_batch.tflite").read_bytes()


def model_of(model: bytes = BUNDLE.model, **changed: int) -> TfliteModel:
    return TfliteModel(
        model, **({"n_inputs": WIDTH, "n_outputs": WIDTH, "window": WINDOW} | changed)
    )


def rows(random: np.random.Generator, n: int, *, missing: float = 0.0) -> NDArray[np.float32]:
    """Windows, flat. Shape (n, WINDOW * WIDTH)."""
    out = random.normal(MANIFEST.mean, 3 * np.array(MANIFEST.scale), (n, WINDOW, WIDTH))
    out[random.random(out.shape) < missing] = np.nan
    return out.astype(np.float32).reshape(n, -1)


def plain_score(row: NDArray[np.float32]) -> float:
    """The definition, one window in double precision around the model."""
    inputs = (row.reshape(WINDOW, WIDTH).astype(np.float64) - MANIFEST.mean) / MANIFEST.scale
    present = ~np.isnan(inputs)
    inputs = np.clip(np.where(present, inputs, 0.0), -INPUT_CLIP, INPUT_CLIP)
    outputs = model_of().run(inputs.reshape(1, -1).astype(np.float32)).reshape(WINDOW, WIDTH)
    errors = np.minimum(((inputs - outputs) / MANIFEST.error_scale) ** 2, ERROR_CLIP**2)
    return float(errors[present].mean()) if 2 * present.sum() >= present.size else np.nan


@pytest.mark.parametrize("missing", [0.0, 0.2, 0.5])
def test_scores_follow_the_definition(missing: float) -> None:
    features = rows(np.random.default_rng(1), 40, missing=missing)
    expected = [plain_score(row) for row in features]
    np.testing.assert_allclose(SCORER.score(features), expected, rtol=1e-4)
    assert missing < 0.5 or np.isnan(expected).any()


def test_a_window_that_is_not_there_has_no_score() -> None:
    assert np.isnan(SCORER.score(np.full((2, MANIFEST.columns), np.nan, np.float32))).all()


def test_a_window_scores_the_same_bits_in_whatever_batch_it_is() -> None:
    features = rows(np.random.default_rng(2), 400, missing=0.02)
    whole = SCORER.score(features)
    np.testing.assert_array_equal(
        np.concatenate([SCORER.score(row[None]) for row in features]), whole
    )
    for size in (2, 3, 15, 16, 17, 33, 63, 64, 65, 100, 129):
        parts = [SCORER.score(features[i : i + size]) for i in range(0, len(features), size)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_array_equal(SCORER.score_and_reconstruct(features)[0], whole)


@settings(max_examples=30, deadline=None)
@given(first=st.integers(0, 200), size=st.integers(0, 200), fixed=st.booleans())
def test_a_window_reproduces_the_same_bits_in_any_batch(first: int, size: int, fixed: bool) -> None:
    model = model_of(FIXED) if fixed else model_of()
    inputs = np.random.default_rng(3).normal(size=(200, WINDOW * WIDTH)).astype(np.float32)
    expected = model.run(inputs)[first : first + size]
    np.testing.assert_array_equal(model.run(inputs[first : first + size]), expected)


def test_a_model_of_a_fixed_batch_gives_what_one_of_any_batch_gives() -> None:
    inputs = np.random.default_rng(4).normal(size=(100, WINDOW * WIDTH)).astype(np.float32)
    np.testing.assert_allclose(model_of(FIXED).run(inputs), model_of().run(inputs), atol=1e-5)
    fixed = Bundle(replace(MANIFEST, model_sha256=sha256_hex(FIXED)), FIXED)
    features = rows(np.random.default_rng(5), 7)
    np.testing.assert_allclose(
        BatchScorer(fixed).score(features), SCORER.score(features), rtol=1e-4
    )


def test_the_shares_of_a_feature_are_added_up_and_the_newest_reading_is_told() -> None:
    window = np.tile(np.array(MANIFEST.mean, np.float32), (WINDOW, 1))
    window[:, 2] = (100.0, 120.0, 140.0, np.nan)  # coolant, Celsius
    (signals,) = SCORER.explain(window.reshape(1, -1), top=WIDTH)
    first = signals[0]
    assert (first.name, first.value) == ("coolant_temperature", 140.0)
    assert first.deviation == pytest.approx((140.0 - first.expected) / MANIFEST.scale[2])
    assert sum(signal.share for signal in signals) == pytest.approx(1.0)
    assert [s.share for s in signals] == sorted((s.share for s in signals), reverse=True)


def test_a_feature_that_no_reading_has_is_not_told() -> None:
    window = np.tile(np.array(MANIFEST.mean, np.float32), (WINDOW, 1))
    window[:, 4] = np.nan
    (signals,) = SCORER.explain(window.reshape(1, -1), top=WIDTH)
    assert "maf" not in [signal.name for signal in signals]


def test_a_matrix_of_single_readings_is_refused() -> None:
    with pytest.raises(ContractError) as caught:
        SCORER.score(np.zeros((3, WIDTH), np.float32))
    assert caught.value.reason is Reason.MODEL_FEATURES


@pytest.mark.parametrize(
    ("manifest", "model"),
    [
        (replace(MANIFEST, window=1), BUNDLE.model),
        (replace(MANIFEST, window=WINDOW + 1), BUNDLE.model),
        (replace(small_bundle().manifest, window=WINDOW), small_bundle().model),
    ],
    ids=["windows-for-points", "other-window", "points-for-windows"],
)
def test_a_model_of_another_shape_than_its_manifest_is_refused(
    manifest: Manifest, model: bytes
) -> None:
    with pytest.raises(ContractError) as caught:
        BatchScorer(Bundle(manifest, model))
    assert caught.value.reason is Reason.MODEL_FEATURES
    assert "shape" in caught.value.detail


def test_a_batch_beyond_all_bounds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scoring.interpreter.LARGE", 2)
    with pytest.raises(ContractError, match="3 rows at once"):
        model_of(FIXED)


def test_windows_are_bounded() -> None:
    with pytest.raises(ContractError, match="window 129"):
        replace(MANIFEST, window=WINDOW_MAX + 1)
    specs = tuple(replace(MANIFEST.features[5], window_s=5.0 * (i + 1)) for i in range(33))
    ones = (1.0,) * len(specs)
    with pytest.raises(ContractError, match=f"windows of 128 x 33: over {COLUMNS_MAX}"):
        replace(
            MANIFEST,
            window=WINDOW_MAX,
            features=specs,
            units=(),
            mean=ones,
            scale=ones,
            error_scale=ones,
        )


def test_a_windowed_manifest_reads_as_it_was_written() -> None:
    assert Bundle.from_record(BUNDLE.to_record()) == BUNDLE
    assert (MANIFEST.format, MANIFEST.columns) == (3, WINDOW * WIDTH)
