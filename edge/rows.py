"""What the spool holds, row by row."""

from enum import StrEnum
from typing import NamedTuple


class Lane(StrEnum):
    """The two lanes; priority goes first."""

    PRIORITY = "priority"
    TELEMETRY = "telemetry"


class Kind(StrEnum):
    """What a row of the priority lane holds."""

    ALERT = "alert"
    DEAD_LETTER = "dead-letter"
    LABEL = "label"
    GAP = "gap"
    CLOCK = "clock"
    EVENT = "event"
    SCORE = "score"


class Telemetry(NamedTuple):
    """A stored batch; `payload` is single-object Avro, byte for byte as received.

    `traceparent` is where in a trace it stands (`transport.tracing`); None for nearly all.
    `gateway_boot` and `monotonic_ms` say when it was received, whatever the clock showed
    (`edge.timekeeper`); 0 in rows that an earlier version stored.
    """

    vehicle_id: str
    boot_id: int
    seq: int
    oldest_seq: int
    received_ms: int
    payload: bytes
    traceparent: str | None = None
    gateway_boot: int = 0
    monotonic_ms: int = 0


class Priority(NamedTuple):
    """A stored record that goes first; `payload` is single-object Avro.

    `received_ms` is the time of its record in Kafka; 0 where the gateway did not know the time, and
    then it is that of forwarding.
    """

    kind: Kind
    message_key: str | None
    received_ms: int
    payload: bytes
    traceparent: str | None = None


class StoredTelemetry(NamedTuple):
    """As `Telemetry`, with its position."""

    position: int
    vehicle_id: str
    boot_id: int
    seq: int
    received_ms: int
    payload: bytes
    traceparent: str | None = None
    gateway_boot: int = 0
    monotonic_ms: int = 0


class StoredPriority(NamedTuple):
    """As `Priority`, with its position."""

    position: int
    kind: str
    message_key: str | None
    received_ms: int
    payload: bytes
    traceparent: str | None = None


class AlertState(NamedTuple):
    """The newest state of an alert: what MQTT shall hold.

    `state` is `OPEN` or `CLOSED`, `changed` the position of the telemetry that changed it last,
    `payload` the Alert as single-object Avro.
    """

    vehicle_id: str
    code: str
    state: str
    changed: int
    payload: bytes
