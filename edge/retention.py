"""What the spool may let go: rows that are in Kafka, scored, and older than the history."""

from edge.history import history_start, moments
from edge.marks import Mark
from edge.rows import Lane
from edge.settings import GatewaySettings
from edge.spool import Spool
from edge.spool_reader import SpoolReader

ROWS_A_STEP = 2_000
STEPS_A_ROUND = 50


class Retention:
    """Trims the spool a bounded bit at a time; one thread calls it.

    Args:
        settings: Of the gateway.
        spool: What to trim; it never lets go of what is not in Kafka, whatever is asked.
    """

    def __init__(self, settings: GatewaySettings, spool: Spool) -> None:
        self._settings = settings
        self._spool = spool

    def round(self, reader: SpoolReader, *, history_s: float) -> int:
        """Delete what may go, up to ROWS_A_STEP * STEPS_A_ROUND rows a lane; returns how many.

        Raises:
            SpoolError: The disk refuses for now.
        """
        return self._trim(
            Lane.TELEMETRY, self._spare_telemetry(reader, history_s=history_s)
        ) + self._trim(Lane.PRIORITY, self._spool.marks.durable(Mark.FORWARDED_PRIORITY))

    def _trim(self, lane: Lane, through: int) -> int:
        total = 0
        for _ in range(STEPS_A_ROUND):
            count = self._spool.trim(lane, through=through, rows_max=ROWS_A_STEP)
            total += count
            if count < ROWS_A_STEP:
                break
        return total

    def _spare_telemetry(self, reader: SpoolReader, *, history_s: float) -> int:
        """Position up to which telemetry is too old to rebuild anything from.

        Age counts from the receipt of the row scored last, and by the gateway's monotonic time: a
        clock that jumps must not empty the history.
        """
        first = reader.first_position(Lane.TELEMETRY)
        scored = self._spool.marks[Mark.SCORED]
        if first is None or scored < first:
            return 0
        wanted_ms = round(max(history_s, self._settings.history_min_s) * 1000)
        start = history_start(wanted_ms, first=first, last=scored, moment_at=moments(reader))
        return max(start - 1, scored - self._settings.history_messages_max)
