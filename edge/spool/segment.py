"""Segments: the files of a log, and the index beside each one that is sealed.

A segment begins with a header that also says how much of its predecessor counts. Beside a sealed
one lies its index: what it holds, and where. An index is a convenience; without it, or when it is
damaged, the segment is read through once and the index written again.
"""

import struct
import zlib
from bisect import bisect_right
from dataclasses import dataclass, field

from edge.rows import Lane
from edge.spool.packing import Packer, Unpacker

HEADER = struct.Struct("<8s32sBxxxQQQQ")
_CRC = struct.Struct("<I")
HEADER_BYTES = HEADER.size + _CRC.size
_MAGIC = b"MCSPOOL3"
_INDEX_MAGIC = b"MCINDEX3"
_LANES = (Lane.TELEMETRY, Lane.PRIORITY)

STRIDE_BYTES = 64 * 1024
"""Least distance between two entries of a sparse index."""

SEGMENT_SUFFIX = ".seg"
INDEX_SUFFIX = ".idx"


@dataclass(frozen=True, slots=True)
class Header:
    """Head of a segment.

    Attributes:
        spool_id: 32 hexadecimal digits.
        lane: Which log.
        number: Of the segment; rises.
        first: Position of the first row that it may hold.
        previous: Number of the segment before it; 0 for none. Numbers in between do not count.
        previous_end: How many bytes of that one count.
    """

    spool_id: str
    lane: Lane
    number: int
    first: int
    previous: int
    previous_end: int

    def encode(self) -> bytes:
        """As it lies on the disk."""
        head = HEADER.pack(
            _MAGIC,
            self.spool_id.encode(),
            _LANES.index(self.lane),
            self.number,
            self.first,
            self.previous,
            self.previous_end,
        )
        return head + _CRC.pack(zlib.crc32(head))


def decode_header(data: bytes) -> Header | None:
    """The header of a segment; None when it is torn or damaged."""
    if len(data) < HEADER_BYTES:
        return None
    head = data[: HEADER.size]
    magic, spool_id, lane, number, first, previous, previous_end = HEADER.unpack(head)
    if magic != _MAGIC or _CRC.unpack_from(data, HEADER.size)[0] != zlib.crc32(head):
        return None
    return Header(spool_id.decode(), _LANES[lane], number, first, previous, previous_end)


@dataclass(frozen=True, slots=True)
class Segment:
    """What is known of a segment without reading it.

    Attributes:
        number: Its number.
        first: Lowest position; meaningless without rows.
        last: Highest position; below `first` without rows.
        end: Bytes that count.
        oldest_ms: Least time of receipt of its telemetry; 0 without any.
        newest_ms: Greatest time of receipt.
        previous: As in `Header`.
        previous_end: As in `Header`.
    """

    number: int
    first: int
    last: int
    end: int
    oldest_ms: int = 0
    newest_ms: int = 0
    previous: int = 0
    previous_end: int = 0

    @property
    def holds_frames(self) -> bool:
        """Whether it holds anything behind its header."""
        return self.end > HEADER_BYTES

    @property
    def has_rows(self) -> bool:
        """Whether it holds any row."""
        return self.last >= self.first


@dataclass(slots=True)
class Sparse:
    """Where some of the positions of a segment lie, ascending, at least STRIDE_BYTES apart."""

    positions: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)

    def note(self, position: int, offset: int) -> None:
        """A frame that begins with this position lies here."""
        if not self.offsets or offset - self.offsets[-1] >= STRIDE_BYTES:
            # In this order, for a reader finds a position first and then takes its offset.
            self.offsets.append(offset)
            self.positions.append(position)

    def cut(self, end: int) -> None:
        """Forget what lies at or behind an offset."""
        while self.offsets and self.offsets[-1] >= end:
            self.positions.pop()
            self.offsets.pop()

    def offset_before(self, position: int) -> int:
        """Where to begin reading to find a position."""
        at = bisect_right(self.positions, position) - 1
        return self.offsets[at] if at >= 0 else HEADER_BYTES


@dataclass(frozen=True, slots=True)
class Index:
    """The index of a sealed segment.

    Attributes:
        segment: What it holds.
        hints: The newest marks that it holds.
        sparse: Where.
    """

    segment: Segment
    hints: dict[str, int]
    sparse: Sparse

    def encode(self, spool_id: str, lane: Lane) -> bytes:
        """As it lies on the disk."""
        packer = Packer()
        packer.text(spool_id)
        packer.u8(_LANES.index(lane))
        held = self.segment
        packer.i64(held.number, held.first, held.last, held.end, held.oldest_ms, held.newest_ms)
        packer.i64(held.previous, held.previous_end)
        packer.u32(len(self.hints))
        for name, value in self.hints.items():
            packer.text(name)
            packer.i64(value)
        packer.i64s(self.sparse.positions)
        packer.i64s(self.sparse.offsets)
        body = packer.done()
        return _INDEX_MAGIC + _CRC.pack(zlib.crc32(body)) + body


def decode_index(data: bytes, *, spool_id: str, lane: Lane, number: int) -> Index | None:
    """The index of one segment; None when it is torn, damaged, or another's."""
    at = len(_INDEX_MAGIC) + _CRC.size
    if len(data) < at or data[: len(_INDEX_MAGIC)] != _INDEX_MAGIC:
        return None
    if _CRC.unpack_from(data, len(_INDEX_MAGIC))[0] != zlib.crc32(memoryview(data)[at:]):
        return None
    unpacker = Unpacker(data, at)
    if (unpacker.text(), unpacker.u8()) != (spool_id, _LANES.index(lane)):
        return None
    segment = Segment(*(unpacker.i64() for _ in range(8)))
    if segment.number != number:
        return None
    hints = {unpacker.text(): unpacker.i64() for _ in range(unpacker.u32())}
    sparse = Sparse(list(unpacker.i64s()), list(unpacker.i64s()))
    return Index(segment, hints, sparse)


def segment_name(number: int) -> str:
    """Name of the file of a segment."""
    return f"{number:012d}{SEGMENT_SUFFIX}"


def index_name(number: int) -> str:
    """Name of the index beside it."""
    return f"{number:012d}{INDEX_SUFFIX}"


def number_of(name: str, suffix: str) -> int | None:
    """Number of a file with such a suffix; None for any other file."""
    stem = name.removesuffix(suffix)
    return int(stem) if stem != name and stem.isascii() and stem.isdigit() else None
