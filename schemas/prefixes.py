"""Payloads that begin alike, found many at a time. Hot: works on arrays.

Records whose first fields seldom differ are written with these fields in front. Then the bytes of
the first fields are read once, and all payloads that begin with the same bytes have the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from schemas import varint
from schemas.poll import Bools, Longs, Poll
from schemas.request_record import read_prefix

T = TypeVar("T")

PREFIXES_MAX = 64
"""Beginnings looked for in one poll; payloads with others are decoded one by one."""

PREFIX_BYTES_MAX = 1_024
"""Payloads with longer ones are too."""


@dataclass(slots=True)
class Prefixes(Generic[T]):
    """The beginnings of N payloads.

    Attributes:
        values: The different ones.
        number: Of each payload's; -1 where it was not found. Shape (N,).
        behind: Position behind it; where not found, that of the payload. Shape (N,).
    """

    values: list[T]
    number: Longs
    behind: Longs


def find_prefixes(
    payloads: Sequence[bytes],
    poll: Poll,
    plain: Bools,
    *,
    name: str,
    fields: int,
    make: Callable[[dict[str, object]], T | None],
) -> Prefixes[T]:
    """Sort payloads by their beginning.

    Args:
        payloads: N of them.
        poll: The same, joined.
        plain: Which to look at: those with the right frame. Shape (N,).
        name: Of the record.
        fields: How many of its fields make up the beginning.
        make: Makes a value of them; None: such payloads are left out.
    """
    found = Prefixes[T]([], np.full(len(payloads), -1, np.int64), poll.starts.copy())
    pending = np.flatnonzero(plain)
    for _ in range(PREFIXES_MAX):
        if pending.size == 0:
            break
        prefix = read_prefix(name, fields, bytes(payloads[pending[0]]))
        if prefix is None or len(prefix.octets) > PREFIX_BYTES_MAX:
            pending = pending[1:]
            continue
        alike = poll.lengths[pending] >= len(prefix.octets)
        alike[alike] = begin_with(poll, poll.starts[pending[alike]], prefix.octets)
        value = make(prefix.values)
        if value is not None:
            chosen = pending[alike]
            found.number[chosen] = len(found.values)
            found.behind[chosen] += len(prefix.octets)
            found.values.append(value)
        pending = pending[~alike]
    return found


def begin_with(poll: Poll, at: Longs, octets: bytes) -> Bools:
    """Where these bytes, 8 or more, stand. Shape of `at`.

    Compared in words, of which the last may overlap the one before.
    """
    alike = np.ones(at.size, np.bool_)
    last = len(octets) - varint.WORD_BYTES
    for offset in [*range(0, last, varint.WORD_BYTES), last]:
        word = np.uint64(int.from_bytes(octets[offset : offset + varint.WORD_BYTES], "little"))
        alike &= poll.words[at + offset] == word
    return alike
