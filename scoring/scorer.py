"""From a matrix of features to a score per reading: the model as a pure function of arrays.

The features are normalised by the training mean and standard deviation, absent ones (NaN) are
set to 0, the training mean; the model reproduces the row; the score is the mean over the present
features of the squared error, each in units of its `error_scale`. One mad sensor shall raise the
score without hiding the others, so errors are clipped at 10 such units, and inputs at 50 standard
deviations.

Hot path: works in blocks that stay in the cache, on arrays only. A row's score has the same bits
in whatever batch it comes.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ContractError, Reason
from scoring.alerts import LeadingSignal
from scoring.bundle import Bundle
from scoring.interpreter import LARGE, TfliteModel
from scoring.manifest import Manifest

ERROR_CLIP = 10.0
"""Largest error of one feature that counts, in `error_scale` units."""

INPUT_CLIP = 50.0
"""Largest normalised input, in standard deviations of training."""

BLOCK_ROWS = 2 * LARGE
"""Rows that stay in the cache together."""


class RowScorer(Protocol):
    """Scores rows with one bundle, wherever its network runs. F is the number of its features.

    The three deployments differ behind this port alone: `BatchScorer` runs the network in this
    process; others ask a model server. For the same bundle they give the same bits.
    """

    @property
    def bundle(self) -> Bundle:
        """The model in use."""

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `BatchScorer.score`; may wait for a server for as long as it takes."""

    def explain(
        self, features: NDArray[np.float32], *, top: int = 3
    ) -> list[tuple[LeadingSignal, ...]]:
        """As `BatchScorer.explain`; may wait for a server for as long as it takes."""


MakeScorer = Callable[[Bundle], RowScorer]
"""Makes the scorer of a bundle ready for use, or raises ContractError if it cannot be used.

TransientError: a model server is not ready for it yet; the scorer in use goes on, and it is tried
again later.
"""


class ScoreMath:
    """All of a score but the network: what stands before it and behind it. Pure.

    F is the number of features. Not for use by two threads at once.

    Args:
        manifest: Of the model.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.n_features = len(manifest.features)
        self._mean = np.array(manifest.mean, np.float32)
        self._inverse_scale = (1.0 / np.array(manifest.scale)).astype(np.float32)
        self._inverse_error = (1.0 / np.array(manifest.error_scale)).astype(np.float32)
        self._plain_error = bool((self._inverse_error == 1.0).all())
        # Repeated to a whole block: NumPy runs over two equal contiguous arrays several times
        # faster than over a matrix and a row.
        self._mean_block = np.tile(self._mean, (BLOCK_ROWS, 1))
        self._inverse_scale_block = np.tile(self._inverse_scale, (BLOCK_ROWS, 1))
        self._inverse_error_block = np.tile(self._inverse_error, (BLOCK_ROWS, 1))

    def check(self, features: NDArray[np.float32]) -> None:
        """Raises ContractError (MODEL_FEATURES) unless there are F columns."""
        if features.ndim != 2 or features.shape[1] != self.n_features:
            raise ContractError(
                Reason.MODEL_FEATURES,
                f"features of shape {features.shape} for a model of {self.n_features}",
            )

    def normalised(
        self, features: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
        """The network's inputs, and where features are present (None: everywhere).

        Args:
            features: Shape (R, F), units of the manifest; NaN where absent.
        """
        n = len(features)
        if n <= BLOCK_ROWS:
            mean, inverse = self._mean_block[:n], self._inverse_scale_block[:n]
        else:
            mean, inverse = self._mean, self._inverse_scale
        inputs = np.subtract(features, mean, dtype=np.float32)
        inputs *= inverse
        absent = np.isnan(inputs)
        present = None
        if absent.any():
            present = ~absent
            inputs[absent] = 0.0
        np.maximum(inputs, -INPUT_CLIP, out=inputs)
        np.minimum(inputs, INPUT_CLIP, out=inputs)
        return inputs, present

    def scores(
        self,
        inputs: NDArray[np.float32],
        present: NDArray[np.bool_] | None,
        outputs: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Scores from what `normalised` gave and what the network made of it. Shape (R,)."""
        errors = self._errors(inputs, outputs)
        scores: NDArray[np.float32]
        if present is None:
            scores = errors.sum(axis=1, dtype=np.float32)
            scores /= np.float32(self.n_features)
            return scores
        errors *= present
        count = np.count_nonzero(present, axis=1)
        scores = errors.sum(axis=1, dtype=np.float32)
        scores /= np.maximum(count, 1).astype(np.float32)
        scores[2 * count < self.n_features] = np.nan
        return scores

    def leading(
        self,
        features: NDArray[np.float32],
        outputs: NDArray[np.float32],
        *,
        top: int = 3,
    ) -> list[tuple[LeadingSignal, ...]]:
        """As `BatchScorer.explain`, given what the network made of the rows.

        Args:
            features: Shape (R, F), units of the manifest; NaN where absent.
            outputs: Of the network for them, normalised. Shape (R, F).
            top: At most so many a row.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            inputs, present = self.normalised(features)
            errors = self._errors(inputs, outputs)
            if present is not None:
                errors *= present
            total = errors.sum(axis=1, keepdims=True)
            shares = np.where(total > 0, errors / total, 0.0)
        return [
            self._leading(features[row], inputs[row], outputs[row], shares[row], top)
            for row in range(len(features))
        ]

    def _errors(
        self, inputs: NDArray[np.float32], outputs: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Squared, clipped error of each feature, in `error_scale` units."""
        errors = inputs - outputs
        if not self._plain_error:
            n = len(errors)
            errors *= self._inverse_error_block[:n] if n <= BLOCK_ROWS else self._inverse_error
        errors *= errors
        np.minimum(errors, ERROR_CLIP * ERROR_CLIP, out=errors)
        return np.asarray(errors, np.float32)

    def _leading(
        self,
        features: NDArray[np.float32],
        inputs: NDArray[np.float32],
        outputs: NDArray[np.float32],
        shares: NDArray[np.float32],
        top: int,
    ) -> tuple[LeadingSignal, ...]:
        manifest = self.manifest
        order = [int(i) for i in np.argsort(-shares, kind="stable")[:top] if shares[i] > 0]
        return tuple(
            LeadingSignal(
                name=manifest.features[i].name,
                unit=manifest.units[i],
                value=float(features[i]),
                expected=float(outputs[i]) * manifest.scale[i] + manifest.mean[i],
                deviation=float(inputs[i] - outputs[i]),
                share=float(shares[i]),
            )
            for i in order
        )


