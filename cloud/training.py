"""The training process, seen from its parent: start it early, give it arrays, take the model."""

import importlib.util
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cloud.autoencoder import EXIT_WITHOUT_TENSORFLOW, quiet_environment
from cloud.network import NetworkSettings
from schemas.errors import MotorcadeError, SettingsError

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

STDERR_LINES_SHOWN = 8
WITHOUT_TENSORFLOW = "training needs TensorFlow: install the extra motorcade[cloud]"


@dataclass(frozen=True, slots=True)
class Fitted:
    """What comes out of training.

    Attributes:
        model: TFLite flatbuffer, the final one.
        fold_models: Of each fold the one that was trained without it.
        reconstruction: What Keras's final network makes of the rows, or windows, that
            `NetworkSettings.compared` names.
        losses: Best validation loss (mean squared error of normalised features) of each fold.
        epochs: Passes over the rows that the final network was trained for.
        versions: Library versions that made it.
    """

    model: bytes
    fold_models: tuple[bytes, ...]
    reconstruction: Float32
    losses: NDArray[np.float64]
    epochs: int
    versions: dict[str, str]


class TrainingProcess:
    """A child process in which TensorFlow lives.

    `start()` (or `with`) begins its import; `fit` may be called once. Leaving the `with` ends it,
    whatever happened.
    """

    def __init__(self, *, timeout_s: float = 600.0) -> None:
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the child.

        Raises:
            SettingsError: TensorFlow is not installed.
        """
        if importlib.util.find_spec("tensorflow") is None:
            raise SettingsError(WITHOUT_TENSORFLOW)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cloud.autoencoder"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | quiet_environment(),
        )

    def stop(self) -> None:
        """End the child and reap it; does nothing if it is gone."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.communicate()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def fit(self, rows: Float32, fold: Int64, settings: NetworkSettings) -> Fitted:
        """Train as `cloud.autoencoder.fit` says.

        Args:
            rows: Normalised features, shape (N, F); NaN where absent.
            fold: Fold that a row, or the window that ends with it, validates, 0..K-1; -1 trains
                only; `NOT_SHOWN`: no window ends there. Shape (N,).
            settings: Of network and training.

        Raises:
            SettingsError: TensorFlow cannot be imported.
            MotorcadeError: The child failed or took longer than `timeout_s`; the message ends
                with the last lines that it printed.
        """
        if self._process is None:
            raise MotorcadeError("the training process is not running")
        request = _pack(rows=rows, fold=fold, settings=_text(settings.to_json()))
        try:
            answer, printed = self._process.communicate(request, timeout=self._timeout_s)
        except subprocess.TimeoutExpired as error:
            raise MotorcadeError(f"training took longer than {self._timeout_s:g} s") from error
        _check_exit(self._process.returncode, printed)
        return _unpack(answer)


def _check_exit(code: int, printed: bytes) -> None:
    if code == 0:
        return
    tail = "\n".join(printed.decode(errors="replace").splitlines()[-STDERR_LINES_SHOWN:])
    if code == EXIT_WITHOUT_TENSORFLOW:
        raise SettingsError(f"{WITHOUT_TENSORFLOW} ({tail})")
    raise MotorcadeError(f"the training process ended with status {code}:\n{tail}")


def _text(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode(), np.uint8)


def _pack(**arrays: NDArray[Any]) -> bytes:
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    return packed.getvalue()


def _unpack(answer: bytes) -> Fitted:
    with np.load(io.BytesIO(answer), allow_pickle=False) as arrays:
        return Fitted(
            model=arrays["model"].tobytes(),
            fold_models=tuple(
                arrays[f"fold_model_{number}"].tobytes() for number in range(len(arrays["losses"]))
            ),
            reconstruction=arrays["reconstruction"],
            losses=arrays["losses"],
            epochs=int(arrays["epochs"]),
            versions=json.loads(bytes(arrays["versions"])),
        )
