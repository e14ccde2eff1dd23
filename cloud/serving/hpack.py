"""Reads the compressed headers of HTTP/2 (HPACK, RFC 7541). Pure.

A client that calls again and again sends the same few bytes for its headers, each an index into
tables that both sides keep; so a block that changed no table is remembered with what it meant.
"""

from collections import deque
from functools import cache

from schemas.errors import ContractError, Reason

Header = tuple[bytes, bytes]
Headers = tuple[Header, ...]

TABLE_BYTES_MAX = 4096
"""Of the dynamic table, the protocol's default."""

LIST_BYTES_MAX = 16 << 10
"""Of one list of headers, each with 32 bytes on top, as the protocol counts; more is refused."""

_REMEMBERED_MAX = 64
_ENTRY_BYTES = 32

# Appendix A: names, each with the values it stands there with.
_STATIC = """
:authority
:method GET POST
:path / /index.html
:scheme http https
:status 200 204 206 304 400 404 500
accept-charset
accept-encoding gzip,_deflate
accept-language accept-ranges accept access-control-allow-origin age allow authorization
cache-control content-disposition content-encoding content-language content-length
content-location content-range content-type cookie date etag expect expires from host if-match
if-modified-since if-none-match if-range if-unmodified-since last-modified link location
max-forwards proxy-authenticate proxy-authorization range referer refresh retry-after server
set-cookie strict-transport-security transfer-encoding user-agent vary via www-authenticate
"""

# Appendix B: bits of the code of each byte 0..255 and of the end mark. The code is canonical, so
# the lengths are all of it.
_CODE_BITS = """
    13 23 28 28 28 28 28 28 28 24 30 28 28 30 28 28 28 28 28 28 28 28 30 28
    28 28 28 28 28 28 28 28 6 10 10 12 13 6 8 11 10 10 8 11 8 6 6 6
    5 5 5 6 6 6 6 6 6 6 7 8 15 6 12 10 13 6 7 7 7 7 7 7
    7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 8 7 8 13 19 13 14 6
    15 5 6 5 6 5 6 6 6 5 7 7 6 6 6 5 6 7 6 5 5 6 7 7
    7 7 7 15 11 14 13 28 20 22 20 20 22 22 22 23 22 23 23 23 23 23 24 23
    24 24 22 23 24 23 23 23 23 21 22 23 22 23 23 24 22 21 20 22 22 23 23 21
    23 22 22 24 21 22 23 23 21 21 22 21 23 22 23 23 20 22 22 22 23 22 22 23
    26 26 20 19 22 23 22 25 26 26 26 27 27 26 24 25 19 21 26 27 27 26 27 24
    21 21 26 26 28 27 27 27 20 24 20 21 22 21 21 23 22 22 25 25 24 24 26 23
    26 27 26 26 27 27 27 27 27 28 27 27 27 27 27 26 30
"""


def malformed(detail: str) -> ContractError:
    """What breaks the compression: the connection cannot go on."""
    return ContractError(Reason.MALFORMED, f"headers: {detail}")


def _static_table() -> tuple[Header, ...]:
    table: list[Header] = []
    for line in _STATIC.split("\n"):
        words = [word.replace("_", " ").encode() for word in line.split()]
        if len(words) > 1 and (words[0].startswith(b":") or words[0] == b"accept-encoding"):
            table += [(words[0], value) for value in words[1:]]
        else:
            table += [(name, b"") for name in words]
    return tuple(table)


_STATIC_TABLE = _static_table()

_Node = list[int]
_END = 256


@cache
def _tree() -> list[_Node]:
    """The code as a tree: of each node the two that follow, or -1 - symbol where it ends."""
    tree: list[_Node] = [[0, 0]]
    bits = [int(word) for word in _CODE_BITS.split()]
    code = length = 0
    for size, symbol in sorted((size, symbol) for symbol, size in enumerate(bits)):
        code <<= size - length
        length = size
        at = 0
        for shift in range(size - 1, 0, -1):
            bit = code >> shift & 1
            if not tree[at][bit]:
                tree.append([0, 0])
                tree[at][bit] = len(tree) - 1
            at = tree[at][bit]
        tree[at][code & 1] = -1 - symbol
        code += 1
    return tree


def expand(coded: bytes) -> bytes:
    """The text behind Huffman-coded bytes.

    Raises:
        ContractError: MALFORMED: the end mark, or a rest that is no padding.

    Example:
        >>> expand(bytes.fromhex("f1e3c2e5f23a6ba0ab90f4ff"))
        b'www.example.com'
    """
    tree = _tree()
    text = bytearray()
    at = rest_bits = 0
    rest_is_ones = True
    for byte in coded:
        for shift in (7, 6, 5, 4, 3, 2, 1, 0):
            bit = byte >> shift & 1
            at = tree[at][bit]
            rest_bits += 1
            rest_is_ones = rest_is_ones and bit == 1
            if at < 0:
                if at == -1 - _END:
                    raise malformed("an end mark within a text")
                text.append(-1 - at)
                at = rest_bits = 0
                rest_is_ones = True
    if rest_bits > 7 or not rest_is_ones:
        raise malformed("a text with a wrong rest")
    return bytes(text)


