"""TFLite behind one class; the only module that imports a TFLite runtime.

`tflite_runtime` serves Python 3.11, `ai_edge_litert`, its successor with the same Interpreter,
3.12 and newer. An interpreter has a fixed batch size, and resizing is dear, so three stand ready
(1, 64 and 512 rows) and a short rest is padded. Measured on a 18-14-7-14-18
autoencoder: 2.3 us a call at 1 row, 4.3 us at 64, 20 us at 512 (38 ns a row); larger sizes only
leave the cache. A windowed model does a thousand times the work, so its sizes are smaller (1, 16
and 64 windows): an LSTM on 32 x 17 takes 47 us at 1, 140 us at 16, 390 us at 64. One that was
converted with a fixed batch is run at that. A row gives the same bits in every size and place (a
test holds this).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ContractError, Reason, SettingsError
from scoring.flatbuffer import check_tflite

LARGE, MEDIUM, SMALL = 512, 64, 1
"""Rows per call."""


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Rows per call, and from how many on a padded large call costs less than medium ones."""

    large: int
    medium: int
    small: int
    large_from: int

    @staticmethod
    def fixed(rows: int) -> "_Sizes":
        """Of a model that takes nothing else."""
        return _Sizes(rows, rows, rows, rows)


_POINT = _Sizes(LARGE, MEDIUM, SMALL, 4 * MEDIUM + 1)
_WINDOWED = _Sizes(64, 16, 1, 33)


def _interpreter_class() -> Any:
    """The runtime's class, whichever is installed."""
    try:
        from tflite_runtime.interpreter import Interpreter
    except ImportError:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise SettingsError(
                "scoring needs a TFLite runtime: install the extra 'edge' or 'cloud'"
            ) from error
    return Interpreter


def runtime_loads(model: bytes) -> bool:
    """Whether the runtime has all operators that a model names. For bytes of one's own making.

    Raises:
        SettingsError: No TFLite runtime is installed.
    """
    try:
        _interpreter_class()(model_content=model)
    except (ValueError, RuntimeError):
        return False
    return True


