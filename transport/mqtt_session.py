"""What one MQTT session is told, and what it hands over: values, no client library."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

AVRO_CONTENT_TYPE = "avro/binary"


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes when this client vanishes (`delay_s` later, MQTT 5)."""

    topic: str
    payload: bytes
    retain: bool = True
    delay_s: int = 0


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What one client of many asks of its session.

    Attributes:
        client_id: Stable over restarts, or the session and its queue are lost.
        receive_max: QoS 1 messages that the broker sends before it waits for their
            acknowledgement (MQTT 5; under 3.1.1 the broker's own limit holds).
        inflight_max: QoS 1 messages sent before waiting for the broker's acknowledgement; lowered
            to the broker's receive maximum when that is less.
        queue_max: Messages handed to `publish` and not yet through; above it `publish` raises.
        manual_ack: Messages are acknowledged by `ack`, not on arrival.
        clean_start: Forget the session of before. Only for clients that need nothing kept.
    """

    client_id: str
    receive_max: int = 20
    inflight_max: int = 20
    queue_max: int = 10_000
    manual_ack: bool = True
    clean_start: bool = False
    will: Will | None = None


class Incoming(NamedTuple):
    """One message as it came. `token` goes to `MqttClient.ack`; 0 needs none (QoS 0)."""

    topic: str
    payload: bytes
    token: int
    user_properties: Sequence[tuple[str, str]]
    retained: bool
    duplicate: bool