class Decoder:
    """The reading side of a connection. Not for use by two threads at once."""

    def __init__(self) -> None:
        self._table: deque[Header] = deque()
        self._table_bytes = 0
        self._table_bytes_max = TABLE_BYTES_MAX
        self._changes = 0
        self._known: dict[bytes, Headers] = {}

    def decode(self, block: bytes) -> Headers:
        """The headers of a whole block.

        Raises:
            ContractError: MALFORMED, or OVERSIZED where they are more than `LIST_BYTES_MAX`. The
                connection cannot go on: its tables are not those of the client any more.
        """
        known = self._known.get(block)
        if known is not None:
            return known
        changes = self._changes
        headers = self._read(block)
        if changes != self._changes:
            self._known.clear()
        elif len(self._known) < _REMEMBERED_MAX:
            self._known[block] = headers
        return headers

    def _read(self, block: bytes) -> Headers:
        headers: list[Header] = []
        size = at = 0
        try:
            while at < len(block):
                first = block[at]
                if first & 0xE0 == 0x20:  # the table's size
                    if headers:
                        raise malformed("a table size behind a header")
                    limit, at = _number(block, at, 5)
                    self._resize(limit)
                    continue
                header, at = self._field(block, at, first)
                size += len(header[0]) + len(header[1]) + _ENTRY_BYTES
                if size > LIST_BYTES_MAX:
                    raise ContractError(
                        Reason.OVERSIZED, f"headers of more than {LIST_BYTES_MAX} bytes"
                    )
                headers.append(header)
        except IndexError:
            raise malformed("they end early") from None
        return tuple(headers)

    def _field(self, block: bytes, at: int, first: int) -> tuple[Header, int]:
        if first & 0x80:  # indexed
            index, at = _number(block, at, 7)
            return self._entry(index), at
        kept = bool(first & 0x40)  # literal, to be kept in the table or not
        index, at = _number(block, at, 6 if kept else 4)
        if index:
            name = self._entry(index)[0]
        else:
            name, at = _text(block, at)
        value, at = _text(block, at)
        if kept:
            self._insert((name, value))
        return (name, value), at

    def _entry(self, index: int) -> Header:
        if not 0 < index <= len(_STATIC_TABLE) + len(self._table):
            raise malformed(f"index {index} of nothing")
        if index <= len(_STATIC_TABLE):
            return _STATIC_TABLE[index - 1]
        return self._table[index - len(_STATIC_TABLE) - 1]

    def _insert(self, header: Header) -> None:
        self._changes += 1
        self._table.appendleft(header)
        self._table_bytes += _size(header)
        self._evict()

    def _resize(self, limit: int) -> None:
        if limit > TABLE_BYTES_MAX:
            raise malformed(f"a table of {limit} bytes")
        self._changes += 1
        self._table_bytes_max = limit
        self._evict()

    def _evict(self) -> None:
        while self._table_bytes > self._table_bytes_max:
            self._table_bytes -= _size(self._table.pop())


def _size(header: Header) -> int:
    return len(header[0]) + len(header[1]) + _ENTRY_BYTES


def _number(block: bytes, at: int, bits: int) -> tuple[int, int]:
    """An integer whose first `bits` bits stand at the end of a byte, and where it ends."""
    limit = (1 << bits) - 1
    value = block[at] & limit
    at += 1
    if value < limit:
        return value, at
    shift = 0
    while True:
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, at
        if shift > 28:
            raise malformed("a number without end")


def _text(block: bytes, at: int) -> tuple[bytes, int]:
    coded = bool(block[at] & 0x80)
    size, at = _number(block, at, 7)
    if at + size > len(block):
        raise malformed("a text that ends early")
    raw = block[at : at + size]
    return (expand(raw) if coded else raw), at + size


def encode(headers: Headers) -> bytes:
    """Headers as literals that no table keeps.

    Example:
        >>> Decoder().decode(encode(((b"grpc-status", b"0"),)))
        ((b'grpc-status', b'0'),)
    """
    return b"".join(b"\x00" + _plain(name) + _plain(value) for name, value in headers)


def _plain(text: bytes) -> bytes:
    """A text without Huffman coding, its length before it."""
    size = len(text)
    if size < 127:
        return bytes((size,)) + text
    head = bytearray((127,))
    size -= 127
    while size >= 128:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + text
