"""The server's side of an HTTP/2 connection for unary calls, by the library h2. No I/O. Hot path.

Bytes go in by `receive`, what has to be sent comes out by `take_output`. A request is handed on
when it is whole; what the client has no window for waits here.

Bounded: streams, the head and the body of a request, what all bodies hold together (by a budget),
streams given up, and frames that further nothing. A client that breaks the protocol is told so and
the connection ends (`Http2Error`). A client that says goodbye gets no more answers: h2 closes then.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import (
    ProtocolError,
    StreamClosedError,
    StreamIDTooLowError,
    TooManyStreamsError,
)
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame

from cloud.serving.budget import UNCOUNTED_BYTES, ByteBudget
from cloud.serving.header_lists import (
    LIST_BYTES_MAX,
    Headers,
    LiteralEncoder,
    RememberingDecoder,
)
from transport.tracing import Span

STREAMS_MAX = 256
FRAME_BYTES_MAX = 1 << 16
STREAM_WINDOW = 1 << 20
CONNECTION_WINDOW = 1 << 22

RESETS_MAX = 1000
"""Streams that a client may have given up or refused beyond those that were answered."""

IDLE_FRAMES_MAX = 2000
"""Frames in a row that neither bring a part of a request nor let a part of an answer go."""

_PART_BYTES = 1 << 14
"""Taken apart at once: between two parts the bounds are looked at."""

_ACKNOWLEDGED_BYTES = 1 << 16
_WINDOW_DEFAULT = 65_535

_CONFIG = H2Configuration(
    client_side=False,
    header_encoding=None,
    # It takes a fifth of a call. The door looks for a few headers, and takes each as bytes of any
    # kind.
    validate_inbound_headers=False,
    # What is sent is written in this package, in the form that it must have.
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
    # It joins cookies, which no call has.
    normalize_inbound_headers=False,
)

_GONE = (StreamClosedError, StreamIDTooLowError, TooManyStreamsError)
"""The stream ended in the bytes that are being taken, and its event is yet to come.

h2 may have forgotten it already; then, to it, we begin one.
"""


class Http2Error(Exception):
    """The client broke the protocol or left: send the output, which says so, and close."""


@dataclass(slots=True, eq=False)
class Stream:
    """One request and its answer.

    Attributes:
        id: Odd, rising.
        headers: Of the request.
        begun_s: When its headers were there, by the owner's clock.
        body: As far as it is here.
        ended: Whether the request is whole.
        counted: Bytes that it holds of the budget.
        waiting: Rest of an answer that waits for a window.
        trailers: That follow the answer.
        received_ns: When the request was whole, by the monotonic clock; 0: not yet.
        span: Of the request, where it is traced.
    """

    id: int
    headers: Headers
    begun_s: float
    body: bytearray = field(default_factory=bytearray)
    ended: bool = False
    counted: int = 0
    waiting: memoryview | None = None
    trailers: Headers = ()
    received_ns: int = 0
    span: Span | None = None


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


class _Connection(H2Connection):
    """h2's, with bounds that no setting has."""

    DEFAULT_MAX_HEADER_LIST_SIZE = LIST_BYTES_MAX
    MAX_CLOSED_STREAMS = 1024  # Remembered, to tell late frames from wrong ones.

    def __init__(self) -> None:
        super().__init__(_CONFIG)
        self.decoder = RememberingDecoder()
        self.encoder = LiteralEncoder()


