"""The newest telemetry in memory, so that what was just stored is scored and sent without a read.

Holds rows in an unbroken run up to the newest one, and lets go of the oldest at a limit or when
every reader is past them.
"""

import threading

from edge.rows import StoredTelemetry

ROW_BYTES = 400
"""What a row takes in memory beside its payload, about."""


class Tail:
    """A bounded run of rows; safe for several threads.

    Args:
        bytes_max: Memory that it may take, about.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._rows: list[StoredTelemetry] = []
        self._bytes = 0

    def extend(self, rows: list[StoredTelemetry], *, done: int) -> None:
        """Add the newest rows; lets go of those up to `done`, and of what is too much."""
        added = sum(len(row.payload) for row in rows) + ROW_BYTES * len(rows)
        with self._lock:
            self._rows += rows
            self._bytes += added
            self._let_go(done)

    def forget(self, position: int) -> None:
        """Let go of the rows up to a position."""
        with self._lock:
            if self._rows:
                self._let_go(position)

    def _let_go(self, done: int) -> None:
        held, bytes_ = self._rows, self._bytes
        if held[0].position > done and bytes_ <= self._bytes_max:
            return
        # Some more than need be, so that it is not done again for each group.
        wanted = self._bytes_max if bytes_ <= self._bytes_max else self._bytes_max * 3 // 4
        at = min(max(0, done + 1 - held[0].position), len(held))
        bytes_ -= sum(len(row.payload) for row in held[:at]) + ROW_BYTES * at
        while bytes_ > wanted:
            bytes_ -= len(held[at].payload) + ROW_BYTES
            at += 1
        del held[:at]
        self._bytes = bytes_

    def read(self, after: int, *, rows_max: int, bytes_max: int) -> list[StoredTelemetry] | None:
        """Rows behind a position; None when the first of them is not in memory."""
        with self._lock:
            held = self._rows
            if not held or after + 1 < held[0].position:
                return None
            at = after + 1 - held[0].position
            rows = held[at : at + rows_max]
            all_fit = self._bytes - ROW_BYTES * len(held) < bytes_max
        return rows if all_fit else cut(rows, bytes_max)


def cut(rows: list[StoredTelemetry], bytes_max: int) -> list[StoredTelemetry]:
    """Rows up to the one with which `bytes_max` of payload are passed."""
    size = 0
    for count, row in enumerate(rows, 1):
        size += len(row.payload)
        if size >= bytes_max:
            return rows[:count]
    return rows
