"""Rows of the spool to a load of records; a row that Kafka cannot take becomes a dead letter."""

from collections.abc import Sequence

from edge.frames import Framer
from edge.load import Load
from edge.refusals import Refusals, letter_of
from edge.rows import StoredPriority, StoredTelemetry
from schemas.errors import ContractError


class Loading:
    """Fills one load.

    Args:
        framer: Makes the records.
        refusals: Rows that were refused before.
        now_ms: Wall time, for dead letters.
    """

    def __init__(self, framer: Framer, refusals: Refusals, *, now_ms: int) -> None:
        self._framer = framer
        self._refusals = refusals
        self._now_ms = now_ms
        self.load = Load()

    def priority(self, rows: Sequence[StoredPriority]) -> None:
        """Rows of the priority lane, in order.

        Raises:
            SettingsError: Not even a dead letter is taken.
        """
        for row in rows:
            if row in self._refusals:
                self._letter(row)
                continue
            try:
                records = self._framer.priority(row)
            except ContractError as error:
                self._unfit(row, error)
                continue
            for record in records:
                self.load.add(record, row)

    def telemetry(self, rows: Sequence[StoredTelemetry], *, late: bool) -> None:
        """Rows of telemetry, in order.

        Raises:
            SettingsError: As `priority`, or the registry lacks a schema.
        """
        refused = [row for row in rows if row in self._refusals]
        if refused:
            rows = [row for row in rows if row not in self._refusals]
        self.load.extend(self._framer.telemetry(rows, late=late), rows)
        for row in refused:
            self._letter(row)

    def _letter(self, row: StoredPriority | StoredTelemetry) -> None:
        self.load.add(self._refusals.letter(self._framer, row, now_ms=self._now_ms), row)

    def _unfit(self, row: StoredPriority, error: ContractError) -> None:
        letter = letter_of(
            row,
            error,
            gateway_id=self._framer.gateway_id,
            now_ms=self._now_ms,
            with_payload=True,
        )
        self.load.add(self._framer.dead_letter(letter), row)
