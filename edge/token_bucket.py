"""How many messages may go now, so that not more than a rate go in the long run. Pure."""

import math
from dataclasses import dataclass

BURST_S = 5.0
"""What was not used is kept for so long: a transaction over a slow uplink takes seconds."""


@dataclass(slots=True)
class TokenBucket:
    """Messages that may go; it begins empty.

    In any stretch of time no more go than `rate * (its length + BURST_S)`, or one, should that be
    less than one.

    Attributes:
        rate: Messages a second; 0: no limit.
        level: Messages that may go, as of `at_s`.
        at_s: By any clock that only rises.

    Example:
        >>> bucket = TokenBucket(100.0, at_s=7.0)
        >>> bucket.available(7.25), bucket.take(20, 7.25), bucket.available(7.25)
        (25, None, 5)
    """

    rate: float
    level: float = 0.0
    at_s: float = 0.0

    def available(self, now_s: float) -> int | None:
        """Messages that may go now; None: any number."""
        if self.rate <= 0:
            return None
        grown = self.level + self.rate * max(0.0, now_s - self.at_s)
        self.level = min(grown, max(1.0, self.rate * BURST_S))
        self.at_s = max(self.at_s, now_s)
        return math.floor(self.level + 1e-9)

    def take(self, messages: int, now_s: float) -> None:
        """So many go."""
        if self.available(now_s) is not None:
            self.level -= messages

    def wait_s(self, messages: int, now_s: float) -> float:
        """How long until so many may go, or as many as it ever holds."""
        if self.available(now_s) is None:
            return 0.0
        wanted = min(float(messages), max(1.0, self.rate * BURST_S))
        return max(0.0, (wanted - self.level) / self.rate)
