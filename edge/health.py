"""What the gateway can say of itself at any moment."""

import threading
from dataclasses import dataclass, field

from edge.announce import Announcer
from edge.pulse import Pulse

CONNECTED = "connected"
"""The uplink, while the gateway forwards."""


@dataclass(slots=True)
class Health:
    """Counters and states, each written by one thread and read by any.

    Attributes:
        announcer: For lines in the log.
        pulse: Beats of the loops.
        received: MQTT messages that were decided on.
        stored: Telemetry batches put into the spool.
        duplicates: Batches that were there already.
        dead_letters: Messages refused, of MQTT and of releases.
        forwarded: Records committed to Kafka, both lanes.
        scored: Readings scored.
        alerts: Transitions raised.
        vehicle_drops: Batches that vehicles gave up.
        acks: End-to-end acknowledgements sent.
        disk_refusals: Writes to the spool that failed and were repeated.
        uplink: State of the way to Kafka, in words.
        backlog_depth: Records that wait behind live data.
        ahead: Telemetry in Kafka beyond the part of the spool that is there without a gap.
        drops: Batches given up, by reason.
        spool: 'ok', or what the disk refuses.
        scoring: 'ok', 'no model yet', or what is wrong.
        model_version: Of the model that scores; None without one.
        model_sha256: Of that model's bytes, 64 hex digits; None without one.
        model_rollback: Why an earlier model was gone back to; None if never.
    """

    announcer: Announcer = field(default_factory=Announcer)
    pulse: Pulse = field(default_factory=Pulse)
    received: int = 0
    stored: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    forwarded: int = 0
    scored: int = 0
    alerts: int = 0
    vehicle_drops: int = 0
    acks: int = 0
    disk_refusals: int = 0
    backlog_depth: int = 0
    ahead: int = 0
    drops: dict[str, int] = field(default_factory=dict)
    uplink: str = "connecting"
    spool: str = "ok"
    scoring: str = "no model yet"
    model_version: str | None = None
    model_sha256: str | None = None
    model_rollback: str | None = None


class BeatingStop(threading.Event):
    """The wish that all loops end. Each loop asks for it once a turn, and that is its beat.

    Args:
        pulse: Takes the beats.
    """

    def __init__(self, pulse: Pulse) -> None:
        super().__init__()
        self._pulse = pulse

    def is_set(self) -> bool:
        """Whether to end."""
        self._pulse.beat()
        return super().is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end; bounded, or it counts as hanging."""
        self._pulse.beat()
        return super().wait(timeout)


class Crew:
    """Threads of which none may die unnoticed: the first error stops them all.

    Args:
        stop: Set when the work shall end.
    """

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop
        self.error: BaseException | None = None

    def failed(self, error: BaseException) -> None:
        """Keep the first error and stop everybody."""
        self.error = self.error or error
        self.stop.set()
