"""Reading a segment frame by frame, over bad places if need be.

A hot path: one step per stored message.
"""

import errno
import itertools
import zlib
from pathlib import Path

from edge.spool.files import Files
from edge.spool.framing import HEAD, HEAD_BYTES, MAGIC, MAGIC_AT, MAGIC_BYTES, Found, rows_in

CHUNK_BYTES = 256 * 1024
"""Read at a time. Looking for the next good frame reads the rest of the segment."""

PAGE_BYTES = 4096


class Walker:
    """Walks the frames of one segment.

    Args:
        files: The disk.
        path: Of the segment.
        seed: Where its checksums begin.
        offset: Of a frame, where to begin.
        end: Where what counts of the segment ends; it may be raised.
    """

    def __init__(self, files: Files, path: Path, *, seed: int, offset: int, end: int) -> None:
        self._files = files
        self._path = path
        self._seed = seed
        self._at = offset
        self.end = end
        self._base = offset
        self._buffer = b""
        self._view = memoryview(b"")

    @property
    def at(self) -> int:
        """Where the next frame begins; before `end` when only bad bytes were left."""
        return self._at

    def next(self) -> Found | None:
        """The next good frame; None when there is none any more.

        Raises:
            OSError: The segment cannot be read.
        """
        found = self._frame_at(self._at, -1)
        if found is None and self._at < self.end:
            found = self._resync()
        if found is not None:
            self._at = found.end
        return found

    def _frame_at(self, at: int, skipped_from: int) -> Found | None:
        if not self._holds(at, HEAD_BYTES):
            return None
        start = at - self._base
        crc, magic, flags, length, position = HEAD.unpack_from(self._buffer, start)
        whole = HEAD_BYTES + length
        if magic != MAGIC or not self._holds(at, whole):
            return None
        start = at - self._base
        if zlib.crc32(self._view[start + MAGIC_AT : start + whole], self._seed) != crc:
            return None
        body = start + HEAD_BYTES
        rows = rows_in(flags, self._buffer, body)
        return Found(at, at + whole, flags, position, rows, self._buffer, body, skipped_from)

    def _holds(self, at: int, length: int) -> bool:
        """Have these bytes in the buffer; False where the segment has not that much."""
        if at + length > self.end:
            return False
        if at + length > self._base + len(self._buffer):
            self._fill(at, max(length, CHUNK_BYTES))
        return at + length <= self._base + len(self._buffer)

    def _fill(self, at: int, length: int) -> None:
        length = min(length, self.end - at)
        self._base = at
        self._buffer = read_what_can_be_read(self._files, self._path, at, length)
        self._view = memoryview(self._buffer)

    def _resync(self) -> Found | None:
        """The next place where a frame fits; leaves `at` alone when there is none."""
        bad_at = self._at
        self._fill(bad_at, self.end - bad_at)
        candidate = self._buffer.find(MAGIC_BYTES, MAGIC_AT + 1)
        while candidate >= 0:
            found = self._frame_at(bad_at + candidate - MAGIC_AT, bad_at)
            if found is not None:
                return found
            candidate = self._buffer.find(MAGIC_BYTES, candidate + 1)
        return None


def read_what_can_be_read(files: Files, path: Path, offset: int, length: int) -> bytes:
    """Bytes of a file; zeros where the disk has lost a page, so that checksums tell.

    Raises:
        OSError: Of any other kind than a lost page.
    """
    try:
        return files.read(path, offset, length)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
    end = offset + length
    edges = [offset, *range(offset - offset % PAGE_BYTES + PAGE_BYTES, end, PAGE_BYTES), end]
    return b"".join(_page(files, path, at, behind - at) for at, behind in itertools.pairwise(edges))


def _page(files: Files, path: Path, offset: int, length: int) -> bytes:
    try:
        return files.read(path, offset, length)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return bytes(length)
