"""Frames: how records lie in a segment, each with its length, its position and a checksum.

    crc32 │ magic │ flags │ length of the body │ position │ body
      4       2       2             4                8

The checksum covers all behind it, and begins from a seed that stands for the spool, the lane and
the number of the segment. So what an earlier file left on the same blocks never passes, nor does
a record that has moved.

A flag says which frames begin a group. What is written after a group was only written when that
group was safe; so behind a bad frame, one that begins a group tells damage from a torn end.
"""

import struct
import zlib
from typing import NamedTuple

from edge.rows import Lane

HEAD = struct.Struct("<IHHIQ")
HEAD_BYTES = HEAD.size
MAGIC = 0xB57D
MAGIC_BYTES = MAGIC.to_bytes(2, "little")
MAGIC_AT = 4

BEGINS_GROUP = 1
ROW = 0
"""Kind of a frame that holds one telemetry row."""
HINTS = 2
"""Kind of a frame that holds marks and no row."""
CHANGE = 4
"""Kind of a frame that holds rows of the priority lane and all that goes with them."""
KINDS = HINTS | CHANGE

_REST = struct.Struct("<HHIQ")
_CRC = struct.Struct("<I")
_COUNT = struct.Struct("<I")
_LANES = {Lane.TELEMETRY: b"t", Lane.PRIORITY: b"p"}


class Found(NamedTuple):
    """A frame whose checksum fits.

    Attributes:
        offset: Where in the segment it begins.
        end: Where in the segment it ends.
        flags: Kind, and whether it begins a group.
        position: Of its first row; of the next row when it has none.
        rows: How many it holds.
        buffer: Holds the body, and more.
        body: Where in the buffer the body begins.
        skipped_from: Where the bad bytes in front of it begin; -1 when there are none.
    """

    offset: int
    end: int
    flags: int
    position: int
    rows: int
    buffer: bytes
    body: int
    skipped_from: int

    @property
    def content(self) -> bytes:
        """The body."""
        return self.buffer[self.body : self.body + self.end - self.offset - HEAD_BYTES]


def seed_of(spool_id: str, lane: Lane, number: int) -> int:
    """Where the checksums of a segment begin."""
    return zlib.crc32(spool_id.encode() + _LANES[lane] + number.to_bytes(8, "little"))


def frame(body: bytes, *, seed: int, flags: int, position: int) -> bytes:
    """One frame."""
    rest = _REST.pack(MAGIC, flags, len(body), position) + body
    return _CRC.pack(zlib.crc32(rest, seed)) + rest


def rows_in(flags: int, buffer: bytes, body: int) -> int:
    """How many rows a frame holds."""
    kind = flags & KINDS
    if kind == ROW:
        return 1
    return int(_COUNT.unpack_from(buffer, body)[0]) if kind == CHANGE else 0
