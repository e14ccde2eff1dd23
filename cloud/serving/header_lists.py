"""Compressed headers by the library hpack, for clients that call again and again. Hot path.

Reading and writing the same few headers takes hpack a third of a call; so they are remembered.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from hpack import Decoder, Encoder, HeaderTuple, NeverIndexedHeaderTuple

Headers = Sequence[tuple[bytes, bytes]]

LIST_BYTES_MAX = 16 << 10
"""Of one list of headers, each with 32 bytes on top, as the protocol counts; more is refused."""

KNOWN_MAX = 16
"""Lists of headers that are remembered."""

KNOWN_BYTES_MAX = 1024
"""Of a block whose meaning is remembered."""


class RememberingDecoder(Decoder):
    """Remembers what blocks mean: a client that calls again and again sends the same few bytes.

    That holds until a block changes the table.
    """

    def __init__(self) -> None:
        super().__init__(LIST_BYTES_MAX)
        self._known: dict[bytes, list[HeaderTuple]] = {}

    def decode(self, data: bytes, raw: bool = False) -> list[HeaderTuple]:
        """As hpack's; of one connection all `raw` or none."""
        known = self._known.get(data)
        if known is not None:
            return known
        newest, shape = self._newest(), self._shape()
        headers = list(super().decode(data, raw))
        if self._newest() is not newest or self._shape() != shape:
            self._known.clear()
        elif len(data) <= KNOWN_BYTES_MAX:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[data] = headers
        return headers

    def _newest(self) -> object:
        """Another object once something was put into the table."""
        entries = self.header_table.dynamic_entries
        return entries[0] if entries else None

    def _shape(self) -> tuple[int, int]:
        return len(self.header_table.dynamic_entries), self.header_table_size


class LiteralEncoder(Encoder):
    """Writes literals that no table keeps.

    So the same headers are the same bytes, and a client that asks for a large table fills none.
    """

    def encode(self, headers: Any, huffman: bool = True) -> bytes:
        """As hpack's; what is to be said of the table's size comes first."""
        known = _literals(tuple(headers))
        return super().encode(()) + known if self.header_table.resized else known


@lru_cache(KNOWN_MAX)
def _literals(headers: Headers) -> bytes:
    return Encoder().encode([NeverIndexedHeaderTuple(*header) for header in headers])
