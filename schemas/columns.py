"""What the codec speaks: framings, limits, and a decoded poll as columns."""

from dataclasses import dataclass
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ContractError

MAX_PAYLOAD_BYTES = 262_144
"""Largest telemetry payload that is looked into, frame included; larger is OVERSIZED."""

MAX_READINGS = 4_096
"""Most readings in one batch; more is OVERSIZED."""

MAX_VEHICLE_ID_BYTES = 128
"""Longest vehicle id, in UTF-8."""

EVENT_TIME_MS_MIN = -62_135_596_800_000
"""0001-01-01: what Python, Java and SQL readers of a timestamp-millis can all represent."""

EVENT_TIME_MS_MAX = 253_402_300_799_999
"""9999-12-31T23:59:59.999."""

UPTIME_MS_MAX = 1 << 53
"""Feature time is uptime plus differences of event time; this leaves room in 64 bits."""


class Framing(Enum):
    """What stands before an Avro body."""

    SINGLE_OBJECT = auto()
    CONFLUENT = auto()
    NONE = auto()


@dataclass(frozen=True, slots=True)
class Rejected:
    """A payload that breaks the contract.

    Attributes:
        index: Its position in the list given to the decoder.
        error: Why; `error.reason` is the reason of the dead letter.
    """

    index: int
    error: ContractError


@dataclass(slots=True)
class TelemetryColumns:
    """A decoded poll: M good messages with R readings in all, in the order of the input.

    Arrays may be strided views of a common buffer: neither C nor Fortran order is promised.

    Attributes:
        index: Position of each good message in the input list, ascending. Shape (M,).
        vehicle_ids: UTF-8 bytes, M of them.
        boot_id: Shape (M,), >= 0.
        seq: Shape (M,), >= 1.
        oldest_seq: Shape (M,), 1..seq.
        uptime_ms: Monotonic, at the first reading of each message. Shape (M,), >= 0.
        clock_synced: Shape (M,).
        counts: Readings of each message, >= 1. Shape (M,).
        starts: First row of each message in the reading arrays. Shape (M,).
        event_time_ms: By the vehicle's clock, may jump between messages. Shape (R,).
        values: Columns in the order of `signals`; NaN where absent. Every present value, also of
            a signal that is not selected, is finite and in the range of its signal. Shape (R, S).
        signals: Names of the columns of `values`.
        rejected: The payloads that broke the contract, ascending by index.
    """

    index: NDArray[np.int64]
    vehicle_ids: list[bytes]
    boot_id: NDArray[np.int64]
    seq: NDArray[np.int64]
    oldest_seq: NDArray[np.int64]
    uptime_ms: NDArray[np.int64]
    clock_synced: NDArray[np.bool_]
    counts: NDArray[np.int64]
    starts: NDArray[np.int64]
    event_time_ms: NDArray[np.int64]
    values: NDArray[np.float32]
    signals: tuple[str, ...]
    rejected: list[Rejected]


@dataclass(frozen=True, slots=True)
class ScoreStamp:
    """What all scores of one poll have in common.

    Attributes:
        origin: 'EDGE' or 'CLOUD'.
        model_name: Name of the release.
        model_version: Version of the release.
        model_sha256: Of the TFLite bytes, 32 bytes.
        arm: Arm of the experiment that chose the model; 'champion' without one.
        threshold: Above it a score is an anomaly.
        input_topic: Where the telemetry came from.
        score_time_ms: When it was scored, by this machine's clock.
    """

    origin: str
    model_name: str
    model_version: str
    model_sha256: bytes
    arm: str
    threshold: float
    input_topic: str
    score_time_ms: int
