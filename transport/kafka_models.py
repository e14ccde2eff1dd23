"""The client of the Kafka model server: asks for scores by `model.requests`.

    with KafkaModelClient(KafkaSettings("kafka:9092", "http://registry:8081")) as client:
        answer = client.score(features, model="anomaly", deadline_s=30.0)

It reads one partition of the reply topic by itself, without a group, and finds its own responses by
their correlation ids. A response is a pure function of its request, so a request may be sent again
at any time; of several responses the first counts.
"""

import random
import time
import uuid
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ContractError, Reason, TransientError
from schemas.requests import Envelope, ResponseColumns, Verdict, encode_requests
from transport.backoff import backoff_s
from transport.kafka import KafkaSettings
from transport.kafka_replies import ReplyChannel, ReplyTopics

FLOAT_BYTES = 4
RECONSTRUCTION_SHARE = 2
"""A response with the reconstruction is about as large as its request; half is left for it."""

RECEIVE_S = 0.02
"""Longest wait for a response between two looks at what is to be sent."""

RESEND_MAX = 8
"""Times `resend_after_s`: the longest time between two sends of one request."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model server made of a matrix of R rows.

    Attributes:
        scores: NaN where the model could not score a row. Shape (R,).
        reconstruction: What the network made of the rows, normalised. Shape (R, F); None where it
            was not asked for.
        version: That scored.
        sha256: Of the TFLite bytes, 64 hex digits.
        arm: Arm that chose the version; 'pinned' where the request named it.
    """

    scores: NDArray[np.float32]
    reconstruction: NDArray[np.float32] | None
    version: str
    sha256: str
    arm: str


@dataclass(frozen=True, slots=True)
class ModelClientSettings:
    """How a client asks.

    Attributes:
        topics: Where to ask, and where to be answered.
        request_bytes: Largest request; a matrix is cut to it.
        in_flight: Most requests on their way at once.
        resend_after_s: A request without a response is sent again after about so long, then after
            twice as long, and so on.
        start_timeout_s: Longest wait for each answer of Kafka at the start.
    """

    topics: ReplyTopics = field(default_factory=ReplyTopics)
    request_bytes: int = 200_000
    in_flight: int = 16
    resend_after_s: float = 5.0
    start_timeout_s: float = 10.0


@dataclass(slots=True)
class _Asked:
    """A request on its way, or waiting to be sent.

    Attributes:
        correlation_id: Its own.
        rows: Of the matrix.
        payload: As sent.
        sends: How often it was sent.
        again_s: When to send it again, by the monotonic clock.
    """

    correlation_id: bytes
    rows: slice
    payload: bytes
    sends: int = 0
    again_s: float = 0.0


@dataclass(slots=True)
class _Job:
    """One matrix, and what responses to its requests said so far.

    Attributes:
        matrix: Shape (R, F).
        vehicle_id: Whose rows they are; the key of the requests.
        until_s: Deadline, by the monotonic clock.
        scores: Shape (R,).
        reconstruction: Shape (R, F); None: not wanted.
        verdicts: First row of a request to who scored it, in the order in which they came.
    """

    matrix: NDArray[np.float32]
    vehicle_id: bytes
    until_s: float
    scores: NDArray[np.float32]
    reconstruction: NDArray[np.float32] | None
    verdicts: dict[int, Verdict] = field(default_factory=dict)


