"""The server's side of an HTTP/2 connection (RFC 9113), as much of it as gRPC needs. No I/O.

Bytes go in by `receive`, what has to be sent comes out by `take_output`. A request is handed on
when it is whole. The general libraries cost several times what a model does for each request; here
a request of usual shape is two frames taken apart and three put together.

Bounded: streams, the head and the body of a request, what all bodies hold together (by a budget),
and resets. A client that breaks the protocol is told so and the connection ends (`Http2Error`).
"""

import struct
from collections.abc import Iterator
from typing import Protocol

from cloud.serving.budget import UNCOUNTED_BYTES, ByteBudget
from cloud.serving.hpack import LIST_BYTES_MAX, Decoder
from cloud.serving.http2_frames import (
    ACK,
    BLOCK_BYTES_MAX,
    CONNECTION_WINDOW,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES_MAX,
    HEAD_BYTES,
    PADDED,
    PREFACE,
    PRIORITY,
    RESETS_MAX,
    SETTING_FRAME_BYTES,
    SETTING_LIST_BYTES,
    SETTING_STREAMS_MAX,
    SETTING_WINDOW,
    STREAM_WINDOW,
    STREAMS_MAX,
    WINDOW_DEFAULT,
    WINDOW_MAX,
    BrokenError,
    ErrorCode,
    Frame,
    Http2Error,
    Stream,
    unpadded,
)
from schemas.errors import ContractError, Reason


class Handler(Protocol):
    """Who answers."""

    def complete(self, stream: Stream) -> None:
        """A request is whole."""
        ...

    def grew(self, stream: Stream) -> None:
        """More of a body is here, not all; a request may be refused now."""
        ...

    def no_room(self, stream: Stream) -> None:
        """The budget is exhausted; the request is to be refused."""
        ...

    def now_s(self) -> float:
        """Monotonic."""
        ...


