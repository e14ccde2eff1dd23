"""Alerts as somebody who watches gets them: of the edge from MQTT, of the cloud from Kafka."""

import threading
import time
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from cloud.decoding import decode_plain
from cloud.watch import AlertFilter, watch_alerts
from schemas.errors import TransientError
from schemas.records import Record, confluent_header, single_object_body
from schemas.topics import mqtt_alert
from transport.mqtt import Incoming, MqttClient
from transport.mqtt_session import SessionSettings
from transport.settings import KafkaSettings, MqttSettings

SIGHTINGS_MAX = 100_000
"""Beyond it the oldest that nobody took is forgotten; a demo has some thousands."""

_RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class Sighting:
    """An alert and when it arrived.

    Attributes:
        alert: The record, times in integer milliseconds.
        arrived_ms: Wall time.
    """

    alert: Record
    arrived_ms: int


class EdgeWatch:
    """Subscribes to the retained alerts of a fleet."""

    def __init__(self, mqtt: MqttSettings, client_id: str) -> None:
        self.seen: deque[Sighting] = deque(maxlen=SIGHTINGS_MAX)
        session = SessionSettings(client_id, receive_max=1_000, manual_ack=False, clean_start=True)
        self._filter = mqtt_alert(mqtt.fleet, "+", "+")
        self._client = MqttClient(mqtt, session, on_message=self._take)

    def __enter__(self) -> Self:
        self._client.subscribe([self._filter])
        self._client.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.stop()

    def _take(self, message: Incoming) -> None:
        if message.payload:  # an empty one clears what was retained
            body = single_object_body("Alert", message.payload)
            alert = decode_plain("Alert", 0, confluent_header(0) + body)
            self.seen.append(Sighting(alert, time.time_ns() // 1_000_000))


class CloudWatch:
    """Reads `vehicle.alerts` as it grows, committed records only, also across an outage.

    Alerts of the edge come here too, by way of the gateway's spool. After a failure of Kafka that
    the client does not mend, it reads from the start again: sightings may repeat.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self.seen: deque[Sighting] = deque(maxlen=SIGHTINGS_MAX)
        self._kafka = kafka
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch alerts", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except TransientError:
                self._stop.wait(_RETRY_S)

    def _follow(self) -> None:
        for alert in watch_alerts(AlertFilter(since_ms=0), self._kafka, stop=self._stop):
            self.seen.append(Sighting(alert, time.time_ns() // 1_000_000))
