"""What the trainer asks of the network, without TensorFlow."""

import json
from dataclasses import asdict, dataclass

from schemas.errors import SettingsError


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """The autoencoder and how it is trained.

    Attributes:
        hidden: Units of the layers on both sides of the bottleneck.
        bottleneck: Units in the middle; fewer where there are few features.
        corruption: Share of the inputs hidden at each training step, 0..1.
        epochs: Most passes over the training rows.
        patience: Passes without a better validation loss before it stops.
        batch: Rows a step.
        epoch_rows: Most rows a pass shows; of more, each pass draws others.
        learning_rate: Of Adam.
        seed: Of weights, order and hiding.
        threads: Cores that TensorFlow may use.
    """

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
        counts = ("hidden", "bottleneck", "epochs", "patience", "batch", "epoch_rows", "threads")
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

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "NetworkSettings":
        """The inverse of `to_json`."""
        return cls(**json.loads(text))
