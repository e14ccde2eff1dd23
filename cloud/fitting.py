"""From readings to a bundle: features, network, scales, threshold, manifest."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from cloud.calibration import (
    Threshold,
    block_maxima,
    choose_threshold,
    driven_hours,
    policy_statistic,
    residual_scale,
)
from cloud.feature_choice import choose_features, choose_signals, features_of, quanta, window_ends
from cloud.network import NOT_SHOWN, NetworkSettings
from cloud.readings import Readings
from cloud.settings import TrainSettings
from cloud.split import Folds, split
from cloud.training import Fitted
from schemas.errors import MotorcadeError, SettingsError
from scoring.bounds import Bounds
from scoring.bundle import (
    Bundle,
    FeatureSpec,
    Manifest,
    OffsetRange,
    PolicySettings,
    Provenance,
    sha256_hex,
)
from scoring.interpreter import TfliteModel
from scoring.manifest import COLUMNS_MAX
from scoring.reference import reference_of
from scoring.scorer import INPUT_CLIP, BatchScorer
from scoring.windows import READING_S, ROWS_BYTES, ending_at

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
Fit = Callable[[Float32, NDArray[np.int64], NetworkSettings], Fitted]

AGREEMENT_MAX = 1e-3
"""Largest difference between Keras and TFLite, in standard deviations of training."""

TRAINER = "motorcade.cloud.trainer/1"


@dataclass(frozen=True, slots=True)
class Source:
    """Where the readings come from, for the manifest."""

    topic: str
    offsets: tuple[OffsetRange, ...] = ()
    notes: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class _Data:
    """Features of all readings and how they are used.

    Attributes:
        fold: Fold that a reading, or the window that ends with it, validates; -1 trains only,
            `NOT_SHOWN` neither: there is no such window, or it reaches into another fold.
        window: Readings that the model is shown at once.
    """

    readings: Readings
    folds: Folds
    fold: Int64
    window: int
    specs: tuple[FeatureSpec, ...]
    features: Float32
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]

    def normalised(self) -> Float32:
        """As `scoring.scorer` feeds the model, but NaN where absent."""
        inputs = (self.features - self.mean) / self.scale
        return np.clip(inputs, -INPUT_CLIP, INPUT_CLIP).astype(np.float32)

    def held_out(self, rows: Float32, fold: int) -> Iterator[tuple[Int64, Float32]]:
        """Readings of a fold, and what of these rows the model is shown at them, by blocks."""
        return shown(rows, np.flatnonzero(self.fold == fold), self.window)


def shown(rows: Float32, ends: Int64, window: int) -> Iterator[tuple[Int64, Float32]]:
    """Some readings, and the rows or windows that end with them, so many that they fit."""
    most = max(1, ROWS_BYTES // (4 * window * rows.shape[1]))
    for start in range(0, len(ends), most):
        block = ends[start : start + most]
        yield block, ending_at(rows, block, window)


def version_of(created_time_ms: int, model_sha256: str) -> str:
    """UTC time to the second and the start of the hash: '20261122T183012Z-1a2b3c4d'.

    Sorts by time. The order that counts is that of the log of `model.releases`.
    """
    moment = datetime.fromtimestamp(created_time_ms / 1000, UTC)
    return f"{moment:%Y%m%dT%H%M%SZ}-{model_sha256[:8]}"


def fit_bundle(
    readings: Readings, settings: TrainSettings, source: Source, fit: Fit, *, now_ms: int
) -> Bundle:
    """Train on readings of normal driving and calibrate.

    Args:
        readings: All that may be used; faulty vehicles are already left out.
        settings: What to aim at.
        source: For the manifest.
        fit: Trains the network: `cloud.training.TrainingProcess.fit`.
        now_ms: The bundle's time of creation.

    Returns:
        A verified bundle, not published.

    Raises:
        SettingsError: Too few readings or signals.
        MotorcadeError: Training failed, or TFLite does not do what Keras does.
    """
    if len(readings) < settings.min_readings:
        raise SettingsError(
            f"{len(readings)} readings of {readings.vehicles} vehicles are too few to train on; "
            f"{settings.min_readings} are wanted (trainer min_readings)"
        )
    data = _prepare(readings, settings)
    network = _network(settings)
    rows = data.normalised()
    fitted = fit(rows, data.fold, network)
    difference = _difference(fitted, rows, network.compared(data.fold), data.window)
    if not difference <= AGREEMENT_MAX:
        raise MotorcadeError(f"TFLite differs from Keras by {difference:.2g}")
    error_scale = _error_scale(fitted, rows, data, settings)
    bundle = _bundle(
        data,
        settings,
        source=source,
        fitted=fitted,
        error_scale=error_scale,
        now_ms=now_ms,
    )
    scores = _held_out_scores(bundle, fitted, data)
    threshold = _threshold(scores, data, settings)
    decided = _decided(bundle, data, scores, threshold)
    return _finished(decided, data, fitted, threshold, difference)


def _network(settings: TrainSettings) -> NetworkSettings:
    network = NetworkSettings(epochs=settings.epochs, seed=settings.seed, threads=settings.threads)
    if settings.kind == "autoencoder":
        return network
    # Windows that overlap say much the same, and each costs as much as many rows.
    return replace(network, window=settings.window, epoch_rows=8_000, patience=8)


def _prepare(readings: Readings, settings: TrainSettings) -> _Data:
    signals = choose_signals(readings, presence=settings.signal_presence)
    specs = choose_features(
        readings,
        signals,
        presence=settings.feature_presence,
        memory_max=settings.memory_features,
    )
    window = _network(settings).window
    if window * len(specs) > COLUMNS_MAX:
        raise SettingsError(
            f"windows of {window} readings of {len(specs)} features are over {COLUMNS_MAX} "
            "numbers; train with a smaller window (trainer window)"
        )
    features = features_of(readings, specs)
    folds = split(readings, share=settings.validation_share, seed=settings.seed)
    # Of one fold the held-out vehicles stay out of the normalisation, too. With several, all
    # vehicles train the final model, and two figures a feature give no fold away.
    fitted_on = folds.fold < 0 if folds.count == 1 else slice(None)
    mean, scale = _moments(features[fitted_on], quanta(specs))
    fold = np.full(len(readings), NOT_SHOWN)
    ends = window_ends(readings, features, window)
    ends = ends[folds.fold[ends] == folds.fold[ends - window + 1]]
    fold[ends] = folds.fold[ends]
    _check_windows(fold, folds, window)
    return _Data(readings, folds, fold, window, specs, features, mean, scale)


def _check_windows(fold: Int64, folds: Folds, window: int) -> None:
    """Raises SettingsError where there is nothing to train on or to validate."""
    there = set(np.unique(fold[fold != NOT_SHOWN]).tolist())
    others = {-1} if folds.count == 1 else set()
    if not there >= set(range(folds.count)) | others:
        raise SettingsError(
            f"too few vehicles drove {window} readings in a row, no further apart than "
            f"{READING_S:g} s; train on a longer stretch or with a smaller window"
        )


def _moments(
    features: Float32, floor: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each feature; the latter at least a step of the sensor."""
    present = np.isfinite(features)
    count = np.maximum(present.sum(axis=0), 1)
    clean = np.where(present, features, 0.0).astype(np.float64)
    mean = clean.sum(axis=0) / count
    spread = np.where(present, clean - mean, 0.0)
    return mean, np.maximum(np.sqrt((spread**2).sum(axis=0) / count), floor)


