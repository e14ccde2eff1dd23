"""TFLite behind one class; the only module that imports a TFLite runtime.

`tflite_runtime` serves Python 3.11, `ai_edge_litert`, its successor with the same Interpreter,
3.12 and newer. An interpreter has a fixed batch size, and resizing is dear, so three stand ready
(1, 64 and 512 rows) and a short rest is padded. Measured on a 18-14-7-14-18
autoencoder: 2.3 us a call at 1 row, 4.3 us at 64, 20 us at 512 (38 ns a row); larger sizes only
leave the cache. A row gives the same bits in every size and place (a test holds this).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ContractError, Reason, SettingsError
from scoring.flatbuffer import check_tflite

LARGE, MEDIUM, SMALL = 512, 64, 1
"""Rows per call."""

_LARGE_FROM = 4 * MEDIUM + 1
"""From here one padded large call costs less than several medium ones."""


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


class TfliteModel:
    """A model from `n_inputs` numbers to `n_outputs` numbers, row by row.

    Not for use by two threads at once; make one per thread (the constructor takes about 1 ms).

    Args:
        model: TFLite flatbuffer with one float32 input (B, n_inputs) and one float32 output
            (B, n_outputs).
        n_inputs: Columns that the model must take.
        n_outputs: Columns that it must give.
        num_threads: Threads of the runtime; one is best for small models.

    Raises:
        ContractError: MODEL_INVALID: no loadable model, or it fails or gives NaN on zeros;
            MODEL_FEATURES: its shapes or types are others.
        SettingsError: No TFLite runtime is installed.
    """

    def __init__(
        self, model: bytes, *, n_inputs: int, n_outputs: int, num_threads: int = 1
    ) -> None:
        check_tflite(model)
        self._n_outputs = n_outputs
        self._large, self._medium, self._small = (
            _Sized(model, size, n_inputs, n_outputs, num_threads) for size in (LARGE, MEDIUM, SMALL)
        )
        self._self_test(n_inputs)

    def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the model on any number of rows.

        Args:
            inputs: Shape (N, n_inputs), finite. N >= 0.

        Returns:
            Shape (N, n_outputs); row i depends on row i alone, bit for bit.

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
        if rows >= _LARGE_FROM:
            return self._large
        return self._medium if rows > 1 else self._small

    def _self_test(self, n_inputs: int) -> None:
        if not np.isfinite(self.run(np.zeros((1, n_inputs), np.float32))).all():
            raise ContractError(Reason.MODEL_INVALID, "the model gives NaN on zeros")


class _Sized:
    """An interpreter of one batch size."""

    def __init__(
        self, model: bytes, rows: int, n_inputs: int, n_outputs: int, num_threads: int
    ) -> None:
        self.rows = rows
        try:
            self._interpreter = _interpreter_class()(model_content=model, num_threads=num_threads)
            self._input = _only(self._interpreter.get_input_details(), "input", n_inputs)
            self._interpreter.resize_tensor_input(self._input, (rows, n_inputs))
            self._interpreter.allocate_tensors()
            self._output = _only(self._interpreter.get_output_details(), "output", n_outputs)
            self._padded = np.zeros((rows, n_inputs), np.float32)
            self.run(self._padded, np.empty((rows, n_outputs), np.float32))
        except (ValueError, RuntimeError, TypeError, MemoryError) as error:
            raise ContractError(
                Reason.MODEL_INVALID, f"the TFLite runtime refuses the model: {error}"
            ) from error

    def run(self, inputs: NDArray[np.float32], outputs: NDArray[np.float32]) -> None:
        """Fill `outputs` (n <= rows) from `inputs`, padding where n < rows."""
        n = len(inputs)
        if n < self.rows:
            self._padded[:n] = inputs
            inputs = self._padded
        try:
            self._interpreter.set_tensor(self._input, inputs)
            self._interpreter.invoke()
            outputs[:] = self._interpreter.get_tensor(self._output)[:n]
        except (ValueError, RuntimeError) as error:
            raise ContractError(Reason.MODEL_INVALID, f"the model failed: {error}") from error


def _only(details: list[dict[str, Any]], what: str, columns: int) -> int:
    """Index of the single float32 tensor (B, columns).

    Raises:
        ContractError: MODEL_FEATURES: it is another.
    """
    if len(details) != 1:
        raise ContractError(Reason.MODEL_FEATURES, f"the model has {len(details)} {what}s, not 1")
    shape = [int(size) for size in details[0]["shape"]]
    if len(shape) != 2 or shape[1] != columns:
        raise ContractError(
            Reason.MODEL_FEATURES,
            f"the model's {what} has shape {shape}, the manifest has {columns} features",
        )
    if details[0]["dtype"] is not np.float32:
        raise ContractError(Reason.MODEL_FEATURES, f"the model's {what} is not float32")
    return int(details[0]["index"])
