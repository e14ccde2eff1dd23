"""Who is told what the server scored: metrics, statistics of arms."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cloud.serving.repository import Served
from schemas.errors import MotorcadeError


class ServingObserver(Protocol):
    """Told of every batch that was scored and every request that was not.

    Called from the threads that score, several at once, between two batches: it must be quick,
    must not block, and must not keep `features` or `scores` without copying them.
    """

    def observed(
        self,
        served: Served,
        features: NDArray[np.float32],
        scores: NDArray[np.float32],
        *,
        queue_us: Sequence[int],
        compute_us: int,
        deployment: str,
    ) -> None:
        """Rows were scored together.

        Args:
            served: Model and arm (`served.arm`).
            features: Shape (R, F), NaN where absent.
            scores: Shape (R,).
            queue_us: Of each request in the batch, from receipt to the start of scoring.
            compute_us: Scoring of the whole batch.
            deployment: 'rpc' or 'kafka'.
        """
        ...

    def failed(self, model: str, error: MotorcadeError, *, deployment: str) -> None:
        """A request was refused: bad input, an unknown model, no room, a deadline."""
        ...


class NoObserver:
    """Looks away."""

    def observed(
        self,
        served: Served,
        features: NDArray[np.float32],
        scores: NDArray[np.float32],
        *,
        queue_us: Sequence[int],
        compute_us: int,
        deployment: str,
    ) -> None:
        """Nothing."""

    def failed(self, model: str, error: MotorcadeError, *, deployment: str) -> None:
        """Nothing."""