class Http2Connection:
    """A connection. Not for use by two threads at once.

    Args:
        handler: Answers with `respond` and `refuse`, at once or later.
        budget: Of all connections.
    """

    def __init__(self, handler: Handler, budget: ByteBudget) -> None:
        self._handler = handler
        self._budget = budget
        self._h2 = _Connection()
        self._streams: dict[int, Stream] = {}
        self._out = b""
        self._last_id = 0
        self._unacknowledged = 0
        self._idle_frames = 0
        self._resets = 0
        self._answered = 0
        self._leaving = False
        self._is_open = False

    def open(self) -> None:
        """Have the settings sent."""
        # What stands in the first settings holds at once, though the client cannot know it yet;
        # until it does, streams that are too many are refused one by one.
        self._h2.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: 2 * STREAMS_MAX,
                SettingCodes.MAX_HEADER_LIST_SIZE: LIST_BYTES_MAX,
            },
        )
        self._h2.initiate_connection()
        self._h2.update_settings(
            {
                SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS_MAX,
                SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                SettingCodes.MAX_FRAME_SIZE: FRAME_BYTES_MAX,
            }
        )
        self._h2.increment_flow_control_window(CONNECTION_WINDOW - _WINDOW_DEFAULT)

    @property
    def is_open(self) -> bool:
        """Whether the client said that it speaks HTTP/2."""
        return self._is_open

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
        out, self._out = self._out, b""
        return out + self._h2.data_to_send()

    def receive(self, data: bytes) -> None:
        """Take what the client sent.

        Raises:
            Http2Error: Send the output and close. No stream is left.
        """
        try:
            for at in range(0, len(data), _PART_BYTES):
                self._take(self._h2.receive_data(data[at : at + _PART_BYTES]))
        except ProtocolError as error:
            self.drop()
            raise Http2Error(f"{type(error).__name__}: {error}") from error
        except Http2Error:
            self.drop()
            raise

    def respond(self, stream: Stream, head: Headers, body: bytes, trailers: Headers) -> None:
        """Answer a stream; one that the client gave up is passed over.

        Args:
            stream: As it was handed on.
            head: Of the answer.
            body: Of any size; what the client has no window for waits in memory.
            trailers: That end it.
        """
        if self._streams.get(stream.id) is not stream or stream.waiting is not None:
            return
        try:
            self._h2.send_headers(stream.id, head)
        except _GONE:
            self._forget(stream)
            return
        stream.waiting = memoryview(body)
        stream.trailers = trailers
        self._pump(stream)

    def refuse(self, stream: Stream, head: Headers) -> None:
        """Answer a stream with headers alone."""
        if self._streams.get(stream.id) is stream and stream.waiting is None:
            self._finish(stream, head)

    def leave(self) -> None:
        """Tell the client to send no more requests here; those under way are answered."""
        if not self._leaving:
            self._leaving = True
            # By h2 it would be the last frame of the connection.
            goodbye = GoAwayFrame(last_stream_id=self._last_id, error_code=ErrorCodes.NO_ERROR)
            self._out += self._h2.data_to_send() + goodbye.serialize()

    def drop(self) -> None:
        """Forget all streams: the connection is gone."""
        for stream in self.streams:
            self._forget(stream)

    # Receiving

    def _take(self, events: list[Event]) -> None:
        """Raises Http2Error."""
        if not events:
            return
        self._is_open = True
        self._idle_frames += len(events)
        if isinstance(events[-1], ConnectionTerminated):  # Nothing may follow it.
            raise Http2Error("the client said goodbye")
        for event in events:
            if isinstance(event, RequestReceived):
                self._begin(event.stream_id, event.headers)
            elif isinstance(event, DataReceived):
                self._grow(event)
            elif isinstance(event, StreamEnded):
                self._end(event.stream_id)
            elif isinstance(event, StreamReset):
                self._reset(event.stream_id)
            elif isinstance(event, (WindowUpdated, RemoteSettingsChanged)):
                self._pump_all()
        if self._idle_frames > IDLE_FRAMES_MAX or self._resets > RESETS_MAX + self._answered:
            self._h2.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
            raise Http2Error("too many frames that further nothing, or streams given up")

    def _begin(self, number: int, headers: Headers) -> None:
        self._last_id = number
        if self._leaving or len(self._streams) >= STREAMS_MAX:
            self._resets += 1
            with suppress(*_GONE):
                self._h2.reset_stream(number, ErrorCodes.REFUSED_STREAM)
            return
        self._streams[number] = Stream(number, headers, self._handler.now_s())

    def _grow(self, event: DataReceived) -> None:
        is_last = event.stream_ended is not None
        self._acknowledge(event.stream_id, event.flow_controlled_length, at_once=not is_last)
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return  # It was refused; this was under way.
        if event.data:
            self._idle_frames = 0
            stream.body += event.data
        if len(stream.body) > UNCOUNTED_BYTES and not self._count(stream):
            self._handler.no_room(stream)
        elif not is_last:
            self._handler.grew(stream)

    def _acknowledge(self, number: int, size: int, *, at_once: bool) -> None:
        """Open the windows again; for requests that come whole, once for many of them."""
        self._unacknowledged += size
        if at_once or self._unacknowledged >= _ACKNOWLEDGED_BYTES:
            # What is of other streams counts for the connection; h2 opens the stream's own window
            # no further than it was.
            self._h2.acknowledge_received_data(self._unacknowledged, number)
            self._unacknowledged = 0

    def _count(self, stream: Stream) -> bool:
        more = len(stream.body) - UNCOUNTED_BYTES - stream.counted
        if not self._budget.take(more):
            return False
        stream.counted += more
        return True

    def _end(self, number: int) -> None:
        stream = self._streams.get(number)
        if stream is not None:
            self._idle_frames = 0
            stream.ended = True
            self._handler.complete(stream)

    def _reset(self, number: int) -> None:
        """The client gave a stream up, or made h2 do so."""
        self._resets += 1
        stream = self._streams.get(number)
        if stream is not None:
            self._forget(stream)

    # Sending

    def _pump_all(self) -> None:
        for stream in self.streams:
            if stream.waiting is not None:
                self._pump(stream)

    def _pump(self, stream: Stream) -> None:
        """Send as much of a waiting answer as the windows allow."""
        assert stream.waiting is not None
        try:
            while stream.waiting:
                window = self._h2.local_flow_control_window(stream.id)
                room = min(window, self._h2.max_outbound_frame_size)
                if room <= 0:
                    return
                self._h2.send_data(stream.id, stream.waiting[:room])
                self._idle_frames = 0
                stream.waiting = stream.waiting[room:]
        except _GONE:
            self._forget(stream)
            return
        self._finish(stream, stream.trailers)

    def _finish(self, stream: Stream, headers: Headers) -> None:
        """End the server's side; a client that still sends is told to stop."""
        self._forget(stream)
        try:
            self._h2.send_headers(stream.id, headers, end_stream=True)
            self._answered += 1
            if not stream.ended:
                self._h2.reset_stream(stream.id, ErrorCodes.NO_ERROR)
        except _GONE:
            return

    def _forget(self, stream: Stream) -> None:
        del self._streams[stream.id]
        if stream.counted:
            self._budget.give(stream.counted)
            stream.counted = 0
