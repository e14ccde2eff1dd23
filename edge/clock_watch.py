"""The clocks of vehicles, as the scoring thread comes across them: rows in, records out."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge.history import history_start, moments
from edge.marks import Mark
from edge.receipts import UNKNOWN_MS, Receipts
from edge.rows import Kind, Lane, Priority, StoredTelemetry
from edge.settings import GatewaySettings
from edge.spool import Spool, SpoolReader
from edge.timekeeper import Timekeeper, is_true
from edge.vehicle_clocks import VehicleClocks
from schemas.codec import Framing, TelemetryColumns, decode_telemetry
from schemas.records import encode_single_object

BYTES_MAX = 8 * 1024 * 1024

REMEMBERED_ROWS_MAX = 100_000
"""Rows taken in again after a start at most, about a second's work; what they do not show is told
once more, if its vehicle still does not know the time."""


class ClockWatch:
    """Follows `edge.vehicle_clocks` through the spool. Belongs to one thread.

    Args:
        settings: Of the gateway.
        spool: Whose telemetry it is given.
        keeper: The gateway's time.
    """

    def __init__(self, settings: GatewaySettings, spool: Spool, keeper: Timekeeper) -> None:
        self._settings = settings
        self._spool = spool
        self._keeper = keeper
        self._receipts = Receipts(keeper, spool)
        self._clocks = VehicleClocks(boots_max=settings.max_vehicles)
        self._remembers = False

    def times(self, rows: Sequence[StoredTelemetry]) -> NDArray[np.int64]:
        """True times of receipt; see `Receipts.times`."""
        return self._receipts.times(rows)

    def time_of(self, row: StoredTelemetry) -> int | None:
        """True time of one receipt; None where it is not known. Raises as `Receipts.true_ms`."""
        return self._receipts.true_ms(row)

    def remember(self, reader: SpoolReader) -> None:
        """The first time it is called: take in what an earlier life told, and tell nothing.

        Rows whose time was not known when they came count as untold, as they may be.
        """
        if self._remembers:
            return
        self._remembers = True
        first, scored = reader.first_position(Lane.TELEMETRY), self._spool.marks[Mark.SCORED]
        if first is None:
            return
        history_ms = round(self._settings.history_min_s * 1000)
        start = history_start(history_ms, first=first, last=scored, moment_at=moments(reader))
        after = max(start - 1, scored - REMEMBERED_ROWS_MAX)
        while after < scored:
            most = min(self._settings.score_messages_max, scored - after)
            rows = reader.telemetry(after=after, rows_max=most, bytes_max=BYTES_MAX)
            rows = [row for row in rows if row.position <= scored]
            if not rows:
                return
            after = rows[-1].position
            columns, good = _decoded(rows)
            shown = [row.received_ms if is_true(row.gateway_boot) else UNKNOWN_MS for row in good]
            self._clocks.hear(columns, good, np.array(shown, np.int64))

    def hear_rows(self, rows: Sequence[StoredTelemetry]) -> list[Priority]:
        """As `hear`, of rows that nobody has decoded."""
        columns, good = _decoded(rows)
        return self.hear(columns, good, self.times(good))

    def hear(
        self,
        columns: TelemetryColumns,
        rows: Sequence[StoredTelemetry],
        received_ms: NDArray[np.int64],
    ) -> list[Priority]:
        """What there is to tell after these rows; see `VehicleClocks.hear`."""
        found = self._clocks.hear(columns, rows, received_ms)
        now_ms = self._keeper.wall_ms() if found else 0
        letters = []
        for record in found:
            record |= {"gateway_id": self._settings.gateway_id, "time": now_ms}
            key = f"{record['vehicle_id']}/{record['boot_id']}"
            payload = encode_single_object("VehicleClock", record)
            letters.append(Priority(Kind.CLOCK, key, now_ms, payload))
        return letters


def _decoded(
    rows: Sequence[StoredTelemetry],
) -> tuple[TelemetryColumns, list[StoredTelemetry]]:
    columns = decode_telemetry(
        [row.payload for row in rows], framing=Framing.SINGLE_OBJECT, signals=()
    )
    return columns, [rows[i] for i in columns.index.tolist()]
