"""Keeps a client from asking a server that does not answer: a state machine, pure.

CLOSED ── n failures in a row ──► OPEN ── its time is over ──► HALF_OPEN ── answered ──► CLOSED
                                   ▲                               │
                                   └──── failed: twice as long ────┘
"""

from dataclasses import dataclass
from enum import Enum, auto


class BreakerState(Enum):
    """Whether requests may go out."""

    CLOSED = auto()
    OPEN = auto()
    HALF_OPEN = auto()
    """One request may go out, to see."""


@dataclass(slots=True)
class Breaker:
    """Counts failures. The caller says what time it is, in seconds of any clock that only rises.

    Attributes:
        failures_max: Failures in a row that open it, >= 1.
        open_s: How long it stays open the first time.
        open_max_s: How long at most.
        failures: In a row.
    """

    failures_max: int = 5
    open_s: float = 0.5
    open_max_s: float = 2.0
    failures: int = 0
    _opened: int = 0
    _until_s: float | None = None

    def state(self, now_s: float) -> BreakerState:
        """Closed, open, or half-open once the time of the open one is over."""
        if self._until_s is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now_s < self._until_s else BreakerState.HALF_OPEN

    def in_flight(self, now_s: float, most: int) -> int:
        """How many requests may be under way."""
        allowed = {BreakerState.CLOSED: most, BreakerState.OPEN: 0, BreakerState.HALF_OPEN: 1}
        return allowed[self.state(now_s)]

    def wait_s(self, now_s: float) -> float:
        """How long no request may go out; 0 unless it is open."""
        return 0.0 if self._until_s is None else max(0.0, self._until_s - now_s)

    def answered(self) -> None:
        """The server answered."""
        self.failures = self._opened = 0
        self._until_s = None

    def failed(self, now_s: float) -> None:
        """A request failed; one that was under way when it opened changes nothing."""
        self.failures += 1
        state = self.state(now_s)
        if state is BreakerState.HALF_OPEN or (
            state is BreakerState.CLOSED and self.failures >= self.failures_max
        ):
            self._until_s = now_s + min(self.open_max_s, self.open_s * 2.0 ** min(self._opened, 60))
            self._opened += 1
