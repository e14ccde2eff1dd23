"""Takes from the spool what goes into the next transaction, lane by lane."""

from dataclasses import dataclass, field

from edge.history import moments, position_at
from edge.lanes import TelemetryLanes, age_s, backlog_messages
from edge.marks import Mark
from edge.positions import Positions
from edge.ranges import Gap, Ranges
from edge.rows import Lane, StoredPriority, StoredTelemetry
from edge.settings import GatewaySettings
from edge.slices import SLICE_BYTES_MIN, RoundTrips, Slice
from edge.spool import Spool, SpoolReader
from edge.timekeeper import Stamp
from edge.token_bucket import TokenBucket

FRESH_SHARE = 0.1
"""Of the time after which a row is backlog: so young are the rows that a jump of the live lane
takes along. All that time would leave an uplink that is too slow for ever on the brink."""

BACKLOG_STEP_S = 0.1
"""While nothing else goes, the backlog goes in steps of what its rate allows in so long."""

LIVE_SHARE, LIVE_SLACK_S = 1.0, 1.0
"""What comes next may have to wait for live data for a second, or for twice the round trips."""

BACKLOG_SHARE, BACKLOG_SLACK_S = 0.5, 0.002
"""Live data may have to wait for the backlog for half of the round trips that it waits for anyway.
So its delay, which is up to two transactions, grows by half at most."""

BACKLOG_BYTES_MAX = 1024 * 1024


@dataclass(slots=True)
class Taken:
    """Rows for one transaction.

    Attributes:
        priority: In order, as all of them.
        live: Telemetry that goes behind `live_after`.
        live_late: The live lane is behind its time, and could not jump.
        backlog: Telemetry out of `gap`.
        gap: What of the backlog is looked at; None: none, or not now.
        gap_through: Up to where of it all is settled with these rows.
    """

    priority: list[StoredPriority] = field(default_factory=list)
    live: list[StoredTelemetry] = field(default_factory=list)
    live_late: bool = False
    backlog: list[StoredTelemetry] = field(default_factory=list)
    gap: Gap | None = None
    gap_through: int = 0

    @property
    def rows(self) -> int:
        """How many rows."""
        return len(self.priority) + len(self.live) + len(self.backlog)


@dataclass(slots=True)
class Moved:
    """Where the lanes stand.

    Attributes:
        priority_after: The priority lane goes on behind this position.
        telemetry: Both lanes of telemetry.
    """

    priority_after: int
    telemetry: TelemetryLanes


