"""Trains the autoencoders: the only module that imports TensorFlow, and a process of its own.

`python -m cloud.autoencoder` reads one NumPy archive (.npz) from standard input and writes one to
standard output. It is a process because TensorFlow and the TFLite runtime that scores bring the
same native symbols and break each other inside one, because TensorFlow keeps about 500 MB, and
because its import (some seconds) can go on while the parent reads Kafka. `cloud.training` starts
it and talks to it.
"""

import io
import json
import os
import sys
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cloud.lstm import build_lstm, unrolled
from cloud.network import NOT_SHOWN, NetworkSettings

EXIT_WITHOUT_TENSORFLOW = 3

LEAST_GAIN = 0.01
"""A validation loss that is better by a smaller share is none."""

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]


def quiet_environment() -> dict[str, str]:
    """What silences TensorFlow's native log and keeps it off graphics cards and odd kernels."""
    return {
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
        # oneDNN sums in another order from run to run.
        "TF_ENABLE_ONEDNN_OPTS": "0",
    }


def _import_tensorflow(settings_threads: int | None = None) -> Any:
    os.environ.update(quiet_environment())
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    if settings_threads is not None:
        tf.config.threading.set_intra_op_parallelism_threads(settings_threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    return tf


def build_network(tf: Any, features: int, settings: NetworkSettings) -> Any:
    """F - hidden - bottleneck - hidden - F, with a straight way beside each hidden layer.

    Rectified and straight, so that it goes on linearly where training data ends: a saturating
    network takes a vehicle at full throttle for a broken one.
    """
    layers = tf.keras.layers
    width = settings.bottleneck_of(features)
    inputs = tf.keras.Input((features,))
    bent = layers.Dense(settings.hidden, activation="relu")(inputs)
    code = layers.Add()([layers.Dense(width)(bent), layers.Dense(width, use_bias=False)(inputs)])
    bent = layers.Dense(settings.hidden, activation="relu")(code)
    outputs = layers.Add()(
        [layers.Dense(features)(bent), layers.Dense(features, use_bias=False)(code)]
    )
    return tf.keras.Model(inputs, outputs)


def _masked_loss(tf: Any, output: Any, target: Any) -> Any:
    """Mean squared error over the features that are there; NaN in `target` counts nothing."""
    present = tf.math.is_finite(target)
    error = tf.where(present, output - tf.where(present, target, 0.0), 0.0)
    count = tf.maximum(tf.reduce_sum(tf.cast(present, tf.float32)), 1.0)
    return tf.reduce_sum(tf.square(error)) / count


class _Trainer:
    """One network that is trained again and again from the same first weights.

    Building it and tracing its graph takes longer than training it on a few thousand rows.
    """

    def __init__(self, tf: Any, rows: Float32, settings: NetworkSettings) -> None:
        self._tf = tf
        self._settings = settings
        self._rows = tf.constant(rows)
        build = build_network if settings.window == 1 else build_lstm
        self.network = build(tf, rows.shape[1], settings)
        self._first_weights = self.network.get_weights()
        self._optimizer = tf.keras.optimizers.Adam(settings.learning_rate)
        self._optimizer.build(self.network.trainable_variables)
        # One epoch as one graph: a step at a time from Python costs ten times as much.
        # Shapes are left open, or every fold would be traced anew.
        numbers = tf.TensorSpec((None, None), tf.int32)
        keep = tf.TensorSpec((None, None, *_keep_shape(rows.shape[1], settings)), tf.float32)
        self._epoch = tf.function(self._run_epoch, [numbers, keep])
        self._loss = tf.function(self._run_loss, [tf.TensorSpec((None,), tf.int32)])

    def begin(self) -> np.random.Generator:
        """Back to the start; gives the generator of order and hiding."""
        self.network.set_weights(self._first_weights)
        for variable in self._optimizer.variables:
            if "learning_rate" not in variable.name:
                variable.assign(self._tf.zeros_like(variable))
        return np.random.default_rng(self._settings.seed)

    def epoch(self, train: Int64, rng: np.random.Generator) -> None:
        """One pass over these rows."""
        order, keep = _batches(len(train), self._rows.shape[1], self._settings, rng)
        tf = self._tf
        self._epoch(tf.constant(train[order].astype(np.int32)), tf.constant(keep))

    def loss(self, valid: Int64) -> float:
        """Masked mean squared error of some rows, nothing hidden."""
        step = max(len(valid) // self._settings.epoch_rows, 1)
        return float(self._loss(self._tf.constant(valid[::step].astype(np.int32))))

    def model(self) -> bytes:
        """Float TFLite with a free batch size.

        Weights are frozen into constants first: what `from_keras_model` does takes four times as
        long, and a function that still holds variables converts but does not run.
        """
        # Not in TensorFlow's public namespace, but the one way to freeze that it has.
        from tensorflow.python.framework import convert_to_constants

        tf, settings = self._tf, self._settings
        shown: tuple[int, ...] = (self._rows.shape[1],)
        if settings.window == 1:
            function = tf.function(lambda rows: self.network(rows, training=False))
        else:
            shown = (settings.window, *shown)
            function = tf.function(unrolled(tf, self.network, settings))
        concrete = function.get_concrete_function(tf.TensorSpec((None, *shown), tf.float32))
        frozen = convert_to_constants.convert_variables_to_constants_v2(concrete)
        return bytes(tf.lite.TFLiteConverter.from_concrete_functions([frozen]).convert())

    def reconstruction(self, readings: Int64) -> Float32:
        """What the network makes of some rows, or of the windows that end with them."""
        target = self._target(self._tf.constant(readings.astype(np.int32)))
        made = np.asarray(self.network(self._shown(target), training=False), np.float32)
        return made.reshape(len(readings), -1)

    def _target(self, readings: Any) -> Any:
        """Rows (B, F), or the windows that end with them (B, T, F)."""
        if self._settings.window == 1:
            return self._tf.gather(self._rows, readings)
        back = self._tf.range(1 - self._settings.window, 1)
        return self._tf.gather(self._rows, readings[:, None] + back)

    def _shown(self, target: Any) -> Any:
        return self._tf.where(self._tf.math.is_finite(target), target, 0.0)

    def _run_loss(self, valid: Any) -> Any:
        target = self._target(valid)
        return _masked_loss(self._tf, self.network(self._shown(target)), target)

    def _run_epoch(self, batches: Any, keep: Any) -> None:
        tf, network = self._tf, self.network
        for step in tf.range(tf.shape(batches)[0]):
            target = self._target(batches[step])
            with tf.GradientTape() as tape:
                output = network(self._shown(target) * keep[step], training=True)
                loss = _masked_loss(tf, output, target)
            gradients = tape.gradient(loss, network.trainable_variables)
            self._optimizer.apply_gradients(
                zip(gradients, network.trainable_variables, strict=True)
            )


def _batches(
    rows: int, features: int, settings: NetworkSettings, rng: np.random.Generator
) -> tuple[Int64, Float32]:
    """Shuffled row numbers (steps, batch) and the mask of inputs left in (steps, batch, F).

    Hiding some inputs teaches the network to tell a signal from the others instead of copying
    it, and makes an absent feature (0 after normalisation) nothing new. In a window a feature is
    hidden from beginning to end, or its neighbours in time would tell it: (steps, batch, 1, F).
    """
    size = min(settings.batch, rows)
    steps = max(min(rows, settings.epoch_rows) // size, 1)
    order = rng.permutation(rows)[: steps * size].reshape(steps, size)
    shape = (steps, size, *_keep_shape(features, settings))
    keep = rng.random(shape, dtype=np.float32) >= settings.corruption
    return order, keep.astype(np.float32)


def _keep_shape(features: int, settings: NetworkSettings) -> tuple[int, ...]:
    return (features,) if settings.window == 1 else (1, features)


class _EarlyStopping:
    """Keeps the weights of the last clear gain in validation loss; says when to give up."""

    def __init__(self, network: Any, patience: int) -> None:
        self._network = network
        self._patience = patience
        self._weights: Any = None
        self.best_epoch = 0
        self.losses: list[float] = []

    def wants_more(self, loss: float) -> bool:
        if not self.losses or loss < self.losses[self.best_epoch] * (1 - LEAST_GAIN):
            self._weights = self._network.get_weights()
            self.best_epoch = len(self.losses)
        self.losses.append(loss)
        return len(self.losses) - 1 - self.best_epoch < self._patience

    def restore(self) -> None:
        if self._weights is not None:
            self._network.set_weights(self._weights)


def fit(rows: Float32, fold: Int64, settings: NetworkSettings) -> dict[str, NDArray[Any]]:
    """Train a network for each fold without that fold, then the final one.

    With one fold the final network is the one that was trained without it. With several it is
    trained on all rows, for as many passes as the others needed in the middle.

    Args:
        rows: Normalised features, shape (N, F); NaN where absent.
        fold: Fold that a row, or the window that ends with it, validates, 0..K-1; -1 trains
            only; `NOT_SHOWN`: no window ends there. Shape (N,).
        settings: Network and training settings; the same settings, data and library versions
            give the same bytes.

    Returns:
        `model` (uint8, the final flatbuffer), `fold_model_0` ... (those of the folds),
        `reconstruction` (what Keras's final network makes of the rows that
        `NetworkSettings.compared` names), `losses` (best validation loss of each fold), `epochs`
        (passes of the final network), `versions` (JSON as uint8).
    """
    tf = _import_tensorflow(settings.threads)
    tf.keras.utils.set_random_seed(settings.seed)
    tf.config.experimental.enable_op_determinism()
    trainer = _Trainer(tf, rows, settings)
    folds = int(fold.max()) + 1
    stopped = []
    models = []
    shown = np.flatnonzero(fold != NOT_SHOWN)
    for number in range(folds):
        held_out = fold[shown] == number
        stopped.append(_train(trainer, shown[~held_out], shown[held_out], settings))
        models.append(trainer.model())
    epochs = round(float(np.median([stopping.best_epoch for stopping in stopped]))) + 1
    if folds > 1:
        _train_for(trainer, shown, epochs)
        models.append(trainer.model())
    return {
        "model": np.frombuffer(models[-1], np.uint8),
        **{f"fold_model_{i}": np.frombuffer(models[i], np.uint8) for i in range(folds)},
        "reconstruction": trainer.reconstruction(settings.compared(fold)),
        "losses": np.array([min(stopping.losses) for stopping in stopped], np.float64),
        "epochs": np.array(epochs),
        "versions": _as_bytes({"tensorflow": tf.__version__, "keras": tf.keras.__version__}),
    }


def _train(
    trainer: _Trainer, train: Int64, valid: Int64, settings: NetworkSettings
) -> _EarlyStopping:
    rng = trainer.begin()
    stopping = _EarlyStopping(trainer.network, settings.patience)
    for _ in range(settings.epochs):
        trainer.epoch(train, rng)
        if not stopping.wants_more(trainer.loss(valid)):
            break
    stopping.restore()
    return stopping


def _train_for(trainer: _Trainer, train: Int64, epochs: int) -> None:
    rng = trainer.begin()
    for _ in range(epochs):
        trainer.epoch(train, rng)


def _as_bytes(facts: dict[str, str]) -> NDArray[np.uint8]:
    return np.frombuffer(json.dumps(facts).encode(), np.uint8)


def serve(stdin: BinaryIO, stdout: BinaryIO) -> None:
    """Answer the one request on `stdin`."""
    with np.load(io.BytesIO(stdin.read()), allow_pickle=False) as request:
        settings = NetworkSettings.from_json(bytes(request["settings"]).decode())
        answer = fit(request["rows"], request["fold"], settings)
    packed = io.BytesIO()
    np.savez(packed, **answer)
    stdout.write(packed.getvalue())
    stdout.flush()


def main() -> int:
    """Run as a child of `cloud.training`; what TensorFlow prints goes to standard error."""
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        _import_tensorflow()
    except ImportError as error:
        print(error, file=sys.stderr)
        return EXIT_WITHOUT_TENSORFLOW
    serve(sys.stdin.buffer, answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
