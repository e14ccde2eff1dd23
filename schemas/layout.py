"""Readings of one layout into columns. Hot: everything here works on arrays.

A reading is its time (a varint) and, for each signal in the order of the schema, a branch byte:
0 for null, or 2 and then four bytes of float. Readings with the same signals present and a time
of the same width thus lie at a fixed stride. That the bytes which should be branches are so is
checked, and the floats are viewed, a column at a time over all of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas import varint
from schemas.columns import EVENT_TIME_MS_MAX, EVENT_TIME_MS_MIN
from schemas.poll import Batches, Bools, Bytes, Floats, Longs, Poll, Readings, spans
from schemas.signals import SIGNALS

CHUNK_ROWS = 4096
"""Readings handled at a time, so that their bytes stay in the processor's cache."""

BRANCH_FLOAT = 2
"""Branch byte of a signal that is there; that of a null is 0."""

_BRANCH_FLOAT = np.uint8(BRANCH_FLOAT)

MINIMA: Floats = np.array([signal.minimum for signal in SIGNALS], np.float32)
MAXIMA: Floats = np.array([signal.maximum for signal in SIGNALS], np.float32)


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout of a reading.

    Attributes:
        time_bytes: Width of the event time, 1..8.
        present: Numbers of the signals that are there, ascending.
        branches: Offset of each signal's branch byte, in the order of the schema.
        stride: Bytes of a reading.
    """

    time_bytes: int
    present: tuple[int, ...]
    branches: tuple[int, ...]
    stride: int


def layout_at(octets: Bytes, at: int) -> Layout | None:
    """The layout of the reading at a position; None where there is no such reading."""
    longest = varint.WORD_BYTES + 5 * len(SIGNALS)
    head = octets[at : at + longest].tobytes()
    time_bytes = next((i + 1 for i, byte in enumerate(head[: varint.WORD_BYTES]) if byte < 0x80), 0)
    branches, present, offset = [], [], time_bytes
    for number in range(len(SIGNALS)):
        if head[offset] == BRANCH_FLOAT:
            present.append(number)
        branches.append(offset)
        offset += 5 if head[offset] == BRANCH_FLOAT else 1
    nothing_else = all(head[branch] in (0, BRANCH_FLOAT) for branch in branches)
    if time_bytes == 0 or not nothing_else:
        return None
    return Layout(time_bytes, tuple(present), tuple(branches), offset)


def begin_with(layout: Layout, poll: Poll, batches: Batches) -> Bools:
    """Which batches have the length, and the first reading, of the layout. Shape (K,)."""
    fits: Bools = batches.at + layout.stride * batches.counts == batches.end
    likely = np.flatnonzero(fits)
    for part in _chunks(likely.size):
        chosen = likely[part]
        fits[chosen] = _have(layout, _gather(layout, poll, batches.at[chosen]))
    return fits


def decode_alike(layout: Layout, poll: Poll, batches: Batches, out: Readings) -> Bools:
    """Decode batches that `begin_with` the layout, supposing that all their readings have it.

    Returns:
        Which batches do, with every time and value in its range. Shape (K,).
    """
    at = spans(batches.at, batches.counts, layout.stride)
    rows = spans(batches.rows, batches.counts)
    single = at.size == batches.at.size
    sound = np.empty(at.size, np.bool_)
    for part in _chunks(at.size):
        block = _gather(layout, poll, at[part])
        sound[part] = _decode_block(layout, block, _as_slice(rows[part]), out)
        if not single:  # `begin_with` has seen the only reading
            sound[part] &= _have(layout, block)
    if single:
        return sound
    whole: Bools = np.logical_and.reduceat(sound, np.cumsum(batches.counts) - batches.counts)
    return whole


def _chunks(count: int) -> Iterator[slice]:
    for start in range(0, count, CHUNK_ROWS):
        yield slice(start, min(start + CHUNK_ROWS, count))


def _as_slice(rows: Longs) -> Longs | slice:
    """Ascending row numbers as a slice where they have no gaps: copying is several times faster."""
    first, last = int(rows[0]), int(rows[-1])
    return slice(first, last + 1) if last - first + 1 == rows.size else rows


def _gather(layout: Layout, poll: Poll, at: Longs) -> NDArray[np.void]:
    """The bytes of the readings at the positions, one item each. Shape (N,)."""
    gathered: NDArray[np.void] = varint.sliding(poll.octets, f"V{layout.stride}")[at]
    return gathered


def _column(block: NDArray[np.void], dtype: str, offset: int) -> NDArray[Any]:
    """What lies at an offset in each item, as a strided view. Shape (N,)."""
    return np.ndarray(block.shape, dtype, block, offset, (block.itemsize,))


def _have(layout: Layout, block: NDArray[np.void]) -> Bools:
    """Which readings have the layout. Shape (N,)."""
    wrong = np.zeros(block.shape, np.uint8)
    present = set(layout.present)
    for number, offset in enumerate(layout.branches):
        branch: Bytes = _column(block, "u1", offset)
        wrong |= branch ^ _BRANCH_FLOAT if number in present else branch
    same: Bools = varint.have_width(_column(block, "<u8", 0), layout.time_bytes) & (wrong == 0)
    return same


def _decode_block(
    layout: Layout, block: NDArray[np.void], rows: Longs | slice, out: Readings
) -> Bools:
    """Decode readings that have the layout; say which are in range. Shape (N,)."""
    times = varint.of_width(_column(block, "<u8", 0), layout.time_bytes)
    values = np.empty((len(layout.present), block.size), np.float32)
    for row, number in enumerate(layout.present):
        values[row] = _column(block, "<f4", layout.branches[number] + 1)
        if number in out.wanted:
            out.values[out.wanted[number], rows] = values[row]
    out.event_time_ms[rows] = times
    return _in_range(values, list(layout.present)) & times_in_range(times)


def _in_range(values: Floats, numbers: list[int]) -> Bools:
    """Which columns of values, one row a signal, are finite and in range. Shape (N,)."""
    low, high = MINIMA[numbers], MAXIMA[numbers]
    if (values.min(axis=1) >= low).all() and (values.max(axis=1) <= high).all():
        return np.ones(values.shape[1], np.bool_)
    inside = (values >= low[:, None]) & (values <= high[:, None])
    sound: Bools = inside.all(axis=0)
    return sound


def times_in_range(times: Longs) -> Bools:
    """Which event times every reader can represent. Shape as given."""
    return (times >= EVENT_TIME_MS_MIN) & (times <= EVENT_TIME_MS_MAX)
