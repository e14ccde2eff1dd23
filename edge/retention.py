"""What the spool may let go: rows that are in Kafka, scored, and older than the history."""

import math
import time

from edge.history import history_start, moments
from edge.marks import Mark
from edge.rows import Lane
from edge.settings import GatewaySettings
from edge.spool import Spool, SpoolReader

LOOK_S = 10.0
"""Between two looks for what is old enough; the search reads some rows from the disk."""


class Retention:
    """Trims the spool, whole segments at a time; one thread calls it.

    Args:
        settings: Of the gateway.
        spool: What to trim; it never lets go of what is not in Kafka, whatever is asked.
    """

    def __init__(self, settings: GatewaySettings, spool: Spool) -> None:
        self._settings = settings
        self._spool = spool
        self._spare = 0
        self._history_s = 0.0
        self._look_again_s = -math.inf

    def round(self, reader: SpoolReader, *, history_s: float) -> int:
        """Delete the segments that may go, and do what else is due; returns how many went.

        Raises:
            SpoolError: The disk refuses for now.
        """
        self._spool.tend()
        if history_s != self._history_s or time.monotonic() >= self._look_again_s:
            self._spare = self._spare_telemetry(reader, history_s=history_s)
            self._history_s, self._look_again_s = history_s, time.monotonic() + LOOK_S
        return self._spool.trim(Lane.TELEMETRY, through=self._spare) + self._spool.trim(
            Lane.PRIORITY, through=self._spool.marks[Mark.FORWARDED_PRIORITY]
        )

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
