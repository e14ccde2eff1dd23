"""Alerts as values: what opened or closed, why, and the Avro record of it."""

from dataclasses import dataclass
from typing import Any, Literal

from scoring.manifest import Manifest

Origin = Literal["EDGE", "CLOUD"]
State = Literal["OPEN", "CLOSED"]


@dataclass(frozen=True, slots=True)
class LeadingSignal:
    """A feature's part in a score.

    Attributes:
        name: Feature name.
        unit: Unit of `value` and `expected`.
        value: What was measured.
        expected: What the model made of it.
        deviation: `value - expected` in standard deviations of the training data, signed.
        share: Part of the score, 0..1.
    """

    name: str
    unit: str
    value: float
    expected: float
    deviation: float
    share: float


@dataclass(frozen=True, slots=True)
class OpenAlert:
    """What must be kept of an open alert to close it, also over a restart.

    Attributes:
        alert_id: Of the opening.
        since_ms: Event time at which the run of exceedances began.
        code: Of the policy that opened it.
    """

    alert_id: str
    since_ms: int
    code: str = "anomaly"


@dataclass(frozen=True, slots=True)
class Transition:
    """An alert that opens or closes at one reading.

    Attributes:
        message: Row of the message in the columns that were processed.
        reading_index: Reading within the message, from 0.
        vehicle_id: UTF-8.
        boot_id: Of the message.
        seq: Of the message.
        state: 'OPEN' or 'CLOSED'.
        alert_id: origin/vehicle/boot/seq/reading/code of the opening; the closing repeats it.
        code: Of the policy.
        since_ms: Event time of the first reading of the run that opened the alert.
        event_time_ms: Of the reading that decided.
        score: Of the reading that decided.
        late: Whether the message was late.
        signals: Most to blame first; empty at a closing.
    """

    message: int
    reading_index: int
    vehicle_id: bytes
    boot_id: int
    seq: int
    state: State
    alert_id: str
    code: str
    since_ms: int
    event_time_ms: int
    score: float
    late: bool
    signals: tuple[LeadingSignal, ...]

    @property
    def open_alert(self) -> OpenAlert:
        """What storage keeps of it until it closes."""
        return OpenAlert(self.alert_id, self.since_ms, self.code)


@dataclass(frozen=True, slots=True)
class AlertSource:
    """Where the deciding message came from, and when it was scored.

    Attributes:
        origin: 'EDGE' or 'CLOUD'.
        input_topic: Kafka topic; on the edge the MQTT topic.
        input_partition: -1 on the edge.
        input_offset: On the edge the position in the spool.
        score_time_ms: By this machine's clock.
        gateway_id: On the edge.
        arm: Arm of the experiment that chose the model.
    """

    origin: Origin
    input_topic: str
    input_partition: int
    input_offset: int
    score_time_ms: int
    gateway_id: str | None = None
    arm: str = "champion"


def alert_record(transition: Transition, manifest: Manifest, source: AlertSource) -> dict[str, Any]:
    """The `Alert` record of a transition that the model of `manifest` caused."""
    return {
        "alert_id": transition.alert_id,
        "state": transition.state,
        "code": transition.code,
        "origin": source.origin,
        "gateway_id": source.gateway_id,
        "model_name": manifest.name,
        "model_version": manifest.version,
        "model_sha256": bytes.fromhex(manifest.model_sha256),
        "arm": source.arm,
        "threshold": manifest.threshold,
        "input_topic": source.input_topic,
        "input_partition": source.input_partition,
        "input_offset": source.input_offset,
        "vehicle_id": transition.vehicle_id.decode(),
        "boot_id": transition.boot_id,
        "seq": transition.seq,
        "reading_index": transition.reading_index,
        "since": transition.since_ms,
        "event_time": transition.event_time_ms,
        "score_time": source.score_time_ms,
        "score": transition.score,
        "late": transition.late,
        "signals": [_signal_record(signal) for signal in transition.signals],
    }


def _signal_record(signal: LeadingSignal) -> dict[str, Any]:
    return {
        "name": signal.name,
        "unit": signal.unit,
        "value": signal.value,
        "expected": signal.expected,
        "deviation": signal.deviation,
        "share": signal.share,
    }


def open_alert_of(record: dict[str, Any]) -> OpenAlert:
    """What `StreamScorer.restore_open` needs, from an `Alert` record of state OPEN."""
    since = record["since"]
    since_ms = since if isinstance(since, int) else round(since.timestamp() * 1000)
    return OpenAlert(record["alert_id"], since_ms, record["code"])
