"""Metrics of the model server: once a batch that was scored, once a request that was answered."""

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cloud.serving.kafka_poll import Answers
from cloud.serving.observer import ServingObserver
from cloud.serving.refusals import OverloadError
from cloud.serving.repository import Served
from schemas.errors import ContractError, MotorcadeError, Reason
from transport import metrics
from transport.metric_kinds import is_recording

_US_A_S = 1e6
_NS_A_S = 1e9
KAFKA = "kafka"


class MeteredObserver:
    """Counts what it is told, and tells another.

    Args:
        inner: Told the same.
    """

    def __init__(self, inner: ServingObserver) -> None:
        self._inner = inner

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
        """As of `ServingObserver`."""
        self._inner.observed(
            served,
            features,
            scores,
            queue_us=queue_us,
            compute_us=compute_us,
            deployment=deployment,
        )
        if not is_recording():
            return
        manifest = served.bundle.manifest
        labels = {
            "model": manifest.name,
            "version": manifest.version,
            "arm": served.arm,
            "deployment": deployment,
        }
        rows = len(scores)
        metrics.SCORE_QUEUE.observe(np.asarray(queue_us) / _US_A_S, times=1, **labels)
        metrics.SCORE_COMPUTE.observe(compute_us / _US_A_S, times=1, **labels)
        metrics.SCORE_MESSAGES.add(len(queue_us), **labels)
        metrics.SCORE_READINGS.add(rows, **labels)
        metrics.SERVER_BATCH_ROWS.observe(float(rows), deployment=deployment)

    def failed(self, model: str, error: MotorcadeError, *, deployment: str) -> None:
        """As of `ServingObserver`."""
        self._inner.failed(model, error, deployment=deployment)
        reason = reason_of(error)
        metrics.SCORE_ERRORS.add(deployment=deployment, reason=reason)
        if reason in _TURNED_AWAY:
            metrics.SERVER_REJECTIONS.add(deployment=deployment, reason=reason)


OVERLOAD = "overload"
_TURNED_AWAY = frozenset({OVERLOAD, Reason.DEADLINE.value})


def reason_of(error: MotorcadeError) -> str:
    """A short name from a bounded set."""
    if isinstance(error, ContractError):
        return error.reason.value
    return OVERLOAD if isinstance(error, OverloadError) else type(error).__name__


class DoorMeter:
    """Counts the answers of one door.

    Args:
        door: 'rest' or 'grpc'.
    """

    def __init__(self, door: str) -> None:
        self._door = door

    def answered(self, status: str, received_ns: int) -> None:
        """A request was answered.

        Args:
            status: The protocol's own.
            received_ns: When it came, by the monotonic clock; 0: not known.
        """
        if not is_recording():
            return
        metrics.SERVER_REQUESTS.add(door=self._door, status=status)
        if received_ns:
            seconds = (time.monotonic_ns() - received_ns) / _NS_A_S
            metrics.SERVER_SECONDS.observe(seconds, times=1, door=self._door)


def stored(answers: Answers) -> None:
    """The answers to a poll of the Kafka door count."""
    scored = answers.requests - answers.errors - answers.dead_letters
    metrics.SERVER_REQUESTS.add(scored, door=KAFKA, status="ok")
    metrics.SERVER_REQUESTS.add(answers.errors, door=KAFKA, status="error")
    metrics.SERVER_REQUESTS.add(answers.dead_letters, door=KAFKA, status="dead-letter")


def lag(offsets: int) -> None:
    """How far the Kafka door is behind."""
    metrics.SERVER_LAG.set(offsets)
