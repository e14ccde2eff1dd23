"""Avro's zigzag varints, many at once. Hot: everything here works on arrays.

A varint of up to eight bytes lies in one unaligned 64-bit word, so reading one at each of many
cursors is a gather and a dozen bit operations, whatever the mix of widths. Longer ones (values
beyond +-2**55) are reported with width 0 and left to the record-at-a-time decoder.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Longs = NDArray[np.int64]

WORD_BYTES = 8
LONGEST_BYTES = 10

_ONE = np.uint64(1)
_TWO = np.uint64(2)
_FOUR = np.uint64(4)
_SEVEN = np.uint64(7)
_BYTE_TOP = np.uint64(56)
_CONTINUE = np.uint64(0x8080808080808080)
_PAYLOAD = np.uint64(0x7F7F7F7F7F7F7F7F)
_EVEN_7 = np.uint64(0x007F007F007F007F)
_ODD_7 = np.uint64(0x7F007F007F007F00)
_EVEN_14 = np.uint64(0x00003FFF00003FFF)
_ODD_14 = np.uint64(0x3FFF00003FFF0000)
_EVEN_28 = np.uint64(0x000000000FFFFFFF)
_ODD_28 = np.uint64(0x0FFFFFFF00000000)
# The top byte of 2**(8 * k) * this is k + 1: it turns the bit that ends a varint into its width.
_WIDTHS = np.uint64(0x0102030405060708)


def sliding(buffer: bytes | NDArray[np.uint8], dtype: str) -> NDArray[Any]:
    """Every item of `dtype` that starts at any byte of the buffer, as an unaligned view.

    Index it with an array of byte positions; `take` would copy the whole view.
    """
    kind = np.dtype(dtype)
    return np.ndarray((len(buffer) - kind.itemsize + 1,), kind, buffer, 0, (1,))


def read(words: Words, at: Longs) -> tuple[Longs, Longs]:
    """Read the varint at each position.

    Args:
        words: `sliding(buffer, "<u8")`.
        at: Byte positions, each at least 8 bytes before the end of the buffer. Shape (N,).

    Returns:
        Values and widths in bytes, shape (N,) each. Width 0 (and a meaningless value) where the
        varint does not end within 8 bytes.
    """
    word: Words = words[at]
    stop = np.bitwise_not(word)
    stop &= _CONTINUE
    below = stop - _ONE
    stop &= np.bitwise_not(below)  # only the lowest bit is left: the end of the varint
    word &= stop - _ONE
    stop >>= _SEVEN
    stop *= _WIDTHS
    stop >>= _BYTE_TOP
    return unzigzag(_squeeze(word)), stop.view(np.int64)


def of_width(words: Words, width: int) -> Longs:
    """Values of varints, one at the start of each word, that are known to be `width` bytes, 1..8.

    Shape as given.
    """
    keep = np.uint64((1 << (8 * width)) - 1)
    return unzigzag(_squeeze(words & keep))


def have_width(words: Words, width: int) -> NDArray[np.bool_]:
    """Whether the varint at the start of each word is `width` bytes wide, 1..8."""
    mask = int(_CONTINUE) & ((1 << (8 * width)) - 1)
    more = mask & ((1 << (8 * (width - 1))) - 1)
    same: NDArray[np.bool_] = (words & np.uint64(mask)) == np.uint64(more)
    return same


def unzigzag(coded: Words) -> Longs:
    """0, 1, 2, 3 ... to 0, -1, 1, -2 ... Overwrites `coded`."""
    sign = coded & _ONE
    coded >>= _ONE
    coded ^= np.negative(sign.view(np.int64)).view(np.uint64)
    return coded.view(np.int64)


def zigzag(values: Longs) -> Words:
    """0, -1, 1, -2 ... to 0, 1, 2, 3 ..."""
    wide = np.ascontiguousarray(values, np.int64)
    return ((wide << 1) ^ (wide >> 63)).view(np.uint64)


def widths(coded: Words) -> Longs:
    """Bytes that each zigzagged value takes, 1..10. Shape as given."""
    out = np.ones(coded.shape, np.int64)
    top = int(coded.max(initial=0))
    for group in range(1, LONGEST_BYTES):
        if top >> (7 * group) == 0:
            break
        out += coded >= np.uint64(1 << (7 * group))
    return out


def write(out: NDArray[np.uint8], at: Longs, coded: Words, width: Longs) -> None:
    """Write zigzagged values as varints at each position, 8 bytes at a time.

    It spills: bytes behind a varint, up to the eighth from its start, are overwritten. Write a
    record's fields from front to back, and what stands before all fields of any record last.

    Args:
        out: Buffer with at least 8 bytes behind each position.
        at: Byte positions. Shape (N,).
        coded: From `zigzag`. Shape (N,).
        width: From `widths`. Shape (N,).
    """
    more = _CONTINUE & _low_bytes(width - 1)
    sliding(out, "<u8")[at] = _stretch(coded) | more
    long = np.flatnonzero(width > WORD_BYTES)
    if long.size:
        _write_tail(out, at[long] + WORD_BYTES, coded[long], width[long])


def _write_tail(out: NDArray[np.uint8], at: Longs, coded: Words, width: Longs) -> None:
    ninth = (coded >> _BYTE_TOP) & np.uint64(0x7F)
    ten = width == LONGEST_BYTES
    out[at] = ninth.astype(np.uint8) | np.where(ten, 0x80, 0).astype(np.uint8)
    out[at[ten] + 1] = 1


def _low_bytes(count: Longs) -> Words:
    """A word with the lowest `count` bytes set, all of them from 8 up."""
    bits = np.minimum(count, WORD_BYTES).astype(np.uint64) << np.uint64(3)
    full = bits == np.uint64(64)
    return np.where(full, ~np.uint64(0), (_ONE << np.where(full, np.uint64(0), bits)) - _ONE)


def _squeeze(word: Words) -> Words:
    """Close the gaps of one bit between eight groups of seven. Overwrites `word`."""
    word &= _PAYLOAD
    for odd, shift in ((_ODD_7, _ONE), (_ODD_14, _TWO), (_ODD_28, _FOUR)):
        upper = word & odd
        word ^= upper
        upper >>= shift
        word |= upper
    return word


def _stretch(value: Words) -> Words:
    """Undo `_squeeze` for the low 56 bits."""
    low, high = value & _EVEN_28, (value & (_EVEN_28 << np.uint64(28))) << _FOUR
    word = low | high
    fourteens = _EVEN_14 << np.uint64(14)
    word = (word & _EVEN_14) | ((word & fourteens) << _TWO)
    sevens = _EVEN_7 << _SEVEN
    return (word & _EVEN_7) | ((word & sevens) << _ONE)
