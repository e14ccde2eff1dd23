"""The reading side of the spool."""

import sqlite3
from pathlib import Path
from typing import Any

from edge.rows import AlertState, Lane, StoredPriority, StoredTelemetry
from edge.spool_schema import connect, translate

Row = tuple[Any, ...]


class SpoolReader:
    """Reads the spool; belongs to one thread.

    Reads are short, so that they never keep the write-ahead log from being folded in.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = connect(path, read_only=True)

    def telemetry(self, *, after: int, rows_max: int, bytes_max: int) -> list[StoredTelemetry]:
        """Rows behind a position, in order; cut when `bytes_max` of payload are passed."""
        rows = self._rows(
            "SELECT position, vehicle_id, boot_id, seq, received_ms, payload, traceparent,"
            " gateway_boot, monotonic_ms FROM telemetry"
            " WHERE position > ? ORDER BY position LIMIT ?",
            (after, rows_max),
            bytes_max,
            payload=5,
        )
        return [StoredTelemetry(*row) for row in rows]

    def priority(self, *, after: int, rows_max: int, bytes_max: int) -> list[StoredPriority]:
        """As `telemetry`, of the priority lane."""
        rows = self._rows(
            "SELECT position, kind, message_key, received_ms, payload, traceparent"
            " FROM priority WHERE position > ? ORDER BY position LIMIT ?",
            (after, rows_max),
            bytes_max,
            payload=4,
        )
        return [StoredPriority(*row) for row in rows]

    def _rows(
        self, query: str, parameters: tuple[int, int], bytes_max: int, *, payload: int
    ) -> list[Row]:
        taken: list[Row] = []
        size = 0
        try:
            cursor = self._connection.execute(query, parameters)
            for row in cursor:
                taken.append(row)
                size += len(row[payload])
                if size >= bytes_max:
                    break
            cursor.close()
        except sqlite3.Error as error:
            raise translate(error, self._path) from error
        return taken

    def received_ms(self, position: int) -> int | None:
        """When the first row at or behind a position was received; None when there is none."""
        row = self._one(
            "SELECT received_ms FROM telemetry WHERE position >= ? ORDER BY position LIMIT 1",
            (position,),
        )
        return None if row is None else int(row[0])

    def first_position(self, lane: Lane) -> int | None:
        """Position of the oldest row that is still there; None when the lane is empty."""
        row = self._one(f"SELECT min(position) FROM {lane}", ())
        return None if row is None or row[0] is None else int(row[0])

    def _one(self, query: str, parameters: tuple[int, ...]) -> Row | None:
        try:
            row: Row | None = self._connection.execute(query, parameters).fetchone()
        except sqlite3.Error as error:
            raise translate(error, self._path) from error
        return row

    def alerts(self, *, unpublished_only: bool) -> list[AlertState]:
        """Newest states, oldest change first; as many as are open or lately closed."""
        where = "WHERE published = 0" if unpublished_only else ""
        try:
            rows = self._connection.execute(
                "SELECT vehicle_id, code, state, changed, payload FROM alerts"
                f" {where} ORDER BY changed"
            ).fetchall()
        except sqlite3.Error as error:
            raise translate(error, self._path) from error
        return [AlertState(*row) for row in rows]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