class TfliteModel:
    """A model from `n_inputs` numbers to `n_outputs` numbers, row by row.

    A windowed model does so for each of the `window` readings in a row.

    Not for use by two threads at once; make one per thread (the constructor takes about 1 ms, of
    an unrolled LSTM 100 ms).

    Args:
        model: TFLite flatbuffer with one float32 input (B, n_inputs) and one float32 output
            (B, n_outputs); of a windowed model (B, window, n_inputs) and (B, window, n_outputs),
            where B may be a fixed number up to `LARGE`.
        n_inputs: Columns that the model must take.
        n_outputs: Columns that it must give.
        window: Readings in a row.
        num_threads: Threads of the runtime; one is best for small models.

    Raises:
        ContractError: MODEL_INVALID: no loadable model, or it fails or gives NaN on zeros;
            MODEL_FEATURES: its shapes or types are others.
        SettingsError: No TFLite runtime is installed.
    """

    def __init__(
        self, model: bytes, *, n_inputs: int, n_outputs: int, window: int = 1, num_threads: int = 1
    ) -> None:
        check_tflite(model)
        taken, given = _shape(window, n_inputs), _shape(window, n_outputs)
        self._n_inputs, self._n_outputs = window * n_inputs, window * n_outputs
        sizes = _POINT if window == 1 else _sizes_of(model, num_threads)
        # Of a fixed batch they are one and the same.
        made = {
            rows: _Sized(model, rows, taken, given, num_threads)
            for rows in (sizes.large, sizes.medium, sizes.small)
        }
        self._large, self._medium, self._small = (
            made[rows] for rows in (sizes.large, sizes.medium, sizes.small)
        )
        self._large_from = sizes.large_from
        self._self_test()

    def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the model on any number of rows.

        Args:
            inputs: Shape (N, window * n_inputs), finite, of a window the oldest reading first.
                N >= 0.

        Returns:
            Shape (N, window * n_outputs); row i depends on row i alone, bit for bit.

        Raises:
            ContractError: MODEL_INVALID: the model failed at run time.
        """
        outputs = np.empty((len(inputs), self._n_outputs), np.float32)
        start = 0
        while start < len(inputs):
            sized = self._for_rows(len(inputs) - start)
            stop = min(start + sized.rows, len(inputs))
            sized.run(inputs[start:stop], outputs[start:stop])
            start = stop
        return outputs

    def _for_rows(self, rows: int) -> "_Sized":
        if rows >= self._large_from:
            return self._large
        return self._medium if rows > 1 else self._small

    def _self_test(self) -> None:
        if not np.isfinite(self.run(np.zeros((1, self._n_inputs), np.float32))).all():
            raise ContractError(Reason.MODEL_INVALID, "the model gives NaN on zeros")


class _Sized:
    """An interpreter of one batch size."""

    def __init__(
        self,
        model: bytes,
        rows: int,
        taken: tuple[int, ...],
        given: tuple[int, ...],
        num_threads: int,
    ) -> None:
        self.rows = rows
        self._taken, self._given = (rows, *taken), given
        self._is_windowed = len(taken) > 1
        try:
            self._interpreter = _interpreter_class()(model_content=model, num_threads=num_threads)
            self._input = _only(self._interpreter.get_input_details(), "input", taken)
            self._interpreter.resize_tensor_input(self._input, self._taken)
            self._interpreter.allocate_tensors()
            self._output = _only(self._interpreter.get_output_details(), "output", given)
            self._padded = np.zeros((rows, math.prod(taken)), np.float32)
            self.run(self._padded, np.empty((rows, math.prod(given)), np.float32))
        except (ValueError, RuntimeError, TypeError, MemoryError) as error:
            raise _refused(error) from error

    def run(self, inputs: NDArray[np.float32], outputs: NDArray[np.float32]) -> None:
        """Fill `outputs` (n <= rows) from `inputs`, padding where n < rows."""
        n = len(inputs)
        if n < self.rows:
            self._padded[:n] = inputs
            inputs = self._padded
        if self._is_windowed:  # Outside a window is one row; both are contiguous, so views.
            inputs, outputs = inputs.reshape(self._taken), outputs.reshape(n, *self._given)
        try:
            self._interpreter.set_tensor(self._input, inputs)
            self._interpreter.invoke()
            outputs[:] = self._interpreter.get_tensor(self._output)[:n]
        except (ValueError, RuntimeError) as error:
            raise ContractError(Reason.MODEL_INVALID, f"the model failed: {error}") from error


def _refused(error: Exception) -> ContractError:
    return ContractError(Reason.MODEL_INVALID, f"the TFLite runtime refuses the model: {error}")


def _shape(window: int, columns: int) -> tuple[int, ...]:
    """What a tensor has beside the batch."""
    return (columns,) if window == 1 else (window, columns)


def _sizes_of(model: bytes, num_threads: int) -> _Sizes:
    """The batch sizes of a windowed model: its own where it was converted with a fixed one.

    Raises:
        ContractError: MODEL_INVALID or MODEL_FEATURES: no model of one input and a sane batch.
    """
    try:
        details = _interpreter_class()(
            model_content=model, num_threads=num_threads
        ).get_input_details()
    except (ValueError, RuntimeError, TypeError, MemoryError) as error:
        raise _refused(error) from error
    signature = [int(size) for size in details[0]["shape_signature"]] if details else []
    if not signature or signature[0] == -1:
        return _WINDOWED
    if not 1 <= signature[0] <= LARGE:
        raise ContractError(
            Reason.MODEL_FEATURES, f"the model takes {signature[0]} rows at once, over {LARGE}"
        )
    return _Sizes.fixed(signature[0])


def _only(details: list[dict[str, Any]], what: str, wanted: tuple[int, ...]) -> int:
    """Index of the single float32 tensor (B, *wanted).

    Raises:
        ContractError: MODEL_FEATURES: it is another.
    """
    if len(details) != 1:
        raise ContractError(Reason.MODEL_FEATURES, f"the model has {len(details)} {what}s, not 1")
    shape = [int(size) for size in details[0]["shape"]]
    if len(shape) != 1 + len(wanted) or tuple(shape[1:]) != wanted:
        raise ContractError(
            Reason.MODEL_FEATURES,
            f"the model's {what} has shape {shape}, the manifest has {_described(wanted)}",
        )
    if details[0]["dtype"] is not np.float32:
        raise ContractError(Reason.MODEL_FEATURES, f"the model's {what} is not float32")
    return int(details[0]["index"])


def _described(wanted: tuple[int, ...]) -> str:
    if len(wanted) == 1:
        return f"{wanted[0]} features"
    return f"windows of {wanted[0]} readings of {wanted[1]} features"
