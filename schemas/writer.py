"""A buffer that many Avro records are written into at once. Hot: works on arrays."""

from collections.abc import Sequence

import numpy as np

from schemas import varint
from schemas.poll import Bools, Bytes, Floats, Longs, put_strings, spans, strings

FLOAT_BYTES = 4
_SPILL_BYTES = 16


class LongField:
    """A field of longs, coded and measured."""

    def __init__(self, values: Longs) -> None:
        self.coded = varint.zigzag(np.asarray(values, np.int64))
        self.width = varint.widths(self.coded)


class StringField:
    """A field of strings, given as UTF-8, with their lengths coded and measured."""

    def __init__(self, items: Sequence[bytes]) -> None:
        self.items = items
        self.lengths = np.fromiter(map(len, items), np.int64, len(items))
        self.length = LongField(self.lengths)
        self.width: Longs = self.lengths + self.length.width


class FloatsField:
    """A field of arrays of floats, each one block.

    Args:
        counts: Floats of each array. Shape (M,), sum V.
        values: Shape (V,).
    """

    def __init__(self, counts: Longs, values: Floats) -> None:
        self.counts = counts
        self.values = values
        self.count = LongField(counts)
        self.ends: Longs = (counts > 0).astype(np.int64)
        self.width: Longs = self.count.width + FLOAT_BYTES * counts + self.ends


class RecordWriter:
    """A buffer that many records are written into at once, field after field.

    Longs spill zeros behind themselves, at worst into the frame of the next record: so the
    frames, and the strings, are left out at first and written last.

    Attributes:
        octets: The records, one behind the other.
        at: Where the next field of each record goes.
    """

    def __init__(self, sizes: Longs) -> None:
        self.sizes = sizes
        self.starts = np.cumsum(sizes) - sizes
        self.at = self.starts
        self.octets: Bytes = np.zeros(int(sizes.sum()) + _SPILL_BYTES, np.uint8)
        self.floats: Floats = varint.sliding(self.octets, "<f4")

    def skip(self, count: Longs | int) -> Longs:
        """Leave room, and say where it begins."""
        before = self.at
        self.at = before + count
        return before

    def long(self, field: LongField) -> None:
        """Write a long of each record."""
        varint.write(self.octets, self.skip(field.width), field.coded, field.width)

    def boolean(self, values: Bools) -> None:
        """Write a boolean of each record."""
        self.octets[self.skip(1)] = values

    def cut(self, prefix: bytes) -> list[bytes]:
        """Put the same bytes at the front of each record, and cut the records apart."""
        if prefix:
            kind = f"V{len(prefix)}"
            varint.sliding(self.octets, kind)[self.starts] = np.frombuffer(prefix, kind)[0]
        return strings(self.octets, self.starts, self.sizes)


Field = LongField | StringField | FloatsField


def write_records(prefix: bytes, fields: Sequence[Field]) -> list[bytes]:
    """Write M records of the same first bytes, at least 8, and then these fields."""
    sizes = len(prefix) + fields[0].width
    for field in fields[1:]:
        sizes = sizes + field.width
    writer = RecordWriter(sizes)
    writer.skip(len(prefix))
    texts: list[tuple[Longs, StringField]] = []
    for field in fields:
        if isinstance(field, LongField):
            writer.long(field)
        elif isinstance(field, StringField):
            writer.long(field.length)
            texts.append((writer.skip(field.lengths), field))
        else:
            writer.long(field.count)
            at = writer.skip(FLOAT_BYTES * field.counts + field.ends)
            writer.floats[spans(at, field.counts, FLOAT_BYTES)] = field.values
    for at, text in texts:
        put_strings(writer.octets, at, text.items, text.lengths)
    return writer.cut(prefix)