def _difference(fitted: Fitted, rows: Float32, compared: Int64, window: int) -> float:
    """Greatest difference between TFLite and Keras, of the final model."""
    model, greatest, done = _model(fitted.model, rows, window), 0.0, 0
    for block, inputs in shown(rows, compared, window):
        output = model.run(np.nan_to_num(inputs, nan=0.0))
        expected = fitted.reconstruction[done : done + len(block)]
        # NaN is a difference, too.
        greatest = float(np.maximum(greatest, np.abs(output - expected).max(initial=0.0)))
        done += len(block)
    return greatest


def _model(model: bytes, rows: Float32, window: int) -> TfliteModel:
    width = rows.shape[1]
    return TfliteModel(model, n_inputs=width, n_outputs=width, window=window)


def _error_scale(
    fitted: Fitted, rows: Float32, data: _Data, settings: TrainSettings
) -> NDArray[np.float64]:
    """By residuals of models that were trained without the row's vehicle."""
    residuals = np.full_like(rows, np.nan)
    for number, model in enumerate(fitted.fold_models):
        network = _model(model, rows, data.window)
        for block, inputs in data.held_out(rows, number):
            error = inputs - network.run(np.nan_to_num(inputs, nan=0.0))
            residuals[block] = _of_features(error, data.window)
    return residual_scale(
        residuals,
        data.readings.segment,
        data.readings.time_ms,
        floor=0.5 * quanta(data.specs) / data.scale,
        policy=_policy(settings),
        budget_per_hour=settings.false_alerts_per_hour,
    )


def _of_features(errors: Float32, window: int) -> Float32:
    """Error of each feature; of a window the root of its mean square, which the score adds up.

    Args:
        errors: Shape (n, window * F); NaN where absent.
        window: Readings in a window.

    Returns:
        Shape (n, F); NaN where absent.
    """
    if window == 1:
        return errors
    squares = (errors * errors).reshape(len(errors), window, -1)
    present = np.isfinite(squares)
    count = present.sum(axis=1)
    total = np.where(present, squares, 0.0).sum(axis=1)
    roots: Float32 = np.sqrt(total / np.maximum(count, 1)).astype(np.float32)
    roots[count == 0] = np.nan
    return roots


