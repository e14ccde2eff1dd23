"""What the trainer asks of the network, without TensorFlow."""

import json
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.errors import SettingsError

NOT_SHOWN = -2
"""Fold of a reading at which no window ends."""

COMPARED_WINDOWS = 2_000
"""Windows, about, at which Keras and TFLite are compared."""


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """The autoencoder and how it is trained.

    Attributes:
        window: Readings that it is shown at once; 1: the point autoencoder, else the LSTM.
        units: Of each of the LSTM's two layers.
        hidden: Units of the layers on both sides of the bottleneck.
        bottleneck: Units in the middle; fewer where there are few features.
        corruption: Share of the inputs hidden at each training step, 0..1.
        epochs: Most passes over the training rows.
        patience: Passes without a better validation loss before it stops.
        batch: Rows a step.
        epoch_rows: Most rows, or windows, a pass shows; of more, each pass draws others.
        learning_rate: Of Adam.
        seed: Of weights, order and hiding.
        threads: Cores that TensorFlow may use.
    """

    window: int = 1
    units: int = 16
    hidden: int = 32
    bottleneck: int = 7
    corruption: float = 0.25
    epochs: int = 120
    patience: int = 12
    batch: int = 128
    epoch_rows: int = 40_000
    learning_rate: float = 4e-3
    seed: int = 1
    threads: int = 2

    def __post_init__(self) -> None:
        counts = (
            "window",
            "units",
            "hidden",
            "bottleneck",
            "epochs",
            "patience",
            "batch",
            "epoch_rows",
            "threads",
        )
        for name in counts:
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be 1 or more, not {getattr(self, name)}")
        if not 0 <= self.corruption < 1:
            raise SettingsError(f"corruption must be in [0, 1), not {self.corruption}")
        if not self.learning_rate > 0:
            raise SettingsError(f"learning_rate must be above 0, not {self.learning_rate}")

    def bottleneck_of(self, features: int) -> int:
        """Units in the middle for so many features: always fewer than features, at least 1."""
        return max(1, min(self.bottleneck, features // 3))

    def compared(self, fold: NDArray[np.int64]) -> NDArray[np.int64]:
        """Readings at which Keras and TFLite are compared: all, of windows a sample of them."""
        shown = np.flatnonzero(fold != NOT_SHOWN)
        step = 1 if self.window == 1 else -(-len(shown) // COMPARED_WINDOWS)
        return shown[:: max(step, 1)]

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "NetworkSettings":
        """The inverse of `to_json`."""
        return cls(**json.loads(text))
