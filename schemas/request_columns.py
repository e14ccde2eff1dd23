"""What the codec of requests and responses speaks: limits, and decoded polls as columns."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ContractError, Reason
from schemas.poll import spans

MAX_REQUEST_BYTES = 1_000_000
"""Largest request or response that is looked into, frame included; larger is OVERSIZED."""

MAX_ID_BYTES = 128
"""Longest correlation id, vehicle id, model name and version, in UTF-8."""

MAX_TOPIC_BYTES = 249
"""Longest name that Kafka gives to a topic."""

ANY_PARTITION = -1
"""Reply partition of a request whose response goes by its key."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What requests of one client have in common.

    Attributes:
        model: Name of the model.
        version: Version or alias; empty: as the traffic of the model says for the vehicle.
        reply_topic: Where to answer; empty: the topic of responses.
        reply_partition: Of the reply topic; `ANY_PARTITION`: by key.
        reconstruction: Whether the response also holds what the model made of the rows.
        json: Whether the request came, and the response goes, as JSON.
    """

    model: str
    version: str = ""
    reply_topic: str = ""
    reply_partition: int = ANY_PARTITION
    reconstruction: bool = False
    json: bool = False


class AnswerableError(ContractError):
    """A request that breaks the contract, but says where to answer.

    Attributes:
        envelope: Of the request.
        correlation_id: UTF-8.
    """

    def __init__(
        self, reason: Reason, detail: str, *, envelope: Envelope, correlation_id: bytes
    ) -> None:
        super().__init__(reason, detail)
        self.envelope = envelope
        self.correlation_id = correlation_id


@dataclass(frozen=True, slots=True)
class RejectedRequest:
    """A request that breaks the contract.

    Attributes:
        index: Its position in the list given to the decoder.
        error: Why; an `AnswerableError` where the request says where to answer.
    """

    index: int
    error: ContractError


@dataclass(slots=True)
class RequestColumns:
    """A decoded poll: M good requests with V features in all, in the order of the input.

    Attributes:
        index: Position of each good request in the input list, ascending. Shape (M,).
        envelopes: The different ones that occur.
        envelope: Number of each request's. Shape (M,).
        correlation_ids: UTF-8, M of them.
        vehicle_ids: UTF-8, M of them; empty: the record's key.
        deadline_ms: Since the epoch; 0: none. Shape (M,).
        rows: At least 1. Shape (M,).
        counts: Features, a multiple of `rows`, at least `rows`. Shape (M,).
        starts: First feature of each request in `values`, in no particular order. Shape (M,).
        values: Row by row; NaN where absent. Shape (V,).
        rejected: What broke the contract, ascending by index.
    """

    index: NDArray[np.int64]
    envelopes: list[Envelope]
    envelope: NDArray[np.int64]
    correlation_ids: list[bytes]
    vehicle_ids: list[bytes]
    deadline_ms: NDArray[np.int64]
    rows: NDArray[np.int64]
    counts: NDArray[np.int64]
    starts: NDArray[np.int64]
    values: NDArray[np.float32]
    rejected: list[RejectedRequest]

    @property
    def widths(self) -> NDArray[np.int64]:
        """Features of a row of each request. Shape (M,)."""
        widths: NDArray[np.int64] = self.counts // np.maximum(self.rows, 1)
        return widths

    def matrix(self, chosen: NDArray[np.int64], width: int) -> NDArray[np.float32]:
        """The rows of some requests, one behind the other.

        Args:
            chosen: Numbers of the requests; all have this width.
            width: Features of a row.

        Returns:
            Shape (sum of their rows, width); perhaps a view of `values`.
        """
        return gather(self.values, self.starts[chosen], self.counts[chosen]).reshape(-1, width)


def gather(
    values: NDArray[np.float32], starts: NDArray[np.int64], counts: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Stretches of `values`, one behind the other; a view where they lie so already.

    Args:
        values: Shape (V,).
        starts: Shape (K,).
        counts: At least 1. Shape (K,).

    Returns:
        Shape (sum of counts,).
    """
    if starts.size == 0:
        return values[:0]
    if (starts[1:] == starts[:-1] + counts[:-1]).all():
        return values[starts[0] : starts[-1] + counts[-1]]
    width = int(counts[0])
    if (counts == width).all() and not (starts % width).any() and values.size % width == 0:
        taken: NDArray[np.float32] = values.reshape(-1, width)[starts // width].reshape(-1)
        return taken
    return values[spans(starts, counts)]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the server says about requests: which model scored them, or why none did.

    Attributes:
        model: As the request names it.
        version: That scored; empty with an error.
        sha256: Of the TFLite bytes, 64 hex digits; empty with an error.
        arm: Arm that chose the version.
        reason: Empty, or a `schemas.errors.Reason`.
        error: Empty, or the same in a sentence.
    """

    model: str
    version: str = ""
    sha256: str = ""
    arm: str = ""
    reason: str = ""
    error: str = ""


@dataclass(slots=True)
class ResponseColumns:
    """A decoded poll of M responses, in the order of the input.

    Attributes:
        index: Position of each response in the input list, ascending. Shape (M,).
        verdicts: The different ones that occur.
        verdict: Number of each response's. Shape (M,).
        correlation_ids: UTF-8, M of them.
        score_time_ms: Since the epoch. Shape (M,).
        queue_us: Shape (M,).
        compute_us: Shape (M,).
        counts: Scores of each response. Shape (M,).
        starts: First of them in `scores`. Shape (M,).
        scores: NaN where there is none. Shape (R,).
        cells: Numbers in the reconstruction of each response. Shape (M,).
        cell_starts: First of them in `reconstruction`. Shape (M,).
        reconstruction: Row by row, normalised. Shape (C,).
        rejected: What is no response, ascending by index.
    """

    index: NDArray[np.int64]
    verdicts: list[Verdict]
    verdict: NDArray[np.int64]
    correlation_ids: list[bytes]
    score_time_ms: NDArray[np.int64]
    queue_us: NDArray[np.int64]
    compute_us: NDArray[np.int64]
    counts: NDArray[np.int64]
    starts: NDArray[np.int64]
    scores: NDArray[np.float32]
    cells: NDArray[np.int64]
    cell_starts: NDArray[np.int64]
    reconstruction: NDArray[np.float32]
    rejected: list[RejectedRequest]