class KafkaModelClient:
    """Asks the Kafka model server. For one thread.

    Memory: the matrix, its answer, and at most `in_flight` requests.

    Args:
        kafka: Where Kafka and the registry are.
        settings: How to ask.
    """

    def __init__(self, kafka: KafkaSettings, settings: ModelClientSettings | None = None) -> None:
        self._kafka = kafka
        self._settings = settings or ModelClientSettings()
        self._mark = uuid.uuid4().hex[:16]
        self._asked = 0
        self._rng = random.Random()
        self._channel = ReplyChannel(
            kafka, self._settings.topics, timeout_s=self._settings.start_timeout_s
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Find the topics, and read the reply partition from its end on.

        Raises:
            TransientError: Kafka or the registry did not answer, or a topic is not there yet.
            SettingsError: They refuse this client.
        """
        self._channel.start()

    def close(self) -> None:
        """Drop the connections. Harmless when repeated."""
        self._channel.close()

    def score(
        self,
        features: NDArray[np.float32],
        *,
        model: str,
        version: str = "",
        vehicle_id: bytes = b"",
        reconstruction: bool = False,
        deadline_s: float,
    ) -> Answer:
        """Have rows scored.

        All rows are scored by one version: where another one took over meanwhile, those that the
        old one scored are asked for again.

        Args:
            features: Shape (R, F), order and units of the model's manifest; NaN where absent.
            model: Its name.
            version: Version or alias; empty: as the traffic of the model says for the vehicle.
            vehicle_id: Whose arm applies, and by whose key the requests are ordered.
            reconstruction: Whether to give what the network made of the rows, too.
            deadline_s: Longest wait; the server answers nothing later.

        Returns:
            R scores.

        Raises:
            ContractError: The server refuses: UNKNOWN_MODEL, WRONG_SHAPE, ...; or a row is larger
                than a request may be (OVERSIZED).
            TransientError: No server answered in time, or Kafka is down.
        """
        matrix = np.ascontiguousarray(features, np.float32)
        if matrix.ndim != 2 or matrix.shape[1] == 0:
            raise ContractError(Reason.WRONG_SHAPE, f"features of shape {features.shape}")
        envelope = self._envelope(model, version, reconstruction)
        job = _Job(
            matrix=matrix,
            vehicle_id=vehicle_id,
            until_s=time.monotonic() + deadline_s,
            scores=np.full(len(matrix), np.nan, np.float32),
            reconstruction=np.full_like(matrix, np.nan) if reconstruction else None,
        )
        self._ask(envelope, job, self._cut(matrix, reconstruction))
        first = next(iter(job.verdicts.values()), Verdict(model, version))
        self._ask_again(envelope, job)
        last = next(reversed(job.verdicts.values()), first)
        return Answer(job.scores, job.reconstruction, last.version, last.sha256, first.arm)

    def _ask_again(self, envelope: Envelope, job: _Job) -> None:
        """Have what another version scored scored by the one that answered last."""
        if len({verdict.sha256 for verdict in job.verdicts.values()}) < 2:
            return
        last = next(reversed(job.verdicts.values()))
        starts = sorted(job.verdicts)
        ends = [*starts[1:], len(job.matrix)]
        pieces = [
            slice(start, end)
            for start, end in zip(starts, ends, strict=True)
            if job.verdicts[start].sha256 != last.sha256
        ]
        self._ask(replace(envelope, version=last.version), job, pieces)

    def _envelope(self, model: str, version: str, reconstruction: bool) -> Envelope:
        topic, partition = self._channel.address
        return Envelope(model, version, topic, partition, reconstruction)

    def _cut(self, matrix: NDArray[np.float32], reconstruction: bool) -> list[slice]:
        """Stretches of rows that fit into a request, and their responses into a record."""
        room = self._settings.request_bytes // (RECONSTRUCTION_SHARE if reconstruction else 1)
        row_bytes = FLOAT_BYTES * matrix.shape[1]
        if row_bytes > room:
            raise ContractError(Reason.OVERSIZED, f"a row of {row_bytes} bytes; {room} fit")
        step = room // row_bytes
        return [slice(i, min(i + step, len(matrix))) for i in range(0, len(matrix), step)]

    def _ask(self, envelope: Envelope, job: _Job, pieces: list[slice]) -> None:
        """Send requests for pieces of the matrix and take in their responses."""
        waiting = deque(pieces)
        on_their_way: dict[bytes, _Asked] = {}
        deadline_ms = time.time_ns() // 1_000_000 + int(1000 * (job.until_s - time.monotonic()))
        while waiting or on_their_way:
            if time.monotonic() > job.until_s:
                raise TransientError(
                    f"no model server answered {len(waiting) + len(on_their_way)} of "
                    f"{len(pieces)} requests for {envelope.model!r} in time"
                )
            while waiting and len(on_their_way) < self._settings.in_flight:
                asked = self._request(envelope, job, waiting.popleft(), deadline_ms)
                on_their_way[asked.correlation_id] = asked
            self._send_due(on_their_way.values(), job.vehicle_id)
            responses = self._channel.receive(RECEIVE_S)
            for number, correlation_id in enumerate(responses.correlation_ids):
                answered = on_their_way.pop(correlation_id, None)
                if answered is not None:
                    _take_in(answered, responses, number, job)

    def _request(self, envelope: Envelope, job: _Job, rows: slice, deadline_ms: int) -> _Asked:
        self._asked += 1
        correlation_id = f"{self._mark}-{self._asked}".encode()
        [payload] = encode_requests(
            envelope,
            correlation_ids=[correlation_id],
            vehicle_ids=[job.vehicle_id],
            deadline_ms=np.array([deadline_ms]),
            rows=np.array([rows.stop - rows.start]),
            values=job.matrix[rows],
            schema_id=self._channel.ids.id_of(self._settings.topics.requests),
        )
        return _Asked(correlation_id, rows, payload)

    def _send_due(self, asked: Iterable[_Asked], vehicle_id: bytes) -> None:
        """Send what was not sent yet, or was not answered for too long."""
        now_s = time.monotonic()
        for each in asked:
            if now_s < each.again_s:
                continue
            self._channel.send(each.payload, vehicle_id or None)
            each.again_s = now_s + backoff_s(
                each.sends,
                minimum_s=self._settings.resend_after_s,
                maximum_s=RESEND_MAX * self._settings.resend_after_s,
                rng=self._rng,
            )
            each.sends += 1


def _take_in(asked: _Asked, responses: ResponseColumns, number: int, job: _Job) -> None:
    """Put the scores of a response in their place. Raises for an error of the server."""
    verdict = responses.verdicts[responses.verdict[number]]
    if verdict.reason:
        raise _error(verdict)
    rows = asked.rows.stop - asked.rows.start
    if responses.counts[number] != rows:
        raise _wrong_size(f"{responses.counts[number]} scores for {rows} rows")
    start = responses.starts[number]
    job.scores[asked.rows] = responses.scores[start : start + rows]
    if job.reconstruction is not None:
        start, cells = responses.cell_starts[number], responses.cells[number]
        wanted = job.reconstruction[asked.rows]
        if cells != wanted.size:
            raise _wrong_size(f"{cells} numbers for {wanted.size} features")
        wanted[:] = responses.reconstruction[start : start + cells].reshape(wanted.shape)
    job.verdicts.pop(asked.rows.start, None)  # So that the newest is the last.
    job.verdicts[asked.rows.start] = verdict


def _wrong_size(detail: str) -> ContractError:
    return ContractError(Reason.WRONG_SHAPE, f"the model server gave {detail}")


def _error(verdict: Verdict) -> ContractError | TransientError:
    """What the server's reason is to the caller."""
    if verdict.reason == Reason.DEADLINE:
        return TransientError(f"the model server came too late: {verdict.error}")
    try:
        return ContractError(Reason(verdict.reason), verdict.error)
    except ValueError:  # The reason is one of a newer server.
        return ContractError(Reason.MALFORMED, f"{verdict.reason}: {verdict.error}")
