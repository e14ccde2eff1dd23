"""The LSTM autoencoder: as Keras trains it, and as TFLite runs it. TensorFlow is handed over.

What Keras makes of an LSTM converts badly: a loop over subgraphs that the fast kernels do not take
(twelve times slower), first states whose shape ties the model to one batch size, variables that
are gone at run time. So the trained weights are laid out again as plain operators, one reading
after the other: 47 us for one window of 32 x 17, 6 us each in batches of 64, any batch size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cloud.network import NetworkSettings


def build_lstm(tf: Any, features: int, settings: NetworkSettings) -> Any:
    """Windows of T readings of F features, through a bottleneck, to the same again.

    An LSTM reads the window, its last state becomes a code, and a second one unrolls the code into
    readings. Beside each goes a straight way, of the window's mean and of the code: an LSTM
    saturates, and would take a vehicle at full throttle for a broken one.
    """
    layers = tf.keras.layers
    width = settings.bottleneck_of(features)
    inputs = tf.keras.Input((settings.window, features))
    read = layers.LSTM(settings.units, unroll=True, name="reader")(inputs)
    mean = layers.GlobalAveragePooling1D()(inputs)
    code = layers.Add()(
        [
            layers.Dense(width, name="code")(read),
            layers.Dense(width, use_bias=False, name="code_straight")(mean),
        ]
    )
    repeated = layers.RepeatVector(settings.window)(code)
    told = layers.LSTM(settings.units, return_sequences=True, unroll=True, name="teller")(repeated)
    outputs = layers.Add()(
        [
            layers.Dense(features, name="output")(told),
            layers.Dense(features, use_bias=False, name="output_straight")(repeated),
        ]
    )
    return tf.keras.Model(inputs, outputs)


def unrolled(tf: Any, network: Any, settings: NetworkSettings) -> Callable[[Any], Any]:
    """The network of `build_lstm` with its present weights, as a function of windows (B, T, F)."""

    def weights(name: str) -> Sequence[Any]:
        return [tf.constant(each) for each in network.get_layer(name).get_weights()]

    reader, teller = _Cell.of(tf, weights("reader")), _Cell.of(tf, weights("teller"))
    (code, code_bias), (code_straight,) = weights("code"), weights("code_straight")
    (output, output_bias), (output_straight,) = weights("output"), weights("output_straight")

    def run(windows: Any) -> Any:
        readings = [windows[:, at, :] for at in range(settings.window)]
        read = reader.states(readings)[-1]
        mean = tf.reduce_mean(windows, axis=1)
        coded = tf.matmul(read, code) + code_bias + tf.matmul(mean, code_straight)
        level = tf.matmul(coded, output_straight) + output_bias
        told = teller.states([coded] * settings.window)
        return tf.stack([tf.matmul(state, output) + level for state in told], axis=1)

    return run


@dataclass(frozen=True, slots=True)
class _Cell:
    """An LSTM with `units` units, over inputs of `width` numbers.

    Attributes:
        tf: TensorFlow.
        kernel: Of the input. Shape (width, 4 * units), gates as Keras orders them: in, forget,
            candidate, out.
        joined: The same above that of the state. Shape (width + units, 4 * units).
        bias: Shape (4 * units,).
    """

    tf: Any
    kernel: Any
    joined: Any
    bias: Any

    @staticmethod
    def of(tf: Any, weights: Sequence[Any]) -> "_Cell":
        """From a Keras layer's weights."""
        kernel, recurrent, bias = weights
        return _Cell(tf, kernel, tf.concat([kernel, recurrent], axis=0), bias)

    def states(self, inputs: Sequence[Any]) -> list[Any]:
        """The state after each input. It begins as zeros: the first step knows no other."""
        tf = self.tf
        enter, _, candidate, leave = self._gates(tf.matmul(inputs[0], self.kernel))
        memory = enter * candidate
        states = [leave * tf.tanh(memory)]
        for each in inputs[1:]:
            joined = tf.concat([each, states[-1]], axis=1)
            enter, keep, candidate, leave = self._gates(tf.matmul(joined, self.joined))
            memory = keep * memory + enter * candidate
            states.append(leave * tf.tanh(memory))
        return states

    def _gates(self, product: Any) -> tuple[Any, Any, Any, Any]:
        tf = self.tf
        enter, keep, candidate, leave = tf.split(product + self.bias, 4, axis=1)
        return tf.sigmoid(enter), tf.sigmoid(keep), tf.tanh(candidate), tf.sigmoid(leave)
