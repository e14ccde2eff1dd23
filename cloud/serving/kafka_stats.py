"""What the Kafka door tells about itself."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from cloud.serving import meter
from cloud.serving.kafka_poll import Answers


@dataclass(frozen=True, slots=True)
class DoorStats:
    """What a door has done since it started, counted when stored.

    Attributes:
        state: What it is doing: 'starting', 'answering', 'waiting: …', 'stopped'.
        requests: Answered, with scores, with an error or by a dead letter.
        rows: Rows scored.
        polls: Polls answered.
        errors: Requests answered with a reason.
        expired: Of these, those whose deadline had passed.
        dead_letters: Requests that could not be answered.
        aborts: Polls whose answers did not count and that were taken again.
        rejoins: Times that partitions were given to this replica.
        lag: Offsets behind the end of the partitions, as last heard from the brokers.
    """

    state: str = "starting"
    requests: int = 0
    rows: int = 0
    polls: int = 0
    errors: int = 0
    expired: int = 0
    dead_letters: int = 0
    aborts: int = 0
    rejoins: int = 0
    lag: int = 0


OnDoorStats = Callable[[DoorStats], None]


class DoorBoard:
    """Statistics of a door over all its connections, and when they are told.

    Args:
        on_stats: Told each change of state, and otherwise as often as `tell` is called.
        interval_s: How often that should be.
    """

    def __init__(self, on_stats: OnDoorStats, interval_s: float) -> None:
        self._on_stats = on_stats
        self._interval_s = interval_s
        self._told_s = time.monotonic()
        self.stats = DoorStats()

    @property
    def is_due(self) -> bool:
        """Whether it is time to tell."""
        return time.monotonic() - self._told_s >= self._interval_s

    def tell(self, *, lag: int) -> None:
        """The periodic report."""
        meter.lag(lag)
        self.stats = replace(self.stats, lag=lag)
        self._tell()

    def state(self, state: str) -> None:
        """What the door is doing now; told if it changed."""
        if state != self.stats.state:
            self.stats = replace(self.stats, state=state)
            self._tell()

    def stored(self, answers: Answers) -> None:
        """A poll whose answers count."""
        meter.stored(answers)
        stats = self.stats
        self.stats = replace(
            stats,
            requests=stats.requests + answers.requests,
            rows=stats.rows + answers.rows,
            polls=stats.polls + 1,
            errors=stats.errors + answers.errors,
            expired=stats.expired + answers.expired,
            dead_letters=stats.dead_letters + answers.dead_letters,
        )

    def add(self, *, aborts: int = 0, rejoins: int = 0) -> None:
        """What happens outside of polls."""
        stats = self.stats
        self.stats = replace(stats, aborts=stats.aborts + aborts, rejoins=stats.rejoins + rejoins)

    def _tell(self) -> None:
        self._told_s = time.monotonic()
        self._on_stats(self.stats)
