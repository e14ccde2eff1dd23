"""Requests as bytes on a socket: clients so lean that what is measured is the server.

A client library costs more than a good server does, and on two cores it takes the time from it;
so the request is laid out once and only its answer is looked for. They speak just enough of
HTTP/1.1 and of gRPC over HTTP/2 to measure any server that speaks them, and check that each
answer has the bytes that it must have.
"""

import struct
from dataclasses import dataclass, field
from typing import Protocol

from schemas.errors import TransientError

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 0x1, 0x4, 0x1
_INITIAL_WINDOW_SETTING = 4
_MAX_FRAME_SETTING = 5
_WINDOW_MAX = (1 << 31) - 1
_WINDOW_DEFAULT = 65_535
_FRAME_BYTES = 16_384


class Wire(Protocol):
    """One connection that sends the same request again and again, one in flight."""

    def opening(self) -> bytes:
        """What goes out first of all."""
        ...

    def request(self) -> bytes:
        """The next request."""
        ...

    def feed(self, data: bytes) -> bytes:
        """Take bytes of the server; what this gives goes back at once.

        Raises:
            TransientError: The server refused, or its answer is not the one expected.
        """
        ...

    def answered(self) -> bool:
        """Whether the answer to the last request is complete; asked once, forgets it."""
        ...


@dataclass(slots=True)
class HttpWire:
    """HTTP/1.1, kept alive.

    Attributes:
        path: Of the POST.
        body: Of the request.
        content_type: Of the body.
        headers: More of them.
        expected: Bytes that stand somewhere in each answer; empty: any.
        answer: Body of the last answer.
    """

    path: str
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    expected: bytes = b""
    answer: bytes = b""
    _buffer: bytes = b""
    _complete: bool = False
    _request: bytes = b""

    def opening(self) -> bytes:
        """Nothing."""
        return b""

    def request(self) -> bytes:
        """The whole of it, laid out once."""
        if not self._request:
            lines = [
                f"POST {self.path} HTTP/1.1",
                "Host: localhost",
                f"Content-Type: {self.content_type}",
                f"Content-Length: {len(self.body)}",
                *(f"{name}: {value}" for name, value in self.headers),
            ]
            self._request = "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body
        return self._request

    def feed(self, data: bytes) -> bytes:
        """As `Wire.feed`."""
        self._buffer = self._buffer + data if self._buffer else data
        head, gap, rest = self._buffer.partition(b"\r\n\r\n")
        if gap and len(rest) >= _content_length(head):
            if not head.startswith(b"HTTP/1.1 200") or self.expected not in rest:
                raise TransientError(f"the server answered {self._buffer[:500]!r}")
            self.answer, self._buffer, self._complete = rest, b"", True
        return b""

    def answered(self) -> bool:
        """As `Wire.answered`."""
        complete, self._complete = self._complete, False
        return complete


def _content_length(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"\r\ncontent-length:")
    if not found:
        raise TransientError(f"an answer without a length: {head[:200]!r}")
    return int(rest.partition(b"\r\n")[0])


@dataclass(slots=True)
class GrpcWire:
    """A unary gRPC call over HTTP/2.

    Attributes:
        path: `/service/method`.
        message: Bytes of the request.
        expected: Bytes that stand somewhere in each answer; empty: any.
        answer: Message of the last answer.
    """

    path: str
    message: bytes
    expected: bytes = b""
    answer: bytes = b""
    _buffer: bytearray = field(default_factory=bytearray)
    _stream: int = -1
    _data: bytearray = field(default_factory=bytearray)
    _complete: bool = False
    _body: bytes = b""
    _head: bytes = b""
    _window: int = _WINDOW_DEFAULT
    _stream_window: int = _WINDOW_DEFAULT
    _received: int = 0

    def opening(self) -> bytes:
        """Preface, settings, and a window that never closes."""
        self._head = _header_block(self.path)
        self._body = struct.pack(">BI", 0, len(self.message)) + self.message
        settings = struct.pack(">HI", _INITIAL_WINDOW_SETTING, _WINDOW_MAX)
        grow = struct.pack(">I", _WINDOW_MAX - _WINDOW_DEFAULT)
        return _PREFACE + _frame(_SETTINGS, 0, 0, settings) + _frame(_WINDOW, 0, 0, grow)

    def request(self) -> bytes:
        """Headers and data of a new stream.

        Raises:
            TransientError: The server's window is closed, though it answered everything.
        """
        size = len(self._body)
        if size > min(self._window, self._stream_window):
            raise TransientError(f"a window of {self._window} bytes for a request of {size}")
        self._window -= size
        self._stream += 2
        parts = [_frame(_HEADERS, _END_HEADERS, self._stream, self._head)]
        for start in range(0, size, _FRAME_BYTES):
            chunk = self._body[start : start + _FRAME_BYTES]
            last = _END_STREAM if start + _FRAME_BYTES >= size else 0
            parts.append(_frame(_DATA, last, self._stream, chunk))
        return b"".join(parts)

    def feed(self, data: bytes) -> bytes:
        """As `Wire.feed`."""
        buffer = self._buffer
        buffer += data
        at, reply = 0, b""
        while len(buffer) - at >= 9:
            size = int.from_bytes(buffer[at : at + 3], "big")
            if len(buffer) - at < 9 + size:
                break
            kind, flags = buffer[at + 3], buffer[at + 4]
            reply += self._take(kind, flags, bytes(buffer[at + 9 : at + 9 + size]))
            at += 9 + size
        del buffer[:at]
        return reply

    def answered(self) -> bool:
        """As `Wire.answered`."""
        complete, self._complete = self._complete, False
        return complete

    def _take(self, kind: int, flags: int, payload: bytes) -> bytes:
        if kind == _DATA:
            self._data += payload
            self._received += len(payload)
        elif kind == _WINDOW and not flags:
            # Of a stream it comes too late to matter: each has one request.
            self._window = min(_WINDOW_MAX, self._window + int.from_bytes(payload, "big"))
        elif kind == _SETTINGS and not flags & _ACK:
            self._settings(payload)
            return _frame(_SETTINGS, _ACK, 0, b"")
        elif kind == _PING and not flags & _ACK:
            return _frame(_PING, _ACK, 0, payload)
        elif kind in (_RESET, _GOAWAY):
            raise TransientError(f"the server ended the stream or the connection: {payload!r}")
        if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
            return self._finish()
        return b""

    def _finish(self) -> bytes:
        self.answer = bytes(self._data[5:])
        self._data.clear()
        if not self.answer or self.expected not in self.answer:
            raise TransientError(f"the server answered {self.answer[:500]!r}")
        self._complete = True
        if self._received < 1 << 20:
            return b""
        grow, self._received = struct.pack(">I", self._received), 0
        return _frame(_WINDOW, 0, 0, grow)

    def _settings(self, payload: bytes) -> None:
        for at in range(0, len(payload), 6):
            number, value = struct.unpack_from(">HI", payload, at)
            if number == _INITIAL_WINDOW_SETTING:
                self._stream_window = value


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes((kind, flags)) + struct.pack(">I", stream) + payload
    )


def _header_block(path: str) -> bytes:
    """HPACK without compression: literal fields that are not indexed."""
    fields = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    )
    return b"".join(b"\x00" + _text(name) + _text(value) for name, value in fields)


def _text(text: str) -> bytes:
    raw = text.encode()
    assert len(raw) < 127  # One byte of length; paths here are shorter.
    return bytes((len(raw),)) + raw
