"""When rows of the spool were truly received, as far as that is known by now.

A row that came before the gateway's clock was right is corrected when it is read: by what the
clock says now, or, of an earlier boot, by the first row of that boot with a true time. A boot that
never learnt the time keeps what its clock showed, and says so.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge.history import moments, position_at
from edge.rows import Lane, StoredTelemetry
from edge.spool import Spool
from edge.timekeeper import Moment, Timekeeper, is_true
from schemas.columns import EVENT_TIME_MS_MIN
from transport.kafka import Header

BOOTS_REMEMBERED = 64

UNKNOWN_MS = EVENT_TIME_MS_MIN
"""Stands for a time that is not known: before all others, so that nothing is late by it."""


class Receipt(NamedTuple):
    """Time of receipt for Kafka, and what there is to say about it."""

    received_ms: int
    headers: tuple[Header, ...] = ()


class Receipts:
    """Tells true times of receipt. Belongs to one thread.

    Args:
        keeper: Knows the present boot.
        spool: Where rows of earlier boots are looked up, once a boot.
    """

    def __init__(self, keeper: Timekeeper, spool: Spool) -> None:
        self._keeper = keeper
        self._spool = spool
        self._zeros: dict[int, int | None] = {}

    def true_ms(self, row: StoredTelemetry) -> int | None:
        """When it was received; None where that is not known (yet).

        Raises:
            SpoolError, SpoolDamagedError: The spool cannot be read.
        """
        if is_true(row.gateway_boot):
            return row.received_ms
        known = self._keeper.true_ms(Moment(row.gateway_boot, row.monotonic_ms))
        if known is not None or self._keeper.is_present(row.gateway_boot):
            return known
        zero_ms = self._zero_ms(row.gateway_boot)
        return None if zero_ms is None else zero_ms + row.monotonic_ms

    def of(self, row: StoredTelemetry) -> Receipt:
        """What a row's record in Kafka says: the true time where it is known, and what was shown.

        Raises as `true_ms`.
        """
        if is_true(row.gateway_boot):
            return Receipt(row.received_ms)
        true_ms = self.true_ms(row)
        if true_ms is None:
            return Receipt(row.received_ms, (("clock_synced", b"0"),))
        raw = b"%d" % row.received_ms
        return Receipt(true_ms, (("received_corrected", b"1"), ("received_raw_ms", raw)))

    def times(self, rows: Sequence[StoredTelemetry]) -> NDArray[np.int64]:
        """True times, UNKNOWN_MS where there is none. Shape (len(rows),). Raises as `true_ms`."""
        if all(is_true(row.gateway_boot) for row in rows):
            return np.array([row.received_ms for row in rows], np.int64)
        known = [self.true_ms(row) for row in rows]
        return np.array([UNKNOWN_MS if time is None else time for time in known], np.int64)

    def _zero_ms(self, gateway_boot: int) -> int | None:
        if gateway_boot not in self._zeros:
            if len(self._zeros) >= BOOTS_REMEMBERED:
                del self._zeros[next(iter(self._zeros))]
            self._zeros[gateway_boot] = self._look_up(gateway_boot + 1)
        return self._zeros[gateway_boot]

    def _look_up(self, number: int) -> int | None:
        """True time of the boot, by its first row of that number; None where there is none."""
        reader = self._spool.reader()
        try:
            first = reader.first_position(Lane.TELEMETRY)
            if first is None:
                return None
            last = self._spool.last(Lane.TELEMETRY)
            at = position_at(
                lambda moment: moment.gateway_boot >= number,
                first=first,
                last=last,
                moment_at=moments(reader),
            )
            rows = reader.telemetry(after=at - 1, rows_max=1, bytes_max=1)
        finally:
            reader.close()
        if not rows or rows[0].gateway_boot != number:
            return None
        return rows[0].received_ms - rows[0].monotonic_ms
