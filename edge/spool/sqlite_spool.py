"""The store of the gateway in one SQLite file.

Two lanes, each with positions of its own that only rise: `telemetry`, and `priority` for alerts,
dead letters and labels. A row stays until it is in Kafka and scored, and a while longer, so that
the memory of the scorer can be rebuilt.

What is settled of each vehicle (`edge.identity`) is not written with every commit: the rows tell
it. It is saved now and then, with the position up to which it counts, and a start reads the rows
behind that position. So a commit writes nearly nothing but the messages themselves.

One connection writes, under a lock; each reading thread has a connection of its own. All writes
are transactions that are on the disk when the call returns, or have not happened.
"""

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from edge.identity import Boots, BootState, IdentityBook
from edge.marks import Mark, Marks
from edge.rows import AlertState, Lane, Priority, Telemetry
from edge.spool_reader import SpoolReader
from edge.spool_schema import open_file, translate

CHECKPOINT_MESSAGES = 20_000
"""Identity is saved after at most so many stored messages; a start reads no more than that."""

CLOSED_ALERTS_KEPT = 1_000
"""Closed alerts remembered, so that a broker which lost its memory is told again."""

VACUUM_PAGES = 256

_FORGET_CLOSED = """
    DELETE FROM alerts WHERE state = 'CLOSED' AND published = 1 AND changed < (
        SELECT changed FROM alerts WHERE state = 'CLOSED' ORDER BY changed DESC LIMIT 1 OFFSET ?)
"""


