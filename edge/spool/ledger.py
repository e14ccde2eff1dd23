"""Writing to the spool: groups of both lanes, all of a group or nothing of it.

Telemetry goes first, then what stands for it (identities, marks, records of the priority lane).
Should the second part fail, the first is taken back; should the power go in between, telemetry is
there that nobody was promised, and its vehicle's next try is recognised as a repetition.

The spool's lock is held for all of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edge.identity import Boots
from edge.marks import Mark, Marks
from edge.rows import Lane, StoredTelemetry, Telemetry
from edge.spool.change import Change, encode_change, unpack_boots
from edge.spool.files import Files
from edge.spool.framing import BEGINS_GROUP
from edge.spool.opening import Opened
from edge.spool.segment import HEADER_BYTES, Segment
from edge.spool.snapshot import Snapshot, remove_older, write_snapshot
from edge.spool.state import State, merge
from edge.spool.tail import Tail
from edge.spool.telemetry_codec import ROW_BYTES, encode_hints, encode_rows

SNAPSHOT_LOG_BYTES = 1024 * 1024
SNAPSHOT_LOG_SHARE = 4
"""A snapshot is due when the priority log has grown by so many times its size, or by
SNAPSHOT_LOG_BYTES if that is more."""


class Ledger:
    """The logs, the state, and the snapshots of an open spool.

    Args:
        files: The disk.
        opened: The spool.
        tail: Gets what is stored.
    """

    def __init__(self, files: Files, opened: Opened, tail: Tail) -> None:
        self._files = files
        self._tail = tail
        self.logs = opened.logs
        self.telemetry = opened.logs[Lane.TELEMETRY]
        self.priority = opened.logs[Lane.PRIORITY]
        self.directory = self.telemetry.directory.parent
        self.state = opened.state
        self.marks = Marks({**opened.state.marks, **self._only_beside_telemetry()})
        self.snapshot = opened.snapshot
        self.snapshot_bytes = 0 if opened.snapshot is None else opened.snapshot.size
        self.oldest_snapshot = opened.oldest_snapshot
        self._since_bytes = self._log_bytes_since()

    def _log_bytes_since(self) -> int:
        since = 0 if self.snapshot is None else self.snapshot.number
        return sum(held.end for held in self.priority.segments if held.number >= since)

    def _only_beside_telemetry(self) -> dict[str, int]:
        """Marks that would go with the segments of telemetry, which alone hold them."""
        kept = self.state.marks
        hints = self.telemetry.hints
        return {name: value for name, value in hints.items() if value > kept.get(name, 0)}

    def all_marks(self) -> Change:
        """What has to be on the disk before any segment goes: may be nothing."""
        return Change(marks={**self._only_beside_telemetry(), **named(self.marks.moved())})

    # -- groups

    def commit(self, telemetry: Sequence[Telemetry], change: Change) -> None:
        """Put a group on the disk.

        Raises:
            OSError: Nothing of it is stored.
        """
        hints = self.marks.moved()
        marks = {**hints, **_by_mark(change.marks)}
        whole = replace(change, marks=named(marks))
        rows: list[StoredTelemetry] = []
        try:
            if telemetry:
                rows = self._append_telemetry(telemetry, {} if change else hints)
            if change:
                self._append_change(whole)
        except BaseException:
            self.telemetry.undo()
            self.priority.undo()
            raise
        if telemetry:
            self.telemetry.show()
            self.telemetry.note_hints(named(hints))
            self._tail.extend(rows, done=self._done())
        if change:
            self.priority.show()
            self.state.apply(whole)
        self.marks.written(marks if change else hints if telemetry else {})

    def _append_telemetry(
        self, telemetry: Sequence[Telemetry], hints: Mapping[Mark, int]
    ) -> list[StoredTelemetry]:
        log = self.telemetry
        seed = log.begin(now_ms=telemetry[0].received_ms)
        first = log.last + 1
        data = encode_rows(telemetry, seed=seed, position=first)
        if hints:
            data += encode_hints(named(hints), seed=seed, position=first + len(telemetry))
        received_ms = [row.received_ms for row in telemetry]
        log.append(data, rows=len(telemetry), received_ms=received_ms)
        return [
            StoredTelemetry(position, vehicle, boot, seq, received, payload, trace, number, mono)
            for position, (
                vehicle, boot, seq, _, received, payload, trace, number, mono,
            ) in enumerate(telemetry, first)
        ]  # fmt: skip

    def _append_change(self, change: Change) -> None:
        log = self.priority
        seed = log.begin()
        data = encode_change(change, seed=seed, flags=BEGINS_GROUP, position=log.last + 1)
        log.append(data, rows=len(change.rows))
        self._since_bytes += len(data)

    def _done(self) -> int:
        """Up to where nobody reads telemetry any more, but for history."""
        return min(self.settled(Lane.TELEMETRY), self.marks[Mark.SCORED])

    def settled(self, lane: Lane) -> int:
        """Up to which position there is nothing to forward any more."""
        forwarded = self.marks[Mark.forwarded(lane)]
        return forwarded if lane is Lane.PRIORITY else max(forwarded, self.marks[Mark.GIVEN_UP])

    def drop(self, lane: Lane, segments: Sequence[Segment]) -> None:
        """Delete segments; raises OSError, and then those in front of the bad one are gone."""
        self.logs[lane].drop(segments)
        if lane is Lane.TELEMETRY:
            self._tail.forget(max(segment.last for segment in segments))

    # -- sizes

    @property
    def bytes(self) -> int:
        """Of the logs and the newest snapshots, about."""
        return self.telemetry.bytes + self.priority.bytes + 2 * self.snapshot_bytes

    # -- identities

    def boots(self, vehicle_id: str) -> Boots:
        """What is settled of a vehicle, as last saved; empty for an unknown one.

        Raises:
            OSError: The snapshot cannot be read.
            SpoolError: It is damaged.
        """
        packed = self.state.identities.get(vehicle_id)
        if packed is None and self.snapshot is not None:
            packed = self.snapshot.boots(self._files, vehicle_id)
        return {} if packed is None else unpack_boots(packed)

    # -- snapshots

    def snapshot_due(self) -> bool:
        """Whether the priority log has grown enough since the last one."""
        limit = max(SNAPSHOT_LOG_BYTES, SNAPSHOT_LOG_SHARE * self.snapshot_bytes)
        return self.snapshot is None or self._since_bytes >= limit

    def oldest_needed(self, *, is_pressed: bool) -> int:
        """Number of the first segment of the priority lane that a start may have to read.

        Args:
            is_pressed: Room is wanted so much that the snapshot before the newest one, which is
                there in case that is damaged, may not keep any.
        """
        newest = self.oldest_snapshot if self.snapshot is None else self.snapshot.number
        return newest if is_pressed else self.oldest_snapshot

    def begin_snapshot(self) -> tuple[int, State] | None:
        """Number and content of a snapshot as of now; None when nothing came since the last one."""
        self.priority.cut()
        number = self.priority.next_number
        if self.snapshot is not None and self.snapshot.number == number:
            return None
        state = self.state.copy()
        state.marks = {mark.value: self.marks.durable(mark) for mark in Mark}
        state.lasts = {lane: log.last for lane, log in self.logs.items()}
        self._since_bytes = 0
        return number, state

    def write_snapshot(self, number: int, state: State) -> Snapshot:
        """Put it on the disk; the lock need not be held.

        Raises:
            OSError: The disk refuses.
            SpoolError: The identities of the snapshot before cannot be read.
        """
        return write_snapshot(self._files, self.directory, number, state, self.snapshot)

    def adopt(self, snapshot: Snapshot, state: State) -> None:
        """Go on from a snapshot that is on the disk."""
        self.snapshot, self.snapshot_bytes = snapshot, snapshot.size
        snapshot.state = State(state.spool_id)
        merge(self.state.marks, state.marks)
        held = self.state.identities
        for vehicle_id, boots in state.identities.items():
            if held.get(vehicle_id) is boots:
                del held[vehicle_id]
        self.oldest_snapshot = remove_older(self._files, self.directory, newest=snapshot.number)

    def close(self) -> None:
        """Seal both lanes."""
        for log in self.logs.values():
            log.close()


def named(marks: Mapping[Mark, int]) -> dict[str, int]:
    """Marks by their names."""
    return {mark.value: value for mark, value in marks.items()}


def _by_mark(marks: Mapping[str, int]) -> dict[Mark, int]:
    return {Mark(name): value for name, value in marks.items()}


def bytes_of(telemetry: Sequence[Telemetry], change: Change) -> int:
    """What a group takes on the disk, about."""
    rows = sum(len(row.payload) for row in telemetry) + (ROW_BYTES + 32) * len(telemetry)
    records = sum(len(row.payload) + 128 for row in change.rows)
    states = sum(len(state.payload) + 64 for state in (*change.alerts, *change.published))
    identities = sum(len(boots) + 32 for _, boots in change.identities)
    return rows + records + states + identities + HEADER_BYTES
