"""What a log comes to after anything: a clean stop, a power cut, a failing card.

From the newest segment to the oldest. Each says how much of the one before it counts, so what was
written there after that, and was never acknowledged, stays out. The newest has nobody to say so:
of that one all counts up to its first bad frame, unless a later group follows. A group is written
only when the one before it is safe, so then the bad frame was safe once, and is damage.

Of the newest segment the last group is in doubt even when it can be read: a program that was
killed before its sync leaves it in the memory of the machine, where the next one reads it, and
the power may still take it away. It is written again before anybody hears of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from edge.rows import Lane
from edge.spool.files import Files
from edge.spool.framing import BEGINS_GROUP, HINTS, KINDS, ROW, Found, seed_of
from edge.spool.segment import (
    HEADER_BYTES,
    INDEX_SUFFIX,
    SEGMENT_SUFFIX,
    Header,
    Index,
    Segment,
    Sparse,
    decode_header,
    decode_index,
    index_name,
    number_of,
    segment_name,
)
from edge.spool.telemetry_codec import decode_hints, received_ms_of
from edge.spool.walker import Walker


@dataclass(frozen=True, slots=True)
class Damage:
    """Rows that were safe once and cannot be read any more.

    Attributes:
        lane: Which log.
        number: Of the segment.
        first: Lowest position that is lost.
        last: Highest.
        bytes: How much could not be read.
    """

    lane: Lane
    number: int
    first: int
    last: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Doubt:
    """The last group of a segment that was not sealed.

    Attributes:
        number: Of the segment.
        offset: Where the group begins.
        end: Where it ends.
    """

    number: int
    offset: int
    end: int


@dataclass(slots=True)
class Recovered:
    """A log as found.

    Attributes:
        segments: What counts, ascending.
        scanned: Indexes of those that had none.
        hints: The newest marks.
        damages: What is lost.
        doubt: What is to be written again; `segments` go without it.
        leftovers: Names of files that count for nothing.
        highest: Highest number that any file has.
    """

    segments: list[Segment] = field(default_factory=list)
    scanned: dict[int, Index] = field(default_factory=dict)
    hints: dict[str, int] = field(default_factory=dict)
    damages: list[Damage] = field(default_factory=list)
    doubt: Doubt | None = None
    leftovers: list[str] = field(default_factory=list)
    highest: int = 0


@dataclass(frozen=True, slots=True)
class _Bound:
    """What a newer segment says of an older one.

    Attributes:
        previous: The segment that it speaks of; None when it says nothing.
        end: How many bytes of that one count.
        first: Position at which the newer one begins.
    """

    previous: int | None = None
    end: int = 0
    first: int = 0


def recover(files: Files, directory: Path, lane: Lane, spool_id: str) -> Recovered:
    """Look at a log; changes nothing.

    Raises:
        OSError: The directory or a file cannot be read.
    """
    names = files.names(directory)
    numbers = sorted(n for name in names if (n := number_of(name, SEGMENT_SUFFIX)) is not None)
    result = Recovered(highest=max(numbers, default=0))
    reading = _Reading(files, directory, lane, spool_id, result)
    bound: _Bound | None = None
    for number in reversed(numbers):
        if bound is not None and bound.previous is not None and number > bound.previous:
            result.leftovers.append(segment_name(number))
            continue
        bound = reading.take(number, bound)
    result.segments.reverse()
    kept = {segment.number for segment in result.segments}
    result.leftovers += [name for name in names if _is_no_part(name, kept)]
    return result


def _is_no_part(name: str, kept: set[int]) -> bool:
    """An index without its segment, or a file that was not finished."""
    if number_of(name, SEGMENT_SUFFIX) is not None:
        return False
    return number_of(name, INDEX_SUFFIX) not in kept


@dataclass(slots=True)
class _Reading:
    files: Files
    directory: Path
    lane: Lane
    spool_id: str
    result: Recovered

    def take(self, number: int, bound: _Bound | None) -> _Bound | None:
        """Add a segment; returns what it says of the one before, or what was said already."""
        index = self._index(number)
        if index is None:
            index = self._scan(number, bound)
            if index is None:
                self.result.leftovers.append(segment_name(number))
                return bound
            self.result.scanned[number] = index
        segment = index.segment
        if bound is not None and bound.previous == number:
            segment = replace(segment, end=min(segment.end, bound.end))
        self.result.segments.append(segment)
        merge_hints(self.result.hints, index.hints)
        known = segment.previous_end > 0 or segment.previous > 0
        return _Bound(segment.previous if known else None, segment.previous_end, segment.first)

    def _index(self, number: int) -> Index | None:
        path = self.directory / index_name(number)
        try:
            data = self.files.read(path, 0, self.files.size(path))
        except FileNotFoundError:
            return None
        return decode_index(data, spool_id=self.spool_id, lane=self.lane, number=number)

    def _scan(self, number: int, bound: _Bound | None) -> Index | None:
        """Read a segment through; None when it is the beginning of one that never counted."""
        path = self.directory / segment_name(number)
        header = self._header(number)
        end = self.files.size(path)
        is_told = bound is not None and bound.previous == number
        if bound is not None and is_told:
            end = min(end, bound.end)
        seed = seed_of(self.spool_id, self.lane, number)
        walker = Walker(self.files, path, seed=seed, offset=HEADER_BYTES, end=max(end, 0))
        scan = Scan(self.lane, number, first=None if header is None else header.first)
        at = walker.at
        while (found := walker.next()) is not None:
            if bound is not None and found.rows and found.position >= bound.first:
                end = at  # the successor has these rows: here they were never acknowledged
                break
            scan.add(found)
            at = walker.at
        if bound is None:
            self.result.doubt = scan.end_open()
        else:
            scan.end_told(at, end, next_first=bound.first)
        if header is None and not scan.held_any and self.result.doubt is None and bound is None:
            return None
        self.result.damages += scan.damages
        return scan.index(header)

    def _header(self, number: int) -> Header | None:
        path = self.directory / segment_name(number)
        header = decode_header(self.files.read(path, 0, HEADER_BYTES))
        if header is None or (header.spool_id, header.lane) != (self.spool_id, self.lane):
            return None
        return header if header.number == number else None


@dataclass(slots=True)
class _Sums:
    """What the frames up to some place add up to."""

    first: int | None
    next: int | None
    end: int = HEADER_BYTES
    oldest_ms: int | None = None
    newest_ms: int = 0
    held_any: bool = False
    hints: dict[str, int] = field(default_factory=dict)

    def copy(self) -> "_Sums":
        """As they are now."""
        return replace(self, hints=dict(self.hints))


class Scan:
    """Adds up the frames of a segment, and decides what a bad place is.

    Args:
        lane: Which log.
        number: Of the segment.
        first: Position at which it begins; None when its header is lost.
    """

    def __init__(self, lane: Lane, number: int, *, first: int | None) -> None:
        self._lane = lane
        self._number = number
        self._sums = _Sums(first=None, next=first)
        self._begin = first
        self._sparse = Sparse()
        self._doubtful: list[Damage] = []
        self._before_doubt: _Sums | None = None
        self._group_at = HEADER_BYTES
        self._before_group: _Sums | None = None
        self.damages: list[Damage] = []

    @property
    def held_any(self) -> bool:
        """Whether any frame counts."""
        return self._sums.held_any

    def add(self, found: Found) -> None:
        """The next good frame."""
        if self._begin is None:
            self._begin = found.position
        if found.skipped_from >= 0:
            self._doubt(found)
        if found.flags & BEGINS_GROUP:
            self._settle()
            self._group_at = found.offset
            self._before_group = self._sums.copy()
        sums = self._sums
        kind = found.flags & KINDS
        if found.rows:
            sums.first = found.position if sums.first is None else sums.first
        sums.next = found.position + found.rows
        sums.end = found.end
        sums.held_any = True
        if kind == ROW:
            received_ms = received_ms_of(found)
            oldest_ms = sums.oldest_ms
            sums.oldest_ms = received_ms if oldest_ms is None else min(oldest_ms, received_ms)
            sums.newest_ms = max(sums.newest_ms, received_ms)
        elif kind == HINTS:
            merge_hints(sums.hints, decode_hints(found.content))
        self._sparse.note(found.position, found.offset)

    def _doubt(self, found: Found) -> None:
        """Bad bytes in front of a frame: damage, if a later group follows."""
        if self._before_doubt is None:
            self._before_doubt = self._sums.copy()
        expected = found.position if self._sums.next is None else self._sums.next
        lost_bytes = found.offset - found.skipped_from
        self._doubtful.append(
            Damage(self._lane, self._number, expected, found.position - 1, lost_bytes)
        )

    def _settle(self) -> None:
        self.damages += self._doubtful
        self._doubtful = []
        self._before_doubt = None

    def end_open(self) -> Doubt | None:
        """The newest segment ends here: what follows a bad frame now was never acknowledged.

        Returns:
            Its last group, which no longer counts here.
        """
        if self._before_doubt is not None:
            self._sums = self._before_doubt
            self._doubtful = []
        end = self._sums.end
        if self._before_group is None or end <= self._group_at:
            return None
        self._sums = self._before_group
        self._sparse.cut(self._sums.end)
        return Doubt(self._number, self._group_at, end)

    def end_told(self, at: int, end: int, *, next_first: int) -> None:
        """The successor says that all up to `end` was safe, and the row at `next_first` its own."""
        self._settle()
        if at < end:
            expected = next_first if self._sums.next is None else self._sums.next
            self.damages.append(
                Damage(self._lane, self._number, expected, next_first - 1, end - at)
            )
            self._sums.end = end

    def index(self, header: Header | None) -> Index:
        """What the segment holds."""
        sums = self._sums
        begin = self._begin if self._begin is not None else (sums.next or 1)
        first = begin if sums.first is None else sums.first
        segment = Segment(
            number=self._number,
            first=first,
            last=first - 1 if sums.first is None or sums.next is None else sums.next - 1,
            end=sums.end,
            oldest_ms=sums.oldest_ms or 0,
            newest_ms=sums.newest_ms,
            previous=0 if header is None else header.previous,
            previous_end=0 if header is None else header.previous_end,
        )
        return Index(segment, sums.hints, self._sparse)


def merge_hints(hints: dict[str, int], newer: Mapping[str, int]) -> None:
    """Marks only rise."""
    for name, value in newer.items():
        hints[name] = max(hints.get(name, 0), value)
