"""The reading side of the spool."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge.rows import AlertState, Lane, StoredPriority, StoredTelemetry
from edge.spool.change import decode_rows_of_change
from edge.spool.errors import disk_errors
from edge.spool.framing import KINDS, ROW, Found
from edge.spool.log import SegmentLog
from edge.spool.recovery import Damage
from edge.spool.segment import Segment
from edge.spool.tail import Tail
from edge.spool.telemetry_codec import decode_row, received_ms_of
from edge.spool.walker import Walker


@dataclass(frozen=True, slots=True)
class Source:
    """What a reader sees of a spool.

    Attributes:
        path: Of the spool, for messages.
        logs: The lanes.
        tail: The newest telemetry.
        alerts: Kept alert states, oldest change first; True: only those to be published.
        on_damage: Told of rows that cannot be read, before the reader goes on behind them.
    """

    path: Path
    logs: Mapping[Lane, SegmentLog]
    tail: Tail
    alerts: Callable[[bool], list[AlertState]]
    on_damage: Callable[[Damage], None]


@dataclass(slots=True)
class _Cursor:
    """Where a reader of telemetry stands: behind a position, in the middle of a segment."""

    number: int
    after: int
    walker: Walker


class SpoolReader:
    """Reads the spool; belongs to one thread.

    What cannot be read is passed over, after it was accounted for. Every method raises SpoolError
    when the disk refuses.

    Args:
        source: Of the spool.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._telemetry = source.logs[Lane.TELEMETRY]
        self._cursor: _Cursor | None = None

    def telemetry(self, *, after: int, rows_max: int, bytes_max: int) -> list[StoredTelemetry]:
        """Rows behind a position, in order; cut when `bytes_max` of payload are passed."""
        rows = self._source.tail.read(after, rows_max=rows_max, bytes_max=bytes_max)
        if rows is not None:
            return rows
        with disk_errors(self._source.path):
            return self._stored(after, rows_max, bytes_max)

    def _stored(self, after: int, rows_max: int, bytes_max: int) -> list[StoredTelemetry]:
        rows: list[StoredTelemetry] = []
        size = 0
        while len(rows) < rows_max and size < bytes_max:
            segment = self._telemetry.find(after + 1)
            if segment is None:
                break
            walker = self._walker(segment, after)
            while len(rows) < rows_max and size < bytes_max:
                found = self._next(walker, segment, after)
                if found is None:
                    after = max(after, segment.last)
                    break
                if found.position <= after or found.flags & KINDS != ROW:
                    continue
                row = decode_row(found)
                rows.append(row)
                size += len(row.payload)
                after = found.position
            self._cursor = _Cursor(segment.number, after, walker)
        return rows

    def _walker(self, segment: Segment, after: int) -> Walker:
        cursor = self._cursor
        if cursor is not None and (cursor.number, cursor.after) == (segment.number, after):
            cursor.walker.end = segment.end
            return cursor.walker
        return self._telemetry.walker(segment, position=after + 1)

    def _next(self, walker: Walker, segment: Segment, after: int) -> Found | None:
        """The next frame of a segment; what is bad in front of it is told."""
        return next_told(
            self._telemetry, walker, segment, after=after, on_damage=self._source.on_damage
        )

    def priority(self, *, after: int, rows_max: int, bytes_max: int) -> list[StoredPriority]:
        """As `telemetry`, of the priority lane."""
        log = self._source.logs[Lane.PRIORITY]
        rows: list[StoredPriority] = []
        if after >= log.last:
            return rows
        size = 0
        with disk_errors(self._source.path):
            for found in frames_behind(log, after, on_damage=self._source.on_damage):
                for row in decode_rows_of_change(found.content, found.position):
                    if row.position <= after:
                        continue
                    rows.append(row)
                    size += len(row.payload)
                    if len(rows) >= rows_max or size >= bytes_max:
                        return rows
        return rows

    def received_ms(self, position: int) -> int | None:
        """When the first row at or behind a position was received; None when there is none."""
        held = self._source.tail.read(position - 1, rows_max=1, bytes_max=1)
        if held is not None:
            return held[0].received_ms if held else None
        on_damage = self._source.on_damage
        with disk_errors(self._source.path):
            for found in frames_behind(self._telemetry, position - 1, on_damage=on_damage):
                if found.flags & KINDS == ROW:
                    return received_ms_of(found)
        return None

    def first_position(self, lane: Lane) -> int | None:
        """Position of the oldest row that is still there; None when the lane is empty."""
        segment = self._source.logs[lane].find(1)
        return None if segment is None else segment.first

    def alerts(self, *, unpublished_only: bool) -> list[AlertState]:
        """Newest states, oldest change first; as many as are open or lately closed."""
        return self._source.alerts(unpublished_only)

    def close(self) -> None:
        """Let go of what was read ahead."""
        self._cursor = None


def frames_behind(
    log: SegmentLog, after: int, *, on_damage: Callable[[Damage], None]
) -> Iterator[Found]:
    """Frames with rows behind a position, in order, as far as they are shown now.

    Raises:
        OSError: A segment that is still there cannot be read.
    """
    while (segment := log.find(after + 1)) is not None:
        walker = log.walker(segment, position=after + 1)
        while (
            found := next_told(log, walker, segment, after=after, on_damage=on_damage)
        ) is not None:
            if found.position + found.rows - 1 > after:
                yield found
                after = found.position + found.rows - 1
        after = max(after, segment.last)


def next_told(
    log: SegmentLog,
    walker: Walker,
    segment: Segment,
    *,
    after: int,
    on_damage: Callable[[Damage], None],
) -> Found | None:
    """The next frame of a segment, or None at its end or when it was let go meanwhile.

    Args:
        log: The lane.
        walker: Stands in the segment.
        segment: Which.
        after: All rows up to here are known.
        on_damage: Told of rows behind `after` that are lost in front of the frame.

    Raises:
        OSError: The segment is there and cannot be read.
    """
    try:
        found = walker.next()
    except FileNotFoundError:
        if segment.number in {held.number for held in log.segments}:
            raise
        return None
    if found is None:
        if walker.at < walker.end and segment.last > after:
            lost = walker.end - walker.at
            on_damage(Damage(log.lane, segment.number, after + 1, segment.last, lost))
    elif found.skipped_from >= 0 and found.position > after + 1:
        lost = found.offset - found.skipped_from
        on_damage(Damage(log.lane, segment.number, after + 1, found.position - 1, lost))
    return found
