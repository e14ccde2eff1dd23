"""Frames of HTTP/2 (RFC 9113), their numbers, and the bounds of a connection. Pure."""

from dataclasses import dataclass, field
from enum import IntEnum

from cloud.serving.hpack import LIST_BYTES_MAX, Headers
from transport.tracing import Span

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

STREAMS_MAX = 256
FRAME_BYTES_MAX = 1 << 16
STREAM_WINDOW = 1 << 20
CONNECTION_WINDOW = 1 << 22
RESETS_MAX = 1000
"""Streams that a client may give up beyond those that it let be answered."""

WINDOW_DEFAULT = 65_535
WINDOW_MAX = (1 << 31) - 1
HEAD_BYTES = 9
BLOCK_BYTES_MAX = 2 * LIST_BYTES_MAX


class Frame(IntEnum):
    """Kinds of frames."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY = 0x20

SETTING_STREAMS_MAX = 3
SETTING_WINDOW = 4
SETTING_FRAME_BYTES = 5
SETTING_LIST_BYTES = 6


class ErrorCode(IntEnum):
    """Of a connection or a stream that ends early."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class Http2Error(Exception):
    """The client broke the protocol; the output says so to it, and the connection must end."""


class BrokenError(Exception):
    """What the client did wrong, to be told to it with a code."""

    def __init__(self, code: ErrorCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code


@dataclass(slots=True, eq=False)
class Stream:
    """One request and its answer.

    Attributes:
        id: Odd, rising.
        headers: Of the request.
        body: As far as it is here.
        window: Bytes that may be sent on it.
        ended: Whether the request is whole.
        counted: Bytes that it holds of the budget.
        unacknowledged: Bytes received and not given back to its window.
        begun_s: When its headers were there, by the owner's clock.
        waiting: Rest of an answer that waits for a window.
        trailers: That follow the answer.
        received_ns: When the request was whole, by the monotonic clock; 0: not yet.
        span: Of the request, where it is traced.
    """

    id: int
    headers: Headers
    window: int
    begun_s: float
    body: bytearray = field(default_factory=bytearray)
    ended: bool = False
    counted: int = 0
    unacknowledged: int = 0
    waiting: memoryview | None = None
    trailers: bytes = b""
    received_ns: int = 0
    span: Span | None = None


def unpadded(flags: int, payload: bytes) -> bytes:
    """The payload without its padding, where it has any."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise BrokenError(ErrorCode.PROTOCOL_ERROR, "more padding than frame")
    return payload[1 : len(payload) - payload[0]]
