"""Asking over Kafka: rows go out on `model.requests`, scores come back on `model.responses`."""

import threading

from cloud.remote.asking import (
    FEATURES,
    FP32,
    RECONSTRUCTION,
    SCORE,
    Answer,
    Ask,
    Described,
    NotReadyError,
    Tensor,
)
from schemas.errors import ContractError, Reason, TransientError
from schemas.topics import REQUESTS
from transport.kafka_models import KafkaModelClient

REQUEST_BYTES = 2_000_000
"""The client cuts it again, into records, and has several of them on their way."""


class KafkaAsker:
    """An `Asker`, of one request at a time. It connects with the first question.

    Args:
        client: Of the model server; not started yet.
        timeout_s: Longest wait for the answers to one matrix.
    """

    def __init__(self, client: KafkaModelClient, *, timeout_s: float) -> None:
        self.address = REQUESTS.name
        self.timeout_s = timeout_s
        self.request_bytes = REQUEST_BYTES
        self.in_flight = 1
        self._client = client
        self._using = threading.Lock()
        self._started = self._closed = False

    def start(self) -> None:
        """As of `Asker`."""

    def close(self) -> None:
        """As of `Asker`; a request under way ends first, with its time-out at the latest."""
        self._closed = True
        with self._using:
            if self._started:
                self._client.close()
                self._started = False

    def describe(self, model: str, version: str) -> Described:
        """What a server of ours takes and gives; whether one is there, the first answer shows."""
        row = (-1, -1)
        return Described(
            (Tensor(FEATURES, FP32, row),),
            (Tensor(SCORE, FP32, (-1,)), Tensor(RECONSTRUCTION, FP32, row)),
        )

    def ask(self, ask: Ask) -> Answer:
        """As of `Asker`."""
        reconstruction = RECONSTRUCTION in ask.outputs
        with self._using:
            self._connect()
            try:
                found = self._client.score(
                    ask.rows,
                    model=ask.model,
                    version=ask.version,
                    reconstruction=reconstruction,
                    deadline_s=self.timeout_s,
                )
            except ContractError as error:
                if error.reason is Reason.UNKNOWN_MODEL:
                    raise NotReadyError(error.detail) from error
                raise
        outputs = {SCORE: found.scores}
        if reconstruction and found.reconstruction is not None:
            outputs[RECONSTRUCTION] = found.reconstruction
        return Answer(found.version, outputs, found.sha256)

    def _connect(self) -> None:
        if self._closed:
            raise TransientError(f"{self.address}: the connection is closed")
        if not self._started:
            self._client.start()
            self._started = True
