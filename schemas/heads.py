"""The fields of telemetry batches before their readings. Hot: everything works on arrays."""

from dataclasses import dataclass

import numpy as np

from schemas import varint
from schemas.columns import MAX_VEHICLE_ID_BYTES, UPTIME_MS_MAX
from schemas.poll import Bools, Bytes, Longs, Poll, by_length

_ASCII_MAX = 127
_FLOAT_BYTES = 4
_TAIL_BYTES = 64
"""Of the padding, that which is left for fields behind an array whose count is nonsense."""


@dataclass(frozen=True, slots=True)
class Heads:
    """What stands before the readings of N payloads. Where not `good` the rest is nonsense.

    Attributes:
        good: Framed as expected, every field whole and in its range, one plain block of
            readings, and 0 as the last byte. Whether the readings fill what lies between is
            still to be seen. Shape (N,).
        id_at: Position of the vehicle id. Shape (N,).
        id_bytes: Its length. Shape (N,).
        boot_id: Shape (N,).
        seq: Shape (N,).
        oldest_seq: Shape (N,).
        uptime_ms: Shape (N,).
        clock_synced: Shape (N,).
        counts: Readings. Shape (N,).
        at: Position of the first reading. Shape (N,).
        end: Position of the last byte. Shape (N,).
    """

    good: Bools
    id_at: Longs
    id_bytes: Longs
    boot_id: Longs
    seq: Longs
    oldest_seq: Longs
    uptime_ms: Longs
    clock_synced: Bools
    counts: Longs
    at: Longs
    end: Longs


class Cursor:
    """A position in each of many payloads, and which of them are sound so far."""

    def __init__(self, poll: Poll, at: Longs, good: Bools) -> None:
        self.poll = poll
        self.at = at
        self.good = good

    def long(self, low: int, high: int) -> Longs:
        """Read a long that must be in a range."""
        value, width = varint.read(self.poll.words, self.at)
        self.good &= (width > 0) & (value >= low) & (value <= high)
        self.at = self.at + width
        return value

    def boolean(self) -> Bools:
        """Read a boolean."""
        value = self.poll.octets[self.at]
        self.good &= value <= 1
        self.at = self.at + 1
        return value.astype(np.bool_)

    def skip(self, count: Longs) -> Longs:
        """Step over bytes and say where they began."""
        before = self.at
        self.at = before + count
        return before

    def string(self, bytes_max: int) -> tuple[Longs, Longs]:
        """Step over a string: where it lies, and its bytes, 0 where it is not sound."""
        size = self.long(0, bytes_max)
        size = np.where(self.good, size, 0)
        return self.skip(size), size

    def floats(self) -> tuple[Longs, Longs]:
        """Step over an array of floats in one block: how many, 0 where not sound, and where."""
        room = self.poll.octets.size - _TAIL_BYTES - self.at
        count = self.long(0, self.poll.octets.size // _FLOAT_BYTES)
        count = np.where(self.good & (_FLOAT_BYTES * count < room), count, 0)
        at = self.skip(_FLOAT_BYTES * count)
        self.good &= (count == 0) | (self.poll.octets[self.at] == 0)
        self.at = self.at + (count > 0)
        return count, at


def read_heads(poll: Poll, frame: bytes, readings_max: int) -> Heads:
    """Read the fields before the readings of each payload.

    Args:
        poll: N payloads.
        frame: What must stand before each body.
        readings_max: Most readings in one batch.
    """
    cursor = Cursor(poll, poll.starts + len(frame), framed(poll, frame))
    id_bytes = cursor.long(1, MAX_VEHICLE_ID_BYTES)
    id_bytes = np.where(cursor.good, id_bytes, 0)
    id_at = cursor.skip(id_bytes)
    most = np.iinfo(np.int64).max
    boot_id, seq, oldest_seq = cursor.long(0, most), cursor.long(1, most), cursor.long(1, most)
    uptime_ms = cursor.long(0, UPTIME_MS_MAX)
    clock_synced = cursor.boolean()
    counts = cursor.long(1, readings_max)
    end = poll.starts + poll.lengths - 1
    good = cursor.good & (oldest_seq <= seq) & (poll.octets[end] == 0)
    good &= _ids_plain(poll.octets, id_at, np.where(good, id_bytes, 0))
    return Heads(
        good=good,
        id_at=id_at,
        id_bytes=id_bytes,
        boot_id=boot_id,
        seq=seq,
        oldest_seq=oldest_seq,
        uptime_ms=uptime_ms,
        clock_synced=clock_synced,
        counts=counts,
        at=cursor.at,
        end=end,
    )


def framed(poll: Poll, frame: bytes) -> Bools:
    """Which payloads begin with the frame, compared in two words that may overlap."""
    good = np.ones(poll.starts.size, np.bool_)
    for offset in {0, max(0, len(frame) - varint.WORD_BYTES)}:
        part = frame[offset : offset + varint.WORD_BYTES]
        mask = np.uint64((1 << (8 * len(part))) - 1)
        word = np.uint64(int.from_bytes(part, "little"))
        good &= (poll.words[poll.starts + offset] & mask) == word
    return good


def _ids_plain(octets: Bytes, at: Longs, lengths: Longs) -> Bools:
    """Which ids are ASCII without the bytes that are forbidden. Shape (N,).

    Others may be good UTF-8; they are left to the record-at-a-time decoder.
    """
    plain = np.zeros(at.size, np.bool_)
    for length, chosen in by_length(lengths):
        rows = varint.sliding(octets, f"V{length}")[at[chosen]].view(np.uint8)
        wrong = (rows > _ASCII_MAX) | (rows == 0)
        for byte in b"/+#":
            wrong |= rows == byte
        plain[chosen] = ~wrong.reshape(-1, length).any(axis=1) if wrong.any() else True
    return plain
