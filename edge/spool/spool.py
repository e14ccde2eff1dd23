"""The store of the gateway: what is in here is safe, and nothing else is.

Two lanes, each with positions of its own that only rise: `telemetry`, and `priority` for alerts,
dead letters, gap records and what else must never go. A row stays until it is in Kafka and
scored, and a while longer, so that the memory of the scorer can be rebuilt.

What is settled of each vehicle (`edge.identity`) is not written with every commit: the rows tell
it. It is saved now and then, with the position up to which it counts, and a start reads the rows
behind that position. So a commit writes nearly nothing but the messages themselves.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from edge.gaps import GapWriter
from edge.identity import Boots, IdentityBook
from edge.marks import Mark
from edge.rows import AlertState, Lane, Priority, Telemetry
from edge.spool.change import Change, pack_boots
from edge.spool.errors import disk_errors
from edge.spool.files import OS_FILES, Files
from edge.spool.framing import KINDS, ROW
from edge.spool.ledger import Ledger, bytes_of, named
from edge.spool.limits import SEGMENT_BYTES, SpoolLimits, spare
from edge.spool.opening import locked, open_spool
from edge.spool.reader import Source, SpoolReader, frames_behind
from edge.spool.recovery import Damage
from edge.spool.room import Room
from edge.spool.sqlite_import import take_over
from edge.spool.tail import Tail
from edge.spool.telemetry_codec import identity_of

CHECKPOINT_MESSAGES = 20_000
"""Identity is saved after at most so many stored messages; a start reads no more than that."""

TAIL_BYTES = 4 * 1024 * 1024
"""Memory for the newest telemetry."""


class Spool:
    """The writing side of the store. Safe for several threads.

    Args:
        path: Its directory, which is made.
        now_ms: Wall time, to name what is moved aside and for gap records.
        files: The disk.
        limits: How much of the disk it may take; None: as much as there is.
        gateway_id: Written into gap records.

    Raises:
        SettingsError: Another process has it open, or its format is of a later version.
        SpoolError: The disk refuses.
    """

    def __init__(
        self,
        path: Path,
        *,
        now_ms: int,
        files: Files = OS_FILES,
        limits: SpoolLimits | None = None,
        gateway_id: str = "",
    ) -> None:
        self.path = path
        self._file_lock = locked(path, files)
        try:
            moved_aside = take_over(path, files=files, now_ms=now_ms)
            segment_bytes = SEGMENT_BYTES if limits is None else limits.segment_bytes
            opened = open_spool(
                path, self._file_lock, files=files, segment_bytes=segment_bytes, now_ms=now_ms
            )
        except BaseException:
            self._file_lock.close()
            raise
        self.moved_aside = moved_aside or opened.moved_aside
        self._lock = threading.RLock()
        self._snapshot_lock = threading.Lock()
        self._grown = threading.Condition()
        self._closed = False
        self._tail = Tail(TAIL_BYTES)
        self._ledger = Ledger(files, opened, self._tail)
        self.spool_id = opened.state.spool_id
        self.marks = self._ledger.marks
        gaps = GapWriter(gateway_id, self.spool_id)
        self._room = Room(files, self._ledger, limits, gaps=gaps, now_ms=now_ms)
        self._room.news += opened.news
        with disk_errors(path):
            self._room.open()
            for damage in opened.damages:
                self._found_damage(damage)
        self.last_at_open = {lane: self.last(lane) for lane in Lane}

    def reader(self) -> SpoolReader:
        """A reading side, for one thread."""
        return SpoolReader(
            Source(self.path, self._ledger.logs, self._tail, self._alerts, self._found_damage)
        )

    def last(self, lane: Lane) -> int:
        """Highest position on the disk; 0 when the lane was never used."""
        return self._ledger.logs[lane].last

    def depth(self) -> int:
        """Rows that are not known to be in Kafka."""
        return sum(max(0, self.last(lane) - self._ledger.settled(lane)) for lane in Lane)

    def size_bytes(self) -> int:
        """Bytes of the disk that it takes, about."""
        return self._room.size_bytes

    @property
    def quota_bytes(self) -> int:
        """The quota that holds now: as configured, or more while more than that is unsent."""
        return self._room.quota.effective

    @property
    def drops(self) -> dict[str, int]:
        """Batches that were given up since the spool was made, by reason (`edge.gaps`)."""
        with self._lock:
            return dict(self._ledger.state.drops)

    def take_news(self) -> list[str]:
        """What happened that somebody should hear of, in words; clears it."""
        with self._lock:
            news = list(self._room.news)
            self._room.news.clear()
        return news

    def change_limits(self, limits: SpoolLimits) -> None:
        """Take other limits, of which those of segments hold from the next start on.

        A lower quota discards nothing: it holds once what is unsent fits.

        Raises:
            SpoolError: The disk refuses.
        """
        with self._lock, disk_errors(self.path):
            self._room.change_limits(limits)

    def tell_sent(self, is_sent: Callable[[int], bool]) -> None:
        """Say how to know of telemetry that is in Kafka behind the forwarded mark.

        Args:
            is_sent: Whether the row at a position is; called under the spool's lock.
        """
        self._room.is_sent = is_sent

    # -- writing

    def _commit(self, telemetry: Sequence[Telemetry], change: Change) -> None:
        with self._lock, disk_errors(self.path):
            try:
                if telemetry:
                    self._room.now_ms = telemetry[-1].received_ms
                may_refuse = bool(telemetry or change.rows)
                self._room.make(bytes_of(telemetry, change), may_refuse=may_refuse)
                self._ledger.commit(telemetry, change)
            except OSError as error:
                self._room.refused(error)
                raise
            self._room.written()
        if telemetry or change.rows:
            self._tell_waiting()

    def _tell_waiting(self) -> None:
        with self._grown:
            self._grown.notify_all()

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
        """
        with self._lock:
            end = self.last(Lane.TELEMETRY) + len(telemetry)
            due = save_identity or end - self.marks[Mark.IDENTITY] >= CHECKPOINT_MESSAGES
            self._commit(
                telemetry, _with_identities(priority, book, end) if due else Change(priority)
            )
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
        """
        self._commit((), Change(priority, {Mark.SCORED: scored}, alerts=states))

    def store_priority(
        self, priority: Sequence[Priority], marks: Mapping[Mark, int] | None = None
    ) -> None:
        """Put records into the priority lane, and marks that go with them. Raises as `store`."""
        self._commit((), Change(priority, named(marks or {})))

    def alerts_published(self, states: Sequence[AlertState]) -> None:
        """MQTT holds these states, unless they have changed since."""
        self._commit((), Change(published=[state._replace(payload=b"") for state in states]))

    def save(self, book: IdentityBook | None = None) -> None:
        """Write the marks, and the identities when given, as on a clean stop."""
        if book is not None:
            self.store((), (), book, save_identity=True)
            return
        with self._lock:
            self._commit((), Change(marks=named(self.marks.moved())))

    def trim(self, lane: Lane, *, through: int) -> int:
        """Delete the oldest segments of which all rows are up to a position; returns how many.

        Never beyond what is known to be in Kafka, and for telemetry scored and counted into the
        saved identities, whatever is asked; and never the segment that is being written.
        """
        with self._lock:
            bounds = [through, self._ledger.settled(lane)]
            if lane is Lane.TELEMETRY:
                bounds += [self.marks[Mark.SCORED], self.marks.durable(Mark.IDENTITY)]
            log = self._ledger.logs[lane]
            segments = spare(log.sealed, through=min(bounds))
            if lane is Lane.PRIORITY:
                oldest = self._ledger.oldest_needed(is_pressed=self._room.is_pressed)
                segments = [segment for segment in segments if segment.number < oldest]
            if segments:
                # What lets them go has to be on the disk before they are gone.
                self._commit((), self._ledger.all_marks())
                with disk_errors(self.path):
                    self._ledger.drop(lane, segments)
            return len(segments)

    def tend(self) -> None:
        """Housekeeping, about once a second: the snapshot and the indexes that are due.

        Raises:
            SpoolError: The disk refuses for now.
        """
        with self._lock, disk_errors(self.path):
            for log in self._ledger.logs.values():
                log.write_indexes()
            self._room.tend()
            due = self._ledger.snapshot_due() or self._room.is_pressed
        if due:
            self.take_snapshot()

    def take_snapshot(self) -> None:
        """Write what the logs add up to, so that they need not be kept or read again.

        Raises:
            SpoolError: The disk refuses for now.
        """
        with self._snapshot_lock, disk_errors(self.path):
            with self._lock:
                begun = self._ledger.begin_snapshot()
            if begun is None:
                return
            number, state = begun
            snapshot = self._ledger.write_snapshot(number, state)
            with self._lock:
                self._ledger.adopt(snapshot, state)

    # -- waiting and reading

    def wait_beyond(self, positions: dict[Lane, int], *, timeout_s: float) -> bool:
        """Wait until a lane has a row behind the given position; False after the time-out."""

        def grown() -> bool:
            return self._closed or any(self.last(lane) > at for lane, at in positions.items())

        with self._grown:
            return self._grown.wait_for(grown, timeout_s) and not self._closed

    def wake(self) -> None:
        """Let every waiting thread look at its stop signal."""
        with self._grown:
            self._closed = True
            self._grown.notify_all()

    def _alerts(self, unpublished_only: bool) -> list[AlertState]:
        with self._lock:
            kept = list(self._ledger.state.alerts.values())
        states = [each.state for each in kept if not (unpublished_only and each.published)]
        return sorted(states, key=lambda state: state.changed)

    def _found_damage(self, damage: Damage) -> None:
        """Account for rows that cannot be read; raises OSError when that cannot be written."""
        with self._lock:
            self._room.found_damage(damage)
        self._tell_waiting()

    def load_boots(self, vehicle_id: str) -> Boots:
        """The saved identities of a vehicle; empty for an unknown one."""
        with self._lock, disk_errors(self.path):
            return self._ledger.boots(vehicle_id)

    def identity_book(self, *, vehicles_max: int, shared: bool = False) -> IdentityBook:
        """What is settled, as the disk tells it; the arguments are those of `IdentityBook`."""
        book = IdentityBook(self.load_boots, vehicles_max=vehicles_max, shared=shared)
        book.vehicle_drops = self.marks[Mark.VEHICLE_DROPS]
        log, after = self._ledger.telemetry, self.marks[Mark.IDENTITY]
        with disk_errors(self.path):
            for found in frames_behind(log, after, on_damage=self._found_damage):
                if found.flags & KINDS == ROW:
                    book.admit(*identity_of(found))
        return book

    def close(self) -> None:
        """Close the files and let another process in. Stores nothing."""
        self.wake()
        with self._lock:
            self._ledger.close()
        self._file_lock.close()


def _with_identities(priority: Sequence[Priority], book: IdentityBook, end: int) -> Change:
    return Change(
        priority,
        {Mark.IDENTITY: end, Mark.VEHICLE_DROPS: book.vehicle_drops},
        identities=[(vehicle_id, pack_boots(boots)) for vehicle_id, boots in book.unsaved()],
    )
