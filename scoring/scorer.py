"""From a matrix of features to a score per reading: the model as a pure function of arrays.

The features are normalised by the training mean and standard deviation, absent ones (NaN) are
set to 0, the training mean; the model reproduces the row; the score is the mean over the present
features of the squared error, each in units of its `error_scale`. One mad sensor shall raise the
score without hiding the others, so errors are clipped at 10 such units, and inputs at 50 standard
deviations.

A windowed model is one as well: its row is the vehicle's last `window` readings, one behind the
other, the oldest first (`scoring.windows` makes it), and the mean is over all of them. A window
that is not full is all NaN, and so is its score.

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

WINDOW_BLOCK_ROWS = 64
"""The same of windows."""


class RowScorer(Protocol):
    """Scores rows with one bundle, wherever its network runs.

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

    C is the number of columns: one a feature, of a windowed model for each of its readings. Not
    for use by two threads at once.

    Args:
        manifest: Of the model.

    Attributes:
        columns: C.
        block_rows: Rows that are best scored together.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.columns = manifest.columns
        self.block_rows = BLOCK_ROWS if manifest.window == 1 else WINDOW_BLOCK_ROWS
        self._mean = _repeated(np.array(manifest.mean), manifest.window)
        self._inverse_scale = _repeated(1.0 / np.array(manifest.scale), manifest.window)
        self._inverse_error = _repeated(1.0 / np.array(manifest.error_scale), manifest.window)
        self._plain_error = bool((self._inverse_error == 1.0).all())
        # Repeated to a whole block: NumPy runs over two equal contiguous arrays several times
        # faster than over a matrix and a row.
        self._mean_block = np.tile(self._mean, (self.block_rows, 1))
        self._inverse_scale_block = np.tile(self._inverse_scale, (self.block_rows, 1))
        self._inverse_error_block = np.tile(self._inverse_error, (self.block_rows, 1))

    def check(self, features: NDArray[np.float32]) -> None:
        """Raises ContractError (MODEL_FEATURES) unless there are C columns."""
        if features.ndim != 2 or features.shape[1] != self.columns:
            raise ContractError(
                Reason.MODEL_FEATURES,
                f"features of shape {features.shape} for a model of {self.columns}",
            )

    def normalised(
        self, features: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
        """The network's inputs, and where features are present (None: everywhere).

        Args:
            features: Shape (R, C), units of the manifest; NaN where absent.
        """
        n = len(features)
        if n <= self.block_rows:
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
            scores /= np.float32(self.columns)
            return scores
        errors *= present
        count = np.count_nonzero(present, axis=1)
        scores = errors.sum(axis=1, dtype=np.float32)
        scores /= np.maximum(count, 1).astype(np.float32)
        scores[2 * count < self.columns] = np.nan
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
            features: Shape (R, C), units of the manifest; NaN where absent.
            outputs: Of the network for them, normalised. Shape (R, C).
            top: At most so many a row.
        """
        readings = (len(features), self.manifest.window, len(self.manifest.features))
        with np.errstate(over="ignore", invalid="ignore"):
            inputs, present = self.normalised(features)
            errors = self._errors(inputs, outputs)
            if present is not None:
                errors *= present
            errors = errors.reshape(readings).sum(axis=1)
            total = errors.sum(axis=1, keepdims=True)
            shares = np.where(total > 0, errors / total, 0.0)
        newest = _newest(np.isnan(features).reshape(readings))
        values, made_of, made = (
            np.take_along_axis(each.reshape(readings), newest, axis=1)[:, 0]
            for each in (features, inputs, outputs)
        )
        return [
            self._leading(values[row], made_of[row], made[row], shares[row], top)
            for row in range(len(features))
        ]

    def _errors(
        self, inputs: NDArray[np.float32], outputs: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Squared, clipped error of each feature, in `error_scale` units."""
        errors = inputs - outputs
        if not self._plain_error:
            n = len(errors)
            whole = n <= self.block_rows
            errors *= self._inverse_error_block[:n] if whole else self._inverse_error
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


def _repeated(of_features: NDArray[np.float64], window: int) -> NDArray[np.float32]:
    """Numbers of the features, for each reading of a window. Shape (C,)."""
    return np.tile(of_features.astype(np.float32), window)


def _newest(absent: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The newest reading that has each feature; the newest of all where none has. (R, 1, F)."""
    newest: NDArray[np.intp] = absent.shape[1] - 1 - np.argmin(absent[:, ::-1], axis=1)
    return newest[:, None]


class BatchScorer:
    """Scores feature rows with one bundle in this process.

    C is the number of columns (`Manifest.columns`). Not for use by two threads at once.

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
        self.columns = self._math.columns
        n_features = len(bundle.manifest.features)
        self._model = TfliteModel(
            bundle.model,
            n_inputs=n_features,
            n_outputs=n_features,
            window=bundle.manifest.window,
            num_threads=num_threads,
        )

    @property
    def bundle(self) -> Bundle:
        """The model in use."""
        return self._bundle

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score rows.

        Args:
            features: Shape (R, C), units of the manifest; NaN where absent.

        Returns:
            Shape (R,), 0 .. `ERROR_CLIP`²; NaN where fewer than half of the columns are
            present, or where the model itself gave NaN.

        Raises:
            ContractError: MODEL_FEATURES: not C columns. MODEL_INVALID: the model failed.
        """
        self._math.check(features)
        scores = np.empty(len(features), np.float32)
        rows = self._math.block_rows
        with np.errstate(over="ignore", invalid="ignore"):
            for start in range(0, len(features), rows):
                block = features[start : start + rows]
                scores[start : start + len(block)] = self._score_block(block)
        return scores

    def score_and_reconstruct(
        self, features: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Scores as of `score`, and what the network made of the rows, normalised. Shape (R, C).

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

        Of a windowed model that is over the whole window; value and deviation are those of the
        newest reading that has the feature.

        Args:
            features: Shape (R, C), as for `score`. Meant for the few rows that matter.
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