class Spool:
    """The writing side of the store. Safe for several threads.

    Args:
        path: The SQLite file; its directory is made.
        now_ms: Wall time, only to name a damaged predecessor.

    Raises:
        SettingsError: Another process has it open, or its format is of a later version.
        SpoolError: The disk refuses.
    """

    def __init__(self, path: Path, *, now_ms: int) -> None:
        opened = open_file(path, now_ms=now_ms)
        self.path = path
        self.moved_aside = opened.moved_aside
        self._writer = opened.connection
        self._lock_file: IO[bytes] = opened.lock
        self._lock = threading.Lock()
        self._grown = threading.Condition()
        self._closed = False
        self.spool_id: str = self._writer.execute("SELECT spool_id FROM spool").fetchone()[0]
        self.marks = Marks(dict(self._writer.execute("SELECT name, value FROM marks").fetchall()))
        self._last = {lane: self._last_in(lane) for lane in Lane}
        self.last_at_open = dict(self._last)
        self._growing = dict.fromkeys(Lane, 0)

    def _last_in(self, lane: Lane) -> int:
        """Highest position ever given: rows are only deleted below these marks."""
        row = self._writer.execute(f"SELECT max(position) FROM {lane}").fetchone()
        below = [self.marks[Mark.forwarded(lane)]]
        if lane is Lane.TELEMETRY:
            below.append(self.marks[Mark.SCORED])
        return max(row[0] or 0, *below, 0)

    def reader(self) -> SpoolReader:
        """A reading side with a connection of its own, for one thread."""
        return SpoolReader(self.path)

    def last(self, lane: Lane) -> int:
        """Highest position on the disk; 0 when the lane was never used."""
        return self._last[lane]

    def depth(self) -> int:
        """Rows that are not known to be in Kafka."""
        return sum(self._last[lane] - self.marks[Mark.forwarded(lane)] for lane in Lane)

    def size_bytes(self) -> int:
        """Bytes of the file and its write-ahead log."""
        files = (self.path, self.path.with_name(self.path.name + "-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    # -- writing

    @contextmanager
    def _transaction(self, marks: Mapping[Mark, int] | None = None) -> Iterator[sqlite3.Connection]:
        """All or nothing, on the disk when left; also writes `marks` and the hints that moved."""
        with self._lock:
            moved = {**self.marks.moved(), **(marks or {})}
            self._growing = dict.fromkeys(Lane, 0)
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                yield self._writer
                self._writer.executemany(
                    "INSERT OR REPLACE INTO marks VALUES (?, ?)", list(moved.items())
                )
                self._writer.execute("COMMIT")
            except BaseException as error:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise translate(error, self.path) from error
                raise
            self.marks.written(moved)
            self._advance()

    def store(
        self,
        telemetry: Sequence[Telemetry],
        priority: Sequence[Priority],
        book: IdentityBook,
        *,
        save_identity: bool = False,
    ) -> None:
        """Put one group on the disk.

        Args:
            telemetry: New batches, already admitted by `book`.
            priority: Records for the priority lane.
            book: Owner of the identities; saved when it is due.
            save_identity: Save it now, because it holds what the rows do not tell (a batch that
                was settled as a dead letter).

        Raises:
            SpoolError: Nothing was stored; the same call may be tried again.
            SpoolDamagedError: The file is broken.
        """
        end = self._last[Lane.TELEMETRY] + len(telemetry)
        due = save_identity or end - self.marks[Mark.IDENTITY] >= CHECKPOINT_MESSAGES
        marks = {Mark.IDENTITY: end, Mark.VEHICLE_DROPS: book.vehicle_drops} if due else {}
        with self._transaction(marks) as connection:
            self._insert_telemetry(connection, telemetry)
            self._insert_priority(connection, priority)
            if due:
                self._save_identity(connection, book)
        if due:
            book.saved()

    def store_alerts(
        self, priority: Sequence[Priority], states: Sequence[AlertState], *, scored: int
    ) -> None:
        """Put alerts on the disk together with how far telemetry has been scored.

        Args:
            priority: The alert records for Kafka.
            states: The newest state per vehicle and code, for MQTT; at most one each.
            scored: Position of the last telemetry row that the alerts take into account.

        Raises:
            SpoolError: Nothing was stored; the same call may be tried again.
            SpoolDamagedError: The file is broken.
        """
        with self._transaction({Mark.SCORED: scored}) as connection:
            self._insert_priority(connection, priority)
            connection.executemany(
                "INSERT OR REPLACE INTO alerts VALUES (?, ?, ?, ?, 0, ?)", states
            )
            connection.execute(_FORGET_CLOSED, (CLOSED_ALERTS_KEPT,))

    def store_priority(
        self, priority: Sequence[Priority], marks: Mapping[Mark, int] | None = None
    ) -> None:
        """Put records into the priority lane, and marks that go with them. Raises as `store`."""
        with self._transaction(marks) as connection:
            self._insert_priority(connection, priority)

    def alerts_published(self, states: Sequence[AlertState]) -> None:
        """MQTT holds these states, unless they have changed since."""
        with self._transaction() as connection:
            connection.executemany(
                "UPDATE alerts SET published = 1"
                " WHERE vehicle_id = ? AND code = ? AND state = ? AND changed = ?",
                [state[:4] for state in states],
            )

    def save(self, book: IdentityBook | None = None) -> None:
        """Write the marks, and the identities when given, as on a clean stop."""
        if book is not None:
            self.store((), (), book, save_identity=True)
        else:
            with self._transaction():
                pass

    def trim(self, lane: Lane, *, through: int, rows_max: int) -> int:
        """Delete up to `rows_max` of the oldest rows up to a position; returns how many.

        Never beyond what is known to be in Kafka, and for telemetry scored and counted into the
        saved identities, whatever is asked.
        """
        bounds = [through, self.marks.durable(Mark.forwarded(lane))]
        if lane is Lane.TELEMETRY:
            bounds += [self.marks.durable(Mark.SCORED), self.marks.durable(Mark.IDENTITY)]
        with self._transaction() as connection:
            first = connection.execute(f"SELECT min(position) FROM {lane}").fetchone()[0]
            if first is None:
                return 0
            end = min(*bounds, first + rows_max - 1)
            count = connection.execute(f"DELETE FROM {lane} WHERE position <= ?", (end,)).rowcount
            connection.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()
        return count

    def _insert_telemetry(self, connection: sqlite3.Connection, rows: Sequence[Telemetry]) -> None:
        start = self._last[Lane.TELEMETRY] + 1
        connection.executemany(
            "INSERT INTO telemetry VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [(position, *row) for position, row in enumerate(rows, start)],
        )
        self._growing[Lane.TELEMETRY] += len(rows)

    def _insert_priority(self, connection: sqlite3.Connection, rows: Sequence[Priority]) -> None:
        start = self._last[Lane.PRIORITY] + 1
        connection.executemany(
            "INSERT INTO priority VALUES (?, ?, ?, ?, ?, ?)",
            [(position, *row) for position, row in enumerate(rows, start)],
        )
        self._growing[Lane.PRIORITY] += len(rows)

    def _save_identity(self, connection: sqlite3.Connection, book: IdentityBook) -> None:
        unsaved = book.unsaved()
        connection.executemany(
            "DELETE FROM identity WHERE vehicle_id = ? AND boot_id < ?",
            [(vehicle_id, min(boots)) for vehicle_id, boots in unsaved if boots],
        )
        connection.executemany(
            "INSERT OR REPLACE INTO identity VALUES (?, ?, ?, ?)",
            [
                (vehicle_id, boot_id, state.contiguous, state.pack_ranges())
                for vehicle_id, boots in unsaved
                for boot_id, state in boots.items()
            ],
        )

    def _advance(self) -> None:
        """Show what was committed; the lock is still held, so positions are given once."""
        if any(self._growing.values()):
            with self._grown:
                for lane, count in self._growing.items():
                    self._last[lane] += count
                self._grown.notify_all()

    # -- waiting and reading

    def wait_beyond(self, positions: dict[Lane, int], *, timeout_s: float) -> bool:
        """Wait until a lane has a row behind the given position; False after the time-out."""

        def grown() -> bool:
            return self._closed or any(self._last[lane] > at for lane, at in positions.items())

        with self._grown:
            return self._grown.wait_for(grown, timeout_s) and not self._closed

    def wake(self) -> None:
        """Let every waiting thread look at its stop signal."""
        with self._grown:
            self._closed = True
            self._grown.notify_all()

    def load_boots(self, vehicle_id: str) -> Boots:
        """The saved identities of a vehicle; empty for an unknown one."""
        with self._lock:
            rows = self._writer.execute(
                "SELECT boot_id, contiguous, ranges FROM identity WHERE vehicle_id = ?",
                (vehicle_id,),
            ).fetchall()
        return {boot_id: BootState.unpack(upto, ranges) for boot_id, upto, ranges in rows}

    def identity_book(self, *, vehicles_max: int) -> IdentityBook:
        """What is settled, as the disk tells it."""
        book = IdentityBook(self.load_boots, vehicles_max=vehicles_max)
        book.vehicle_drops = self.marks[Mark.VEHICLE_DROPS]
        cursor = self._writer.cursor().execute(
            "SELECT vehicle_id, boot_id, seq, oldest_seq FROM telemetry"
            " WHERE position > ? ORDER BY position",
            (self.marks[Mark.IDENTITY],),
        )
        for vehicle_id, boot_id, seq, oldest_seq in cursor.fetchall():
            book.admit(vehicle_id, boot_id, seq, oldest_seq)
        return book

    def close(self) -> None:
        """Close the file and let another process in. Stores nothing."""
        self.wake()
        with self._lock:
            self._writer.close()
        self._lock_file.close()
