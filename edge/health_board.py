"""The gateway's own state on MQTT, retained: whether it is there, and how it is.

`state/link` is `online`; the broker says `offline` when the gateway vanishes, WILL_DELAY_S later,
so that a car that passes under a bridge is not called lost. `state/health` is a `GatewayStatus`,
told anew each `status_interval_s` and at once when a state changes.
"""

import time
from collections.abc import Callable

from edge.alert_board import Publish
from edge.health import Health
from edge.settings import GatewaySettings
from edge.spool import SpoolError
from schemas.errors import MotorcadeError, TransientError
from schemas.records import Record, encode_single_object
from schemas.topics import mqtt_health, mqtt_link_state
from transport.mqtt_session import AVRO_CONTENT_TYPE, Will

WILL_DELAY_S = 30
LOOK_S = 1.0
ONLINE, OFFLINE = b"online", b"offline"

States = tuple[object, ...]


def link_will(fleet: str, gateway_id: str) -> Will:
    """What the broker says of a gateway that vanishes."""
    return Will(mqtt_link_state(fleet, gateway_id), OFFLINE, delay_s=WILL_DELAY_S)


def states_of(health: Health) -> States:
    """What is told at once when it changes; counts are not in it."""
    return (
        health.uplink.partition(" since ")[0],
        health.spool,
        health.scoring,
        health.model_version,
        health.model_sha256,
        health.model_rollback,
    )


class HealthBoard:
    """Publishes link and health. `tick` and `leave` belong to one thread.

    One health message is on its way at most, so that an absent broker is not sent a queue of them.

    Args:
        fleet: Second level of the topics.
        settings: Of the gateway.
        health: The states.
        publish: Hands a message to MQTT.
        status: Makes a `GatewayStatus`.
        clock_synced: Whether the clock is known to be right; a state as well.
    """

    def __init__(
        self,
        fleet: str,
        settings: GatewaySettings,
        health: Health,
        *,
        publish: Publish,
        status: Callable[[], Record],
        clock_synced: Callable[[], bool],
    ) -> None:
        self._link_topic = mqtt_link_state(fleet, settings.gateway_id)
        self._health_topic = mqtt_health(fleet, settings.gateway_id)
        self._settings = settings
        self._health = health
        self._publish = publish
        self._status = status
        self._clock_synced = clock_synced
        self._told: States = ()
        self._on_the_way = False
        self._greeting_due = False
        self._look_s = 0.0
        self._due_s = 0.0

    def connected(self) -> None:
        """The broker is there, and may have lost its memory; from any thread."""
        self._greeting_due = True

    def tick(self) -> None:
        """Publish what is due."""
        now_s = time.monotonic()
        if self._greeting_due:
            self._greeting_due = False
            self._say(self._link_topic, ONLINE)
            self._due_s = 0.0
        elif now_s < self._look_s:
            return
        self._look_s = now_s + LOOK_S
        states = (*states_of(self._health), self._clock_synced())
        if not self._on_the_way and (states != self._told or now_s >= self._due_s):
            self._tell(states, now_s)

    def leave(self) -> None:
        """Tell the last state, such as being fenced, and say goodbye.

        A broker that is away says the latter by itself, by the will.
        """
        states = (*states_of(self._health), self._clock_synced())
        if states != self._told:
            self._tell(states, time.monotonic())
        self._say(self._link_topic, OFFLINE)

    def _tell(self, states: States, now_s: float) -> None:
        try:
            payload = encode_single_object("GatewayStatus", self._status())
        except SpoolError as error:
            self._health.announcer.warn("status", f"no status for now: {error}")
            return
        if self._say(self._health_topic, payload, on_published=self._through):
            self._on_the_way = True
            self._told = states
            self._due_s = now_s + self._settings.status_interval_s

    def _say(
        self,
        topic: str,
        payload: bytes,
        on_published: Callable[[MotorcadeError | None], object] = lambda _: None,
    ) -> bool:
        """Publish one retained message; whether it was taken."""
        content_type = None if topic == self._link_topic else AVRO_CONTENT_TYPE
        try:
            self._publish(
                topic, payload, retain=True, content_type=content_type, on_published=on_published
            )
        except TransientError as error:
            self._health.announcer.warn("health on MQTT", f"health not yet on MQTT: {error}")
            return False
        return True

    def _through(self, error: MotorcadeError | None) -> None:
        """Runs on the network thread, so it only takes notes."""
        self._on_the_way = False
        if error is not None:
            self._health.announcer.warn("health on MQTT", f"MQTT refused the health: {error}")
