"""A poll of payloads in one buffer, and what the array decoders hand to each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas import varint

Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Longs = NDArray[np.int64]
Words = NDArray[np.uint64]

LENGTHS_MAX = 64
"""Different lengths up to which strings are moved one length at a time."""

PADDING_BYTES = 1024
"""Zeros behind the last payload: a cursor may run ahead of the check that it is in bounds."""


@dataclass(frozen=True, slots=True)
class Poll:
    """N payloads in one buffer, and the views that the array code reads it by.

    Attributes:
        octets: All payloads and the padding. Shape (B,).
        words: The 64-bit word from each byte on, unaligned. Shape (B - 7,).
        floats: The float from each byte on, unaligned. Shape (B - 3,).
        starts: Position of each payload. Shape (N,).
        lengths: Bytes of each payload. Shape (N,).
    """

    octets: Bytes
    words: Words
    floats: Floats
    starts: Longs
    lengths: Longs


@dataclass(frozen=True, slots=True)
class Batches:
    """Where the readings of K batches lie, and which rows they go to.

    Attributes:
        at: Position of the first reading. Shape (K,).
        end: Position of the byte that ends the array of readings. Shape (K,).
        counts: Readings, >= 1. Shape (K,).
        rows: Row that the first reading goes to. Shape (K,).
    """

    at: Longs
    end: Longs
    counts: Longs
    rows: Longs

    def some(self, chosen: Longs | Bools) -> "Batches":
        """Some of the batches, by number or mask."""
        return Batches(self.at[chosen], self.end[chosen], self.counts[chosen], self.rows[chosen])


@dataclass(frozen=True, slots=True)
class Readings:
    """Where decoded readings go. Rows of batches that turn out bad hold nonsense.

    Attributes:
        event_time_ms: Shape (R,).
        values: One row a signal that is wanted, NaN where absent. Shape (S, R).
        wanted: Number of a signal in the schema to its row in `values`.
    """

    event_time_ms: Longs
    values: Floats
    wanted: dict[int, int]


def join(payloads: Sequence[bytes], bytes_max: int) -> Poll:
    """Copy the payloads into one buffer; those above `bytes_max` are left out, as empty ones."""
    lengths = np.fromiter(map(len, payloads), np.int64, len(payloads))
    if lengths.max(initial=0) > bytes_max:
        payloads = [payload if len(payload) <= bytes_max else b"" for payload in payloads]
        lengths[lengths > bytes_max] = 0
    buffer = b"".join([*payloads, bytes(PADDING_BYTES)])
    return Poll(
        octets=np.frombuffer(buffer, np.uint8),
        words=varint.sliding(buffer, "<u8"),
        floats=varint.sliding(buffer, "<f4"),
        starts=np.cumsum(lengths) - lengths,
        lengths=lengths,
    )


def spans(first: Longs, counts: Longs, step: int = 1) -> Longs:
    """`first[i], first[i] + step, ...` of `counts[i]` items for each i, one behind the other."""
    before = np.cumsum(counts) - counts
    within = np.arange(int(counts.sum())) - np.repeat(before, counts)
    return np.repeat(first, counts) + within * step


def by_length(lengths: Longs) -> list[tuple[int, Longs]]:
    """The lengths above 0 that occur, and the numbers of the items of each."""
    found = np.flatnonzero(np.bincount(lengths))
    return [(int(length), np.flatnonzero(lengths == length)) for length in found if length > 0]


def strings(octets: Bytes, at: Longs, lengths: Longs) -> list[bytes]:
    """The bytes at each position, of each length.

    Strings of one length are cut out together, five times faster than one by one.
    """
    if np.count_nonzero(np.bincount(lengths)) > LENGTHS_MAX:
        data = octets.tobytes()
        return [data[i:j] for i, j in zip(at.tolist(), (at + lengths).tolist(), strict=True)]
    out = np.full(at.size, b"", np.object_)
    for length, chosen in by_length(lengths):
        found: list[bytes] = varint.sliding(octets, f"V{length}")[at[chosen]].tolist()
        if chosen.size == at.size:
            return found
        out[chosen] = found
    some: list[bytes] = out.tolist()
    return some


def put_strings(octets: Bytes, at: Longs, items: Sequence[bytes], lengths: Longs) -> None:
    """Write each item at its position."""
    joined = b"".join(items)
    source = np.cumsum(lengths) - lengths
    for length, chosen in by_length(lengths):
        moved = varint.sliding(joined, f"V{length}")[source[chosen]]
        varint.sliding(octets, f"V{length}")[at[chosen]] = moved