class Http2Connection:
    """A connection. Not for use by two threads at once.

    Args:
        handler: Answers with `respond` and `refuse`, at once or later.
        budget: Of all connections.
    """

    def __init__(self, handler: Handler, budget: ByteBudget) -> None:
        self._handler = handler
        self._budget = budget
        self._decoder = Decoder()
        self._streams: dict[int, Stream] = {}
        self._rest = b""
        self._preface = PREFACE
        self._out = bytearray()
        self._last_id = 0
        self._window = WINDOW_DEFAULT
        self._stream_window = WINDOW_DEFAULT
        self._frame_bytes = 16_384
        self._unacknowledged = 0
        self._block: tuple[int, int, bytearray] | None = None
        self._resets = 0
        self._answered = 0
        self._leaving = False

    def open(self) -> None:
        """Have the settings sent."""
        settings = b"".join(
            struct.pack(">HI", number, value)
            for number, value in (
                (SETTING_STREAMS_MAX, STREAMS_MAX),
                (SETTING_WINDOW, STREAM_WINDOW),
                (SETTING_FRAME_BYTES, FRAME_BYTES_MAX),
                (SETTING_LIST_BYTES, LIST_BYTES_MAX),
            )
        )
        self._send(Frame.SETTINGS, 0, 0, settings)
        self._send_window(0, CONNECTION_WINDOW - WINDOW_DEFAULT)

    @property
    def is_open(self) -> bool:
        """Whether the client said that it speaks HTTP/2."""
        return not self._preface

    @property
    def streams(self) -> Iterator[Stream]:
        """Requests that are not whole or not answered."""
        return iter(list(self._streams.values()))

    @property
    def has_streams(self) -> bool:
        """Whether something is under way."""
        return bool(self._streams)

    def take_output(self) -> bytes:
        """What has to be sent now."""
        out = bytes(self._out)
        self._out.clear()
        return out

    def receive(self, data: bytes) -> None:
        """Take what the client sent.

        Raises:
            Http2Error: Send the output and close.
        """
        try:
            self._receive(self._rest + data if self._rest else data)
        except BrokenError as error:
            self._send_goaway(error.code, str(error))
            raise Http2Error(str(error)) from None
        except ContractError as error:
            oversized = error.reason is Reason.OVERSIZED
            code = ErrorCode.ENHANCE_YOUR_CALM if oversized else ErrorCode.COMPRESSION_ERROR
            self._send_goaway(code, error.detail)
            raise Http2Error(str(error)) from None

    def respond(self, stream: Stream, head: bytes, body: bytes, trailers: bytes) -> None:
        """Answer a stream; one that the client gave up is passed over.

        Args:
            stream: As it was handed on.
            head: Header block.
            body: Of any size; what the client has no window for waits in memory.
            trailers: Header block.
        """
        if self._streams.get(stream.id) is not stream or stream.waiting is not None:
            return
        self._send(Frame.HEADERS, END_HEADERS, stream.id, head)
        size = len(body)
        if size <= self._window and size <= stream.window and size <= self._frame_bytes:
            self._window -= size
            self._send(Frame.DATA, 0, stream.id, body)
            self._finish(stream, trailers)
            return
        stream.waiting = memoryview(body)
        stream.trailers = trailers
        self._pump(stream)

    def refuse(self, stream: Stream, head: bytes) -> None:
        """Answer a stream with headers alone."""
        if self._streams.get(stream.id) is stream and stream.waiting is None:
            self._finish(stream, head)

    def leave(self) -> None:
        """Tell the client to send no more requests here; those under way are answered."""
        if not self._leaving:
            self._leaving = True
            self._send_goaway(ErrorCode.NO_ERROR, "")

    def drop(self) -> None:
        """Forget all streams: the connection is gone."""
        for stream in self.streams:
            self._forget(stream)

    # Receiving

    def _receive(self, data: bytes) -> None:
        at = 0
        if self._preface:
            at = min(len(data), len(self._preface))
            if data[:at] != self._preface[:at]:
                raise BrokenError(ErrorCode.PROTOCOL_ERROR, "no HTTP/2")
            self._preface = self._preface[at:]
        end = len(data)
        while end - at >= HEAD_BYTES:
            size = data[at] << 16 | data[at + 1] << 8 | data[at + 2]
            if size > FRAME_BYTES_MAX:
                raise BrokenError(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {size} bytes")
            start = at + HEAD_BYTES
            if start + size > end:
                break
            number = int.from_bytes(data[at + 5 : start], "big") & WINDOW_MAX
            self._take(data[at + 3], data[at + 4], number, data[start : start + size])
            at = start + size
        self._rest = data[at:]

    def _take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._block is not None and (kind != Frame.CONTINUATION or number != self._block[0]):
            raise BrokenError(ErrorCode.PROTOCOL_ERROR, "headers that were not ended")
        if kind == Frame.DATA:
            self._take_data(flags, number, payload)
        elif kind == Frame.HEADERS:
            self._take_headers(flags, number, payload)
        elif kind == Frame.WINDOW_UPDATE:
            self._take_window(number, payload)
        elif kind == Frame.PING:
            self._take_ping(flags, number, payload)
        elif kind == Frame.SETTINGS:
            self._take_settings(flags, number, payload)
        elif kind == Frame.RST_STREAM:
            self._take_reset(number, payload)
        elif kind == Frame.CONTINUATION:
            self._take_continuation(flags, payload)
        elif kind == Frame.PUSH_PROMISE:
            raise BrokenError(ErrorCode.PROTOCOL_ERROR, "a client that pushes")
        elif kind == Frame.GOAWAY:
            self._leaving = True

    def _take_headers(self, flags: int, number: int, payload: bytes) -> None:
        if flags & (PADDED | PRIORITY):
            payload = unpadded(flags, payload)[5 if flags & PRIORITY else 0 :]
        if flags & END_HEADERS:
            self._begin(number, flags, payload)
        else:
            self._block = (number, flags, bytearray(payload))

    def _take_continuation(self, flags: int, payload: bytes) -> None:
        if self._block is None:
            raise BrokenError(ErrorCode.PROTOCOL_ERROR, "a continuation of nothing")
        number, first_flags, block = self._block
        block += payload
        if len(block) > BLOCK_BYTES_MAX:
            raise BrokenError(ErrorCode.ENHANCE_YOUR_CALM, "headers that are too large")
        if flags & END_HEADERS:
            self._block = None
            self._begin(number, first_flags, bytes(block))

    def _begin(self, number: int, flags: int, block: bytes) -> None:
        headers = self._decoder.decode(block)
        known = self._streams.get(number)
        if known is not None:
            self._end_with_trailers(known, flags)
            return
        if not number & 1 or number <= self._last_id:
            raise BrokenError(ErrorCode.PROTOCOL_ERROR, f"stream {number} cannot begin")
        self._last_id = number
        if self._leaving or len(self._streams) >= STREAMS_MAX:
            self._send_reset(number, ErrorCode.REFUSED_STREAM)
            return
        stream = Stream(number, headers, self._stream_window, self._handler.now_s())
        self._streams[number] = stream
        if flags & END_STREAM:
            stream.ended = True
            self._handler.complete(stream)

    def _end_with_trailers(self, stream: Stream, flags: int) -> None:
        if stream.ended or not flags & END_STREAM:
            raise BrokenError(ErrorCode.PROTOCOL_ERROR, f"headers within stream {stream.id}")
        stream.ended = True
        self._handler.complete(stream)

    def _take_data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._unacknowledged += size
        if self._unacknowledged >= CONNECTION_WINDOW // 2:
            self._send_window(0, self._unacknowledged)
            self._unacknowledged = 0
        stream = self._streams.get(number)
        if stream is None:
            if number > self._last_id or not number:
                raise BrokenError(ErrorCode.PROTOCOL_ERROR, f"data of stream {number}")
            return  # It was refused or given up; this was under way.
        if stream.ended:
            raise BrokenError(ErrorCode.STREAM_CLOSED, f"data behind stream {number}")
        stream.body += unpadded(flags, payload) if flags & PADDED else payload
        if len(stream.body) > UNCOUNTED_BYTES and not self._count(stream):
            self._handler.no_room(stream)
        elif flags & END_STREAM:
            stream.ended = True
            self._handler.complete(stream)
        else:
            self._open_window(stream, size)
            self._handler.grew(stream)

    def _open_window(self, stream: Stream, size: int) -> None:
        stream.unacknowledged += size
        if stream.unacknowledged >= STREAM_WINDOW // 2:
            self._send_window(stream.id, stream.unacknowledged)
            stream.unacknowledged = 0

    def _count(self, stream: Stream) -> bool:
        more = len(stream.body) - UNCOUNTED_BYTES - stream.counted
        if not self._budget.take(more):
            return False
        stream.counted += more
        return True

    def _take_window(self, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise BrokenError(ErrorCode.FRAME_SIZE_ERROR, "a window update")
        more = int.from_bytes(payload, "big") & WINDOW_MAX
        if not number:
            self._window += more
            if self._window > WINDOW_MAX:
                raise BrokenError(ErrorCode.FLOW_CONTROL_ERROR, "a window too large")
            for stream in [s for s in self._streams.values() if s.waiting is not None]:
                self._pump(stream)
            return
        stream_or_none = self._streams.get(number)
        if stream_or_none is not None:
            stream_or_none.window += more
            if stream_or_none.window > WINDOW_MAX:
                raise BrokenError(ErrorCode.FLOW_CONTROL_ERROR, "a window too large")
            self._pump(stream_or_none)

    def _take_ping(self, flags: int, number: int, payload: bytes) -> None:
        if number or len(payload) != 8:
            raise BrokenError(ErrorCode.FRAME_SIZE_ERROR, "a ping")
        if not flags & ACK:
            self._send(Frame.PING, ACK, 0, payload)

    def _take_settings(self, flags: int, number: int, payload: bytes) -> None:
        if number or len(payload) % 6 or (flags & ACK and payload):
            raise BrokenError(ErrorCode.FRAME_SIZE_ERROR, "settings")
        if flags & ACK:
            return
        for setting, value in struct.iter_unpack(">HI", payload):
            if setting == SETTING_WINDOW:
                self._resize_windows(value)
            elif setting == SETTING_FRAME_BYTES:
                if not 1 << 14 <= value < 1 << 24:
                    raise BrokenError(ErrorCode.PROTOCOL_ERROR, f"frames of {value} bytes")
                self._frame_bytes = value
        self._send(Frame.SETTINGS, ACK, 0, b"")

    def _resize_windows(self, size: int) -> None:
        if size > WINDOW_MAX:
            raise BrokenError(ErrorCode.FLOW_CONTROL_ERROR, "a window too large")
        more, self._stream_window = size - self._stream_window, size
        for stream in self.streams:
            stream.window += more
            self._pump(stream)

    def _take_reset(self, number: int, payload: bytes) -> None:
        if len(payload) != 4 or not 0 < number <= self._last_id:
            raise BrokenError(ErrorCode.PROTOCOL_ERROR, f"a reset of stream {number}")
        self._resets += 1
        if self._resets > RESETS_MAX + self._answered:
            raise BrokenError(ErrorCode.ENHANCE_YOUR_CALM, "too many streams given up")
        stream = self._streams.get(number)
        if stream is not None:
            self._forget(stream)

    # Sending

    def _pump(self, stream: Stream) -> None:
        """Send as much of a waiting answer as the windows allow."""
        waiting = stream.waiting
        if waiting is None:
            return
        while len(waiting):
            size = min(len(waiting), self._window, stream.window, self._frame_bytes)
            if size <= 0:
                stream.waiting = waiting
                return
            self._send(Frame.DATA, 0, stream.id, bytes(waiting[:size]))
            self._window -= size
            stream.window -= size
            waiting = waiting[size:]
        self._finish(stream, stream.trailers)

    def _finish(self, stream: Stream, block: bytes) -> None:
        """End the server's side; a client that still sends is told to stop."""
        self._send(Frame.HEADERS, END_HEADERS | END_STREAM, stream.id, block)
        if not stream.ended:
            self._send_reset(stream.id, ErrorCode.NO_ERROR)
        self._answered += 1
        self._forget(stream)

    def _forget(self, stream: Stream) -> None:
        del self._streams[stream.id]
        self._budget.give(stream.counted)
        stream.counted = 0

    def _send(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._out += struct.pack(">BHBBI", size >> 16, size & 0xFFFF, kind, flags, number)
        self._out += payload

    def _send_window(self, number: int, more: int) -> None:
        self._send(Frame.WINDOW_UPDATE, 0, number, struct.pack(">I", more))

    def _send_reset(self, number: int, code: ErrorCode) -> None:
        self._send(Frame.RST_STREAM, 0, number, struct.pack(">I", code))

    def _send_goaway(self, code: ErrorCode, detail: str) -> None:
        last = struct.pack(">II", self._last_id, code)
        self._send(Frame.GOAWAY, 0, 0, last + detail.encode())
