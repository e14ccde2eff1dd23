"""One lane of the spool: a log of segments that is appended to, sealed, and let go from the front.

What is appended is not shown to readers before `show`: until then `undo` takes it back. After a
failed write or sync the segment is closed where it was safe, and never written to again; the next
one says in its header where that was.

The spool's lock is held for everything but `segments`, `find` and `sparse_of`.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from edge.rows import Lane
from edge.spool.files import File, Files
from edge.spool.framing import HINTS, KINDS, ROW, Found, frame, seed_of
from edge.spool.recovery import Damage, Doubt, merge_hints, recover
from edge.spool.segment import (
    HEADER_BYTES,
    Header,
    Index,
    Segment,
    Sparse,
    decode_index,
    index_name,
    segment_name,
)
from edge.spool.telemetry_codec import decode_hints, received_ms_of
from edge.spool.walker import Walker

UNFINISHED = "unfinished"

SEGMENT_AGE_MS = 24 * 3600 * 1000
"""A segment whose telemetry spans more than this is sealed, so that retention has an edge."""


@dataclass(slots=True)
class _Active:
    """The segment that is written to."""

    file: File
    segment: Segment
    head: bytes
    sparse: Sparse = field(default_factory=Sparse)
    shown: Segment | None = None

    @property
    def is_new(self) -> bool:
        """Whether nothing of it is on the disk yet."""
        return bool(self.head)


class SegmentLog:
    """The log of one lane.

    Args:
        files: The disk.
        directory: Of this lane; it is there.
        lane: Which.
        spool_id: Of the spool.
        segment_bytes: A segment that is this long is followed by another.
    """

    def __init__(
        self, files: Files, directory: Path, lane: Lane, *, spool_id: str, segment_bytes: int
    ) -> None:
        self._files = files
        self.directory = directory
        self.lane = lane
        self._spool_id = spool_id
        self.segment_bytes = segment_bytes
        self.segments: tuple[Segment, ...] = ()
        self.last = 0
        self.hints: dict[str, int] = {}
        self.bytes = 0
        self._active: _Active | None = None
        self._unindexed: dict[int, Index] = {}
        self._index_bytes: dict[int, int] = {}
        self._previous = (0, 0)
        self._highest = 0

    def open(self, *, number_min: int = 1) -> list[Damage]:
        """Find what is there, and delete what counts for nothing.

        Args:
            number_min: Numbers below were given, whether their segments are there or not.

        Returns:
            What is lost.

        Raises:
            OSError: The directory or a file cannot be read.
        """
        found = recover(self._files, self.directory, self.lane, self._spool_id)
        self.hints = found.hints
        self._highest = max(found.highest, number_min - 1)
        self._unindexed = found.scanned
        if found.segments:
            newest = found.segments[-1]
            self._previous = (newest.number, newest.end)
            if not newest.holds_frames:
                found.segments.pop()
                found.leftovers.append(segment_name(newest.number))
                self._previous = _before(newest, found.segments)
                self._unindexed.pop(newest.number, None)
            self.last = max(segment.last for segment in (*found.segments, newest))
        self.segments = tuple(found.segments)
        self.bytes = sum(segment.end for segment in found.segments)
        if found.doubt is not None:
            self._write_again(found.doubt)
        with suppress(OSError):  # on a disk that is read-only they stay, and count for nothing
            for name in found.leftovers:
                self._files.remove(self.directory / name)
        return found.damages

    def _write_again(self, doubt: Doubt) -> None:
        """Put a group into a segment of its own that may or may not be on the disk.

        It gets its name when all of it is safe: were it torn, its header would already say that
        the group does not count where it was.
        """
        frames = list(iter(self._walker_of(doubt).next, None))
        self.last = frames[0].position - 1
        self._highest += 1
        number, seed = self._highest, seed_of(self._spool_id, self.lane, self._highest)
        header = self._header(number)
        data = header.encode() + b"".join(
            frame(found.content, seed=seed, flags=found.flags, position=found.position)
            for found in frames
        )
        self._write_whole(self.directory / segment_name(number), data)
        rows, times = sum(found.rows for found in frames), _times(frames)
        segment = _grown(_empty(header), self.last, rows, len(data), times)
        for found in frames:
            if found.flags & KINDS == HINTS:
                merge_hints(self.hints, decode_hints(found.content))
        self._unindexed[number] = Index(segment, dict(self.hints), Sparse())
        self._previous = (number, segment.end)
        self.segments = (*self.segments, segment)
        self.bytes += segment.end
        self.last = segment.last

    def _walker_of(self, doubt: Doubt) -> Walker:
        return Walker(
            self._files,
            self.directory / segment_name(doubt.number),
            seed=seed_of(self._spool_id, self.lane, doubt.number),
            offset=doubt.offset,
            end=doubt.end,
        )

    def _write_whole(self, path: Path, data: bytes) -> None:
        """Make a file that is there whole or not at all."""
        unfinished = self.directory / UNFINISHED
        with suppress(FileNotFoundError):
            self._files.remove(unfinished)
        file = self._files.create(unfinished)
        try:
            file.append(data)
            file.sync()
        finally:
            file.close()
        self._files.replace(unfinished, path)
        self._files.sync_directory(self.directory)

    def floor(self, position: int) -> None:
        """All positions up to this one were given, whatever the segments hold."""
        self.last = max(self.last, position)

    @property
    def next_number(self) -> int:
        """Number of the segment that `cut` makes the next frame begin."""
        return self._highest + 1

    @property
    def sealed(self) -> tuple[Segment, ...]:
        """The segments that are not written to any more."""
        return self.segments if self._active is None else self.segments[:-1]

    # -- writing

    def begin(self, *, now_ms: int = 0) -> int:
        """Have a segment to write to; returns the seed of its checksums.

        Args:
            now_ms: Time of receipt of what comes; 0 where it does not matter.

        Raises:
            OSError: There is none, and none can be made.
        """
        active = self._active
        if active is not None and self._is_full(active.segment, now_ms):
            self.cut()
        if self._active is None:
            self._active = self._create()
        return seed_of(self._spool_id, self.lane, self._active.segment.number)

    def _is_full(self, segment: Segment, now_ms: int) -> bool:
        if segment.end >= self.segment_bytes:
            return True
        return bool(now_ms and segment.oldest_ms) and (
            abs(now_ms - segment.oldest_ms) > SEGMENT_AGE_MS
        )

    def _create(self) -> _Active:
        number = self._highest = self._highest + 1
        file = self._files.create(self.directory / segment_name(number))
        header = self._header(number)
        return _Active(file, _empty(header), header.encode())

    def _header(self, number: int) -> Header:
        """Of a segment that comes next."""
        return Header(self._spool_id, self.lane, number, self.last + 1, *self._previous)

    def append(self, data: bytes, *, rows: int, received_ms: Sequence[int] = ()) -> None:
        """Put a group of frames on the disk; `show` or `undo` must follow.

        Args:
            data: Made with the seed that `begin` returned.
            rows: How many positions it takes.
            received_ms: Times of receipt of its telemetry.

        Raises:
            OSError: Nothing of it counts, and the segment is closed.
        """
        active = self._active
        assert active is not None, "begin comes first"
        before, was_new = active.segment, active.is_new
        try:
            active.file.append(active.head + data)
            active.file.sync()
            if was_new:
                self._files.sync_directory(self.directory)
        except OSError:
            self._close(before)
            raise
        at = before.end or HEADER_BYTES
        active.head = b""
        active.sparse.note(self.last + 1, at)
        active.segment = _grown(before, self.last, rows, at + len(data), received_ms)

    def show(self) -> None:
        """Let readers see what was appended."""
        active = self._active
        assert active is not None, "append comes first"
        shown = active.segment
        if active.shown is None:
            self.segments = (*self.segments, shown)
            self.bytes += shown.end
        else:
            self.segments = (*self.segments[:-1], shown)
            self.bytes += shown.end - active.shown.end
        active.shown = shown
        self.last = max(self.last, shown.last)

    def undo(self) -> None:
        """What was appended and not shown never happened; its segment is closed."""
        active = self._active
        if active is not None and active.shown is not active.segment:
            before = active.shown or replace(active.segment, end=0)
            self._close(before)

    def _close(self, safe: Segment) -> None:
        """Write no more to this segment: only what was safe counts."""
        active, self._active = self._active, None
        assert active is not None
        active.file.close()
        if active.shown is None:
            # Should it stay, the header of the next one says that it does not count.
            with suppress(OSError):
                self._files.remove(self.directory / segment_name(safe.number))
            return
        active.sparse.cut(safe.end)
        self._previous = (safe.number, safe.end)
        self._unindexed[safe.number] = Index(safe, dict(self.hints), active.sparse)

    def cut(self) -> None:
        """Seal the segment that is written to: the next frame begins another."""
        if self._active is not None:
            self._close(self._active.segment)
            self.write_indexes()

    def write_indexes(self) -> None:
        """Write the indexes that are due; what the disk does not take now stays due."""
        for number, index in list(self._unindexed.items()):
            if self._active is not None and self._active.segment.number == number:
                continue
            try:
                self._write_index(number, index)
            except OSError:
                return
            del self._unindexed[number]

    def _write_index(self, number: int, index: Index) -> None:
        path = self.directory / index_name(number)
        with suppress(FileNotFoundError):
            self._files.remove(path)
        file = self._files.create(path)
        try:
            data = index.encode(self._spool_id, self.lane)
            file.append(data)
            file.sync()
        finally:
            file.close()
        self._files.sync_directory(self.directory)

    def note_hints(self, marks: Mapping[str, int]) -> None:
        """The log holds these marks."""
        merge_hints(self.hints, marks)

    def drop(self, segments: Sequence[Segment]) -> None:
        """Delete segments.

        Raises:
            OSError: The disk refuses; those before the one it was about are gone.
        """
        for segment in segments:
            if self._active is not None and self._active.segment.number == segment.number:
                self._close(self._active.segment)
            self._remove(segment.number)

    def _remove(self, number: int) -> None:
        with suppress(FileNotFoundError):
            self._files.remove(self.directory / segment_name(number))
        gone = [segment for segment in self.segments if segment.number == number]
        self.segments = tuple(segment for segment in self.segments if segment.number != number)
        self.bytes -= sum(segment.end for segment in gone)
        self._unindexed.pop(number, None)
        with suppress(FileNotFoundError):
            self._files.remove(self.directory / index_name(number))

    def close(self) -> None:
        """Seal, so that the next open has nothing to read through."""
        self.cut()
        self.write_indexes()

    # -- reading, from any thread

    def find(self, position: int) -> Segment | None:
        """The segment that holds a position, or the first one behind it; None at the end."""
        segments = self.segments
        at = bisect_left(segments, position, key=lambda segment: segment.last)
        while at < len(segments) and not segments[at].has_rows:
            at += 1
        return segments[at] if at < len(segments) else None

    def walker(self, segment: Segment, *, position: int) -> Walker:
        """Reads a segment from before a position.

        Raises:
            OSError: The index cannot be read.
        """
        offset = min(self.sparse_of(segment).offset_before(position), segment.end)
        return self.walker_at(segment, offset)

    def walker_at(self, segment: Segment, offset: int) -> Walker:
        """Reads a segment from the frame at an offset."""
        return Walker(
            self._files,
            self.directory / segment_name(segment.number),
            seed=seed_of(self._spool_id, self.lane, segment.number),
            offset=offset,
            end=segment.end,
        )

    def sparse_of(self, segment: Segment) -> Sparse:
        """Where the positions of a segment lie; nothing known: from its beginning."""
        active = self._active
        if active is not None and active.segment.number == segment.number:
            return active.sparse
        due = self._unindexed.get(segment.number)
        if due is not None:
            return due.sparse
        path = self.directory / index_name(segment.number)
        try:
            data = self._files.read(path, 0, self._files.size(path))
        except FileNotFoundError:
            return Sparse()
        index = decode_index(data, spool_id=self._spool_id, lane=self.lane, number=segment.number)
        return Sparse() if index is None else index.sparse


def _before(segment: Segment, older: Sequence[Segment]) -> tuple[int, int]:
    """What a segment says of the one before it, or what is known if its header is lost."""
    if segment.previous or not older:
        return segment.previous, segment.previous_end
    return older[-1].number, older[-1].end


def _empty(header: Header) -> Segment:
    """A segment that holds nothing yet, not even its header."""
    first = header.first
    return Segment(
        header.number,
        first,
        first - 1,
        0,
        previous=header.previous,
        previous_end=header.previous_end,
    )


def _times(frames: Sequence[Found]) -> list[int]:
    """When the rows of telemetry frames were received."""
    return [received_ms_of(found) for found in frames if found.flags & KINDS == ROW]


def _grown(before: Segment, last: int, rows: int, end: int, received_ms: Sequence[int]) -> Segment:
    oldest_ms, newest_ms = before.oldest_ms, before.newest_ms
    if received_ms:
        oldest = min(received_ms)
        oldest_ms = min(oldest_ms, oldest) if oldest_ms else oldest
        newest_ms = max(newest_ms, *received_ms)
    return replace(before, last=last + rows, end=end, oldest_ms=oldest_ms, newest_ms=newest_ms)
