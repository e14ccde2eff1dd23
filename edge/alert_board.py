"""The state of each vehicle's alerts as MQTT shall hold it: retained while open, empty when not.

The spool knows what MQTT was told. Publishing a state again changes nothing, so after a crash,
and after every reconnect (the broker may have lost its memory), states are simply told again.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

from edge.health import Health
from edge.patience import Patience
from edge.rows import AlertState
from edge.spool import Spool, SpoolReader
from schemas.errors import MotorcadeError, TransientError
from schemas.topics import mqtt_alert
from transport.mqtt import AVRO_CONTENT_TYPE

AGAIN_S = 5.0


class Publish(Protocol):
    """`transport.mqtt.MqttClient.publish`."""

    def __call__(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        content_type: str | None = None,
        on_published: Callable[[MotorcadeError | None], object] = ...,
    ) -> None:
        """Hand one message over, or raise TransientError."""


class AlertBoard:
    """Publishes alert states, and records in the spool what has reached the broker.

    `tick` belongs to one thread; `tell_all` may be called from any.

    Args:
        fleet: Second level of the topics.
        spool: Keeps the states.
        publish: Hands a message to MQTT.
        patience: Waits for a disk that refuses.
        health: For the log.
    """

    def __init__(
        self, fleet: str, spool: Spool, *, publish: Publish, patience: Patience, health: Health
    ) -> None:
        self._fleet = fleet
        self._spool = spool
        self._publish = publish
        self._patience = patience
        self._health = health
        self._arrived: deque[AlertState] = deque()
        self._on_the_way: set[AlertState] = set()
        self._all_due = threading.Event()
        self._due = True
        self._again_s = 0.0

    def tell_all(self) -> None:
        """The broker may have forgotten: publish every state that is kept, at the next `tick`."""
        self._all_due.set()

    def changed(self) -> None:
        """The spool holds states that are not published yet."""
        self._due = True

    def tick(self, reader: SpoolReader) -> None:
        """Publish what is due, and record what has arrived."""
        self._record_arrivals()
        now_s = time.monotonic()
        if self._all_due.is_set():
            self._all_due.clear()
            self._on_the_way.clear()
            self._send(reader.alerts(unpublished_only=False))
        elif self._due or now_s >= self._again_s:
            self._send(reader.alerts(unpublished_only=True))
            self._again_s = now_s + AGAIN_S
        self._due = False

    def _send(self, states: list[AlertState]) -> None:
        for state in states:
            if state in self._on_the_way:
                continue
            self._on_the_way.add(state)
            try:
                self._publish(
                    mqtt_alert(self._fleet, state.vehicle_id, state.code),
                    state.payload if state.state == "OPEN" else b"",
                    retain=True,
                    content_type=AVRO_CONTENT_TYPE,
                    on_published=partial(self._through, state),
                )
            except TransientError as error:
                self._on_the_way.discard(state)
                self._health.announcer.warn("alert on MQTT", f"alert not yet on MQTT: {error}")
                return

    def _through(self, state: AlertState, error: MotorcadeError | None) -> None:
        """Runs on the network thread, so it only takes notes."""
        if error is None:
            self._arrived.append(state)
        else:
            self._health.announcer.warn("alert on MQTT", f"MQTT refused an alert: {error}")
            self._on_the_way.discard(state)

    def _record_arrivals(self) -> None:
        states = [self._arrived.popleft() for _ in range(len(self._arrived))]
        if states:
            self._on_the_way.difference_update(states)
            self._patience.until_done(
                "noting alerts as published", lambda: self._spool.alerts_published(states)
            )