class BatchScorer:
    """Scores feature rows with one bundle in this process. F is the number of its features.

    Not for use by two threads at once.

    Args:
        bundle: Verified here, and its model loaded and run once.
        num_threads: Threads of the TFLite runtime.

    Raises:
        ContractError: MODEL_HASH, MODEL_FEATURES or MODEL_INVALID.
    """

    def __init__(self, bundle: Bundle, *, num_threads: int = 1) -> None:
        bundle.verify()
        self._bundle = bundle
        self._math = ScoreMath(bundle.manifest)
        self.n_features = self._math.n_features
        self._model = TfliteModel(
            bundle.model,
            n_inputs=self.n_features,
            n_outputs=self.n_features,
            num_threads=num_threads,
        )

    @property
    def bundle(self) -> Bundle:
        """The model in use."""
        return self._bundle

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score rows.

        Args:
            features: Shape (R, F), units of the manifest; NaN where absent.

        Returns:
            Shape (R,), 0 .. `ERROR_CLIP`²; NaN where fewer than half of the features are
            present, or where the model itself gave NaN.

        Raises:
            ContractError: MODEL_FEATURES: not F columns. MODEL_INVALID: the model failed.
        """
        self._math.check(features)
        scores = np.empty(len(features), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            for start in range(0, len(features), BLOCK_ROWS):
                block = features[start : start + BLOCK_ROWS]
                scores[start : start + len(block)] = self._score_block(block)
        return scores

    def score_and_reconstruct(
        self, features: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Scores as of `score`, and what the network made of the rows, normalised. Shape (R, F).

        Raises:
            ContractError: As `score`.
        """
        self._math.check(features)
        with np.errstate(over="ignore", invalid="ignore"):
            inputs, present = self._math.normalised(features)
            outputs = self._model.run(inputs)
            return self._math.scores(inputs, present, outputs), outputs

    def explain(
        self, features: NDArray[np.float32], *, top: int = 3
    ) -> list[tuple[LeadingSignal, ...]]:
        """Say which features are most to blame.

        Args:
            features: Shape (R, F), as for `score`. Meant for the few rows that matter.
            top: At most so many a row.

        Returns:
            R tuples, most to blame first; only features with a share above 0.

        Raises:
            ContractError: As `score`.
        """
        return self._math.leading(features, self.score_and_reconstruct(features)[1], top=top)

    def _score_block(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        inputs, present = self._math.normalised(features)
        return self._math.scores(inputs, present, self._model.run(inputs))
