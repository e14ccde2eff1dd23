"""What is known of the way to Kafka, as a state with a text for people. Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum


class UplinkState(StrEnum):
    """How the way to Kafka is."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    AWAY = "away"
    """Kafka, or the registry, does not answer."""
    REFUSED = "refused"
    """It answers, but lets this gateway not do what it must: credentials, rights, settings."""
    MISSING_TOPIC = "missing topic"
    FENCED = "fenced"
    """Another gateway has this one's id; this one stops."""


@dataclass(frozen=True, slots=True)
class Uplink:
    """A state of the uplink; `str` tells it, and begins with the state's name.

    Attributes:
        state: Which.
        since_ms: Wall time at which it began; 0: not told.
        why: What happened; empty where that goes without saying.

    Example:
        >>> str(Uplink(UplinkState.AWAY, 1_700_000_000_000, "no answer for 10 s"))
        'away since 2023-11-14T22:13:20Z: no answer for 10 s'
        >>> str(Uplink())
        'connecting'
    """

    state: UplinkState = UplinkState.CONNECTING
    since_ms: int = 0
    why: str = ""

    @property
    def connected(self) -> bool:
        """Whether rows are going to Kafka."""
        return self.state is UplinkState.CONNECTED

    def changed(self, state: UplinkState, *, now_ms: int, why: str = "") -> "Uplink":
        """The next state; while it stays the same, so does since when."""
        since_ms = self.since_ms if state is self.state and self.since_ms else now_ms
        return Uplink(state, since_ms, why)

    def __str__(self) -> str:
        since = f" since {_when(self.since_ms)}" if self.since_ms and not self.connected else ""
        return f"{self.state}{since}{f': {self.why}' if self.why else ''}"


def _when(time_ms: int) -> str:
    moment = datetime.fromtimestamp(time_ms // 1000, UTC)
    return moment.isoformat().replace("+00:00", "Z")