class LaneReader:
    """Reads the lanes within what the uplink bears. For one thread.

    Memory: three slices of a transaction, each of at most `forward_messages_max` rows.

    Args:
        settings: Of the gateway.
        spool: From where; it says what was given up.
        reader: Of the spool.
    """

    def __init__(self, settings: GatewaySettings, spool: Spool, reader: SpoolReader) -> None:
        most = settings.forward_bytes_max
        self._settings = settings
        self._spool = spool
        self._reader = reader
        self._priority_after = 0
        self.telemetry = TelemetryLanes()
        spool.tell_sent(self._is_sent)
        self._bucket = TokenBucket(settings.backlog_rate)
        self._trips = RoundTrips()
        self._live = Slice(most, most, LIVE_SHARE, LIVE_SLACK_S)
        self._backlog = Slice(
            SLICE_BYTES_MIN, min(most, BACKLOG_BYTES_MAX), BACKLOG_SHARE, BACKLOG_SLACK_S
        )

    def _is_sent(self, position: int) -> bool:
        """Whether telemetry is in Kafka; from any thread, for what is done only grows."""
        return self.telemetry.done.covers(position)

    def resume(self, positions: Positions, *, now_s: float, round_trips_s: float) -> None:
        """Go on behind what is in Kafka; the first slices over a new way are small.

        Args:
            positions: What is there.
            now_s: By a clock that only rises.
            round_trips_s: What a transaction took that had nothing but positions in it.
        """
        self._priority_after = positions[Lane.PRIORITY].contiguous
        self.telemetry = TelemetryLanes.resumed(positions[Lane.TELEMETRY])
        self._bucket.at_s = now_s
        self._trips = RoundTrips(round_trips_s)
        self._live.size = self._backlog.size = min(SLICE_BYTES_MIN, self._live.most)

    def fell_through(self) -> None:
        """A transaction did not come through: try with less."""
        self._live.fell_through()
        self._backlog.fell_through()

    @property
    def positions(self) -> dict[Lane, int]:
        """Behind which new rows are wanted at once."""
        return {Lane.PRIORITY: self._priority_after, Lane.TELEMETRY: self.telemetry.live_after}

    def done(self) -> dict[Lane, int]:
        """Up to where all of each lane is in Kafka."""
        return {
            Lane.PRIORITY: self._priority_after,
            Lane.TELEMETRY: self.telemetry.done.contiguous,
        }

    def wait_s(self, now_s: float) -> float | None:
        """How long until the backlog goes on; None where there is none."""
        self._bucket.rate = self._settings.backlog_rate  # It may have been changed.
        self.telemetry.gave_up(self._spool.marks[Mark.GIVEN_UP])
        if self.telemetry.gap() is None:
            return None
        self._bucket.rate = self._settings.backlog_rate  # it may change
        step = max(1, round(self._bucket.rate * BACKLOG_STEP_S))
        return self._bucket.wait_s(step, now_s)

    def take(self, now: Stamp, now_s: float) -> Taken:
        """The next rows; the lanes stay as they are until `forwarded`, but for a jump.

        Args:
            now: To tell the age of rows.
            now_s: By a clock that only rises.

        Raises:
            SpoolError, SpoolDamagedError: The spool cannot be read.
        """
        taken = Taken()
        rows_max = self._settings.forward_messages_max
        taken.priority = self._reader.priority(
            after=self._priority_after, rows_max=rows_max, bytes_max=self._live.size
        )
        self.telemetry.gave_up(self._spool.marks[Mark.GIVEN_UP])
        self._take_live(taken, now)
        allowed = backlog_messages(self._bucket.available(now_s), rows_max)
        taken.gap = self.telemetry.gap() if allowed > 0 else None
        if taken.gap is not None:
            self._take_backlog(taken, taken.gap, allowed)
        return taken

    def _take_backlog(self, taken: Taken, gap: Gap, rows_max: int) -> None:
        """Out of one gap. Where it has no rows any more, all of it is settled."""
        rows = self._reader.telemetry(
            after=gap.first - 1, rows_max=rows_max, bytes_max=self._backlog.size
        )
        taken.backlog = [row for row in rows if row.position <= gap.last]
        behind = len(taken.backlog) < len(rows) or not rows
        taken.gap_through = gap.last if behind else taken.backlog[-1].position

    def _take_live(self, taken: Taken, now: Stamp) -> None:
        after_s = self._settings.backlog_after_s
        rows = self._next_live()
        if rows and self.telemetry.jumps(age_s(rows[0], now), backlog_after_s=after_s):
            self.telemetry.jump(self._before_fresh(now))
            rows = self._next_live()
        taken.live = rows
        taken.live_late = bool(rows) and age_s(rows[0], now) > after_s

    def _before_fresh(self, now: Stamp) -> int:
        """The position behind which the stream is now."""
        since_ms = now.monotonic_ms - round(FRESH_SHARE * self._settings.backlog_after_s * 1000)
        # A boot has two numbers, before and after its clock became right.
        since = (now.gateway_boot // 2, since_ms)
        first = position_at(
            lambda moment: (moment.gateway_boot // 2, moment.monotonic_ms) >= since,
            first=self.telemetry.live_after + 1,
            last=self._spool.last(Lane.TELEMETRY),
            moment_at=moments(self._reader),
        )
        return first - 1

    def _next_live(self) -> list[StoredTelemetry]:
        return self._reader.telemetry(
            after=self.telemetry.live_after,
            rows_max=self._settings.forward_messages_max,
            bytes_max=self._live.size,
        )

    def after(self, taken: Taken) -> Moved:
        """Where the lanes stand once these rows are in Kafka."""
        moved = Moved(self._priority_after, self.telemetry.copy())
        if taken.priority:
            moved.priority_after = taken.priority[-1].position
        if taken.live:
            moved.telemetry.forwarded(moved.telemetry.live_after + 1, taken.live[-1].position)
        if taken.gap is not None:
            moved.telemetry.forwarded(taken.gap.first, taken.gap_through)
        return moved

    def changed(self, moved: Moved) -> Positions:
        """What of the positions Kafka does not know yet."""
        positions: Positions = {}
        if moved.priority_after != self._priority_after:
            positions[Lane.PRIORITY] = Ranges(moved.priority_after)
        if moved.telemetry.done != self.telemetry.done:
            positions[Lane.TELEMETRY] = moved.telemetry.done
        return positions

    def skipped(self, moved: Moved) -> None:
        """There was no row to forward; a gap without rows is closed."""
        self.telemetry = moved.telemetry

    def forwarded(self, taken: Taken, moved: Moved, *, took_s: float, now_s: float) -> None:
        """They are; adapts what the next transaction may hold to how long it took."""
        self._priority_after, self.telemetry = moved.priority_after, moved.telemetry
        self._bucket.take(len(taken.backlog), now_s)
        first = bytes_of(taken.priority) + bytes_of(taken.live)
        behind = bytes_of(taken.backlog)
        self._trips.took(took_s, used=first + behind)
        way_s = self._trips.quickest_s
        self._live.took(took_s, used=first, round_trips_s=way_s)
        self._backlog.took(took_s, used=behind, round_trips_s=way_s)


def bytes_of(rows: list[StoredPriority] | list[StoredTelemetry]) -> int:
    """Bytes of payload."""
    return sum(len(row.payload) for row in rows)