def _policy(settings: TrainSettings) -> PolicySettings:
    return PolicySettings(
        k=settings.policy_k, n=settings.policy_n, close_k=min(1, settings.policy_k - 1)
    )


def _bounds(settings: TrainSettings) -> Bounds | None:
    """Limits under which a gateway keeps the model; None where there are to be none."""
    most = settings.alerts_bound * settings.false_alerts_per_hour
    bounds = Bounds(
        alerts_per_vehicle_hour_max=most or None, reading_ms_max=settings.reading_ms_bound or None
    )
    return None if bounds == Bounds() else bounds


def _bundle(
    data: _Data,
    settings: TrainSettings,
    *,
    source: Source,
    fitted: Fitted,
    error_scale: NDArray[np.float64],
    now_ms: int,
) -> Bundle:
    """All but the threshold, which the scores of this very bundle decide."""
    sha256 = sha256_hex(fitted.model)
    manifest = Manifest(
        name=settings.name,
        version=version_of(now_ms, sha256),
        created_time_ms=now_ms,
        features=data.specs,
        mean=tuple(data.mean.tolist()),
        scale=tuple(data.scale.tolist()),
        error_scale=tuple(error_scale.tolist()),
        threshold=1.0,
        model_sha256=sha256,
        window=data.window,
        policy=_policy(settings),
        bounds=_bounds(settings),
        provenance=Provenance(
            topic=source.topic,
            offsets=source.offsets,
            readings=len(data.readings),
            vehicles=data.readings.vehicles,
            seed=settings.seed,
            trainer=TRAINER,
            notes=dict(source.notes or {}),
        ),
    )
    return Bundle(manifest, fitted.model)


def _held_out_scores(bundle: Bundle, fitted: Fitted, data: _Data) -> Float32:
    """Score of each reading by a model that was trained without its vehicle; else NaN. (R,)."""
    scores = np.full(len(data.readings), np.nan, np.float32)
    for number, model in enumerate(fitted.fold_models):
        manifest = replace(bundle.manifest, model_sha256=sha256_hex(model))
        scorer = BatchScorer(Bundle(manifest, model))
        for block, features in data.held_out(data.features, number):
            scores[block] = scorer.score(features)
    return scores


def _threshold(scores: Float32, data: _Data, settings: TrainSettings) -> Threshold:
    # The policy skips readings without a score, so they are left out here, too.
    scored = np.flatnonzero(np.isfinite(scores))
    segment, time_ms = data.readings.segment[scored], data.readings.time_ms[scored]
    statistic = policy_statistic(scores[scored], segment, k=settings.policy_k, n=settings.policy_n)
    maxima = block_maxima(statistic, segment, time_ms)
    hours = driven_hours(segment, time_ms)
    if not len(maxima) or not hours > 0:
        raise SettingsError(
            "the validation vehicles drove too little to take a threshold from: no "
            f"{settings.policy_k} scores in a row; train on a longer stretch"
        )
    return choose_threshold(
        maxima,
        hours,
        budget_per_hour=settings.false_alerts_per_hour,
        margin=settings.threshold_margin,
    )


def _decided(bundle: Bundle, data: _Data, scores: Float32, threshold: Threshold) -> Bundle:
    """With the threshold, and the reference that later data is compared with."""
    value = max(threshold.value, 1e-6)
    reference = reference_of(
        data.features, scores, threshold=value, vehicles=data.readings.vehicles
    )
    return replace(bundle, manifest=replace(bundle.manifest, threshold=value, reference=reference))


def _finished(
    bundle: Bundle, data: _Data, fitted: Fitted, threshold: Threshold, difference: float
) -> Bundle:
    rows = data.fold >= 0
    figures = {
        "split": data.folds.method,
        "folds": str(data.folds.count),
        "validation_readings": str(int(rows.sum())),
        "validation_vehicles": str(len(np.unique(data.readings.vehicle[rows]))),
        "validation_hours": f"{threshold.hours:.4g}",
        "validation_blocks": str(threshold.blocks),
        "validation_loss": f"{fitted.losses.mean():.6g}",
        "validation_exceeding_per_hour": f"{threshold.expected_per_hour:.4g}",
        "threshold_method": threshold.method,
        "epochs": str(fitted.epochs),
        "keras_tflite_difference": f"{difference:.3g}",
        **fitted.versions,
        "numpy": np.__version__,
    }
    manifest = bundle.manifest
    provenance = replace(manifest.provenance, notes={**manifest.provenance.notes, **figures})
    finished = Bundle(replace(manifest, provenance=provenance), bundle.model)
    finished.verify()
    return finished
