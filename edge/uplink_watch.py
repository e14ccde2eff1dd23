"""Keeps the state of the uplink true, also while the client library waits in silence."""

import time
from collections.abc import Callable

from edge.frames import WRITTEN_TOPICS
from edge.health import Health
from edge.uplink import Uplink, UplinkState
from schemas.errors import FencedError, MotorcadeError, SettingsError, TransientError
from transport.kafka import KafkaSettings, ensure_topics, missing_topics

ANSWER_TIMEOUT_S = 30.0
PATIENCE_S = 5.0
"""A transaction that takes longer is asked after."""

LOOK_TIMEOUT_S = 5.0


class MissingTopicError(TransientError):
    """A topic is not there. Somebody has to make it; what belongs there waits."""


class UplinkWatch:
    """Tells health and log how the way to Kafka is. For the forwarding thread.

    Args:
        health: Told.
        kafka: Asked when a transaction takes long.
        now_ms: Wall time.
    """

    def __init__(self, health: Health, kafka: KafkaSettings, *, now_ms: Callable[[], int]) -> None:
        self._health = health
        self._kafka = kafka
        self._now_ms = now_ms
        self._refusal: SettingsError | None = None
        self._looked_s = 0.0
        self.uplink = Uplink()
        self.never_connected = True

    def changed(self, state: UplinkState, why: str = "") -> None:
        """The state is this one from now on."""
        self.uplink = self.uplink.changed(state, now_ms=self._now_ms(), why=why)
        self._health.uplink = str(self.uplink)

    def connected(self) -> None:
        """A transaction came through."""
        self._refusal = None
        if not self.uplink.connected:
            self.changed(UplinkState.CONNECTED)
            self._health.announcer.info("uplink", "forwarding to Kafka")
        self.never_connected = False

    def told(self, error: MotorcadeError) -> None:
        """The client says that it reaches no broker, or that they do not let it in."""
        if isinstance(error, SettingsError):
            self._refusal = error
        self.changed(_state_of(error), str(error))

    def lost(self, error: MotorcadeError) -> None:
        """A transaction, or the way to the first one, failed."""
        # Being refused shows as a time-out, unless the client has said so beside it.
        refusal, self._refusal = self._refusal, None
        if refusal is not None and _state_of(error) is UplinkState.AWAY:
            error = refusal
        self.changed(_state_of(error), str(error))
        self._health.announcer.warn("uplink lost", f"not forwarding, storing on: {error}")

    def waiting(self, waited_s: float) -> None:
        """A transaction has been waiting for so long; asks Kafka why, now and then.

        Raises:
            MissingTopicError: A topic was deleted; the transaction cannot come through.
            SettingsError: Kafka does not let this gateway see its topics any more.
        """
        if waited_s < PATIENCE_S or time.monotonic() - self._looked_s < PATIENCE_S:
            return
        try:
            require_written_topics(self._kafka, make=False, timeout_s=LOOK_TIMEOUT_S)
        except MissingTopicError:
            raise
        except TransientError as error:
            self.changed(UplinkState.AWAY, f"no answer for {waited_s:.0f} s; {error}")
        finally:
            self._looked_s = time.monotonic()


def _state_of(error: MotorcadeError) -> UplinkState:
    if isinstance(error, MissingTopicError):
        return UplinkState.MISSING_TOPIC
    if isinstance(error, FencedError):
        return UplinkState.FENCED
    return UplinkState.AWAY if isinstance(error, TransientError) else UplinkState.REFUSED


def require_written_topics(
    kafka: KafkaSettings, *, make: bool, timeout_s: float = ANSWER_TIMEOUT_S
) -> None:
    """See that all topics are there that a gateway writes.

    Args:
        kafka: Where.
        make: Make those that are missing, as for a Kafka that is new. A topic that was there and
            is not any more was somebody's decision, and is waited for.
        timeout_s: Longest wait for each answer.

    Raises:
        MissingTopicError: Says which.
        SettingsError: Kafka does not let this gateway see, or make, them.
        TransientError: Kafka did not answer.
    """
    if make:
        ensure_topics(kafka, WRITTEN_TOPICS, timeout_s=timeout_s)
    missing = missing_topics(kafka, [topic.name for topic in WRITTEN_TOPICS], timeout_s=timeout_s)
    if missing:
        raise MissingTopicError(f"Kafka has no topic {', '.join(missing)}; what goes there waits")
