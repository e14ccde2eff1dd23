"""Which rows go next: priority, then live telemetry, then what of the backlog may go. Pure.

Telemetry is forwarded in order until its next row has waited for too long, be it that there was no
uplink or that it is too slow. Then the live lane jumps to where the stream is now, and what it
leaves behind is backlog: it goes from its oldest row on, beside the live lane, within a rate. So
what is in Kafka is a contiguous part and stretches above it (`edge.ranges`), and a gap between two
stretches is what one jump left behind. At `RANGES_MAX` stretches the live lane jumps no more until
a gap closes; it then forwards in order however old its rows are.
"""

import math
from dataclasses import dataclass, field

from edge.ranges import Gap, Ranges
from edge.rows import StoredTelemetry
from edge.timekeeper import Stamp, same_boot


def age_s(row: StoredTelemetry, now: Stamp) -> float:
    """How long ago a row was received.

    By time since the boot, which never jumps. A row of an earlier boot is as old as can be: how
    long the gateway was off nobody knows. Only rows of a spool that knew no boots yet, whose number
    is 0, go by the wall clock.
    """
    if not row.gateway_boot:
        return (now.received_ms - row.received_ms) / 1000.0
    if not same_boot(row.gateway_boot, now.gateway_boot):
        return math.inf
    return (now.monotonic_ms - row.monotonic_ms) / 1000.0


@dataclass(slots=True)
class TelemetryLanes:
    """How far telemetry has come, live and backlog.

    Attributes:
        done: What is in Kafka.
        live_after: The live lane goes on behind this position; all that is missing up to it is
            backlog.
    """

    done: Ranges = field(default_factory=Ranges)
    live_after: int = 0

    @classmethod
    def resumed(cls, done: Ranges) -> "TelemetryLanes":
        """To go on with, given what is in Kafka."""
        return cls(done, done.end)

    def jumps(self, next_age_s: float, *, backlog_after_s: float) -> bool:
        """Whether the live lane leaves what comes next to the backlog."""
        return next_age_s > backlog_after_s and not self.done.full

    def jump(self, position: int) -> None:
        """Go on behind a position; what is missing up to there is backlog from now on."""
        self.live_after = max(self.live_after, position)

    def gave_up(self, position: int) -> None:
        """Rows up to this position are no more, and count as done."""
        self.done.add(1, position)
        self.live_after = max(self.live_after, self.done.contiguous)

    def gap(self) -> Gap | None:
        """The oldest stretch of the backlog; None without any."""
        gap = self.done.missing_after(0)
        if gap is None and self.done.end < self.live_after:
            return Gap(self.done.end + 1, self.live_after)
        return gap

    def forwarded(self, first: int, last: int) -> None:
        """These are in Kafka, of whichever lane; positions without a row among them count too."""
        self.done.add(first, last)
        self.live_after = max(self.live_after, last, self.done.contiguous)

    def copy(self) -> "TelemetryLanes":
        """One that changes by itself."""
        return TelemetryLanes(self.done.copy(), self.live_after)

    @property
    def backlog(self) -> int:
        """Positions that are backlog."""
        return self.live_after - self.done.contiguous - self.done.ahead


def backlog_messages(available: int | None, messages_max: int) -> int:
    """How many messages of the backlog a transaction may hold.

    Args:
        available: What the rate allows; None: no limit.
        messages_max: Of a transaction.
    """
    return messages_max if available is None else min(available, messages_max)
