"""The gRPC door: the service on HTTP/2 connections of the server's event loop.

grpcio's servers spend several times what a model does on each call, in hops between threads; here
a call is read, queued and answered on the loop that the batcher lives on. Hot path.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Mapping
from functools import partial
from typing import cast

from cloud.serving import grpc_service, grpc_wire, v2_grpc
from cloud.serving.asks import RPC, Answer, Outcome, answer_all
from cloud.serving.batcher import Batcher
from cloud.serving.client_bounds import BACKLOG, SWEEP_S, ClientBounds
from cloud.serving.http2 import Http2Connection, Http2Error, Stream
from cloud.serving.meter import DoorMeter
from cloud.serving.refusals import OverloadError
from cloud.serving.repository import RepositoryView
from cloud.serving.rpc_parts import RpcParts
from schemas.errors import MotorcadeError
from transport.tracing import begin_served

LARGE_BYTES = 512 << 10
"""Messages of this size are read in the back room."""

DRAIN_LOOK_S = 0.02

_METER = DoorMeter("grpc")

_log = logging.getLogger("motorcade.serve")


class _GrpcProtocol(asyncio.Protocol):
    """A connection."""

    def __init__(self, door: "GrpcDoor") -> None:
        self._door = door
        self._parts = door.parts
        self._batcher: Batcher = door.parts.batcher
        self._loop = asyncio.get_running_loop()
        self._connection = Http2Connection(self, door.parts.budget)
        self._transport: asyncio.Transport | None = None
        self._used_s = self._loop.time()
        self._stalled_since_s: float | None = None

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Refuse one too many."""
        stream_transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it.
        if len(self._door.connections) >= self._door.bounds.connections_max:
            stream_transport.abort()
            return
        self._transport = stream_transport
        self._door.connections.add(self)
        self._connection.open()
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Take frames; answers that are ready go out in one write."""
        if self._transport is None or self._transport.is_closing():
            return
        try:
            self._connection.receive(data)
        except Http2Error as error:
            _log.debug("a gRPC client broke the protocol: %s", error)
            self._flush()
            self._transport.close()
            return
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody waits for what is under way any more."""
        self._door.connections.discard(self)
        self._transport = None
        self._connection.drop()

    def pause_writing(self) -> None:
        """The client does not read: nor do we, so that its requests do not add up."""
        self._stalled_since_s = self._loop.time()
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """It reads again."""
        self._stalled_since_s = None
        if self._transport is not None:
            self._transport.resume_reading()

    # Of the door

    def leave(self) -> None:
        """Take no more requests; close when nothing is under way."""
        self._connection.leave()
        self._flush()
        if self._transport is not None and not self._connection.has_streams:
            self._transport.close()

    def end_if_late(self, now_s: float) -> None:
        """Close if it is unused; abort if the client takes more time than it may."""
        bounds = self._door.bounds
        if self._transport is None:
            return
        streams = list(self._connection.streams)
        slow = (
            (not self._connection.is_open and now_s - self._used_s > bounds.head_timeout_s)
            or (
                self._stalled_since_s is not None
                and now_s - self._stalled_since_s > bounds.body_timeout_s
            )
            or any(
                (not stream.ended or stream.waiting is not None)
                and now_s - stream.begun_s > bounds.body_timeout_s
                for stream in streams
            )
        )
        if slow:
            self._transport.abort()
        elif not streams and now_s - self._used_s > bounds.idle_timeout_s:
            self.leave()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    # http2.Handler

    def now_s(self) -> float:
        """Of the loop."""
        self._used_s = self._loop.time()
        return self._used_s

    def grew(self, stream: Stream) -> None:
        """Refuse what is too large before all of it is here."""
        try:
            grpc_wire.check_size(stream.body, self._parts.limits.request_bytes_max)
        except MotorcadeError as error:
            self._refuse(stream, error)

    def no_room(self, stream: Stream) -> None:
        """The requests of all clients take too much memory."""
        self._refuse(stream, OverloadError("the requests under way take all memory"))

    def complete(self, stream: Stream) -> None:
        """Answer a request."""
        stream.received_ns = time.monotonic_ns()
        try:
            self._call(stream)
        except MotorcadeError as error:
            self._refuse(stream, error)

    def _call(self, stream: Stream) -> None:
        headers = dict(stream.headers)
        if not headers.get(b"content-type", b"").startswith(b"application/grpc"):
            self._connection.refuse(stream, grpc_wire.NO_GRPC)
            return
        path = headers.get(b":path", b"")
        message = grpc_wire.message_of(
            stream.body, stream.headers, self._parts.limits.request_bytes_max
        )
        stream.body = bytearray()
        if path == grpc_service.INFER_PATH:
            self._infer(stream, headers, message)
        elif path in grpc_service.AT_ONCE:
            self._reply(stream, grpc_service.AT_ONCE[path](self._parts, message))
        elif path in grpc_service.ASIDE:
            unary = grpc_service.ASIDE[path]
            self._aside(stream, lambda _view: unary(self._parts, message))
        else:
            raise grpc_wire.UnimplementedError(f"no method {path.decode('latin-1')}")

    def _infer(self, stream: Stream, headers: Mapping[bytes, bytes], message: bytes) -> None:
        stream.span = begin_served("grpc infer", stream.headers)
        received_ns = stream.received_ns
        timeout = headers.get(b"grpc-timeout")
        deadline_ns = received_ns + grpc_wire.timeout_ns(timeout) if timeout else 0
        if len(message) > LARGE_BYTES:
            self._aside(stream, partial(self._large, message, received_ns, deadline_ns))
            return
        try:
            call = v2_grpc.read_call(
                message,
                limits=self._parts.limits,
                received_ns=received_ns,
                deadline_ns=deadline_ns,
            )
        except MotorcadeError as error:
            self._parts.observer.failed("", error, deployment=RPC)
            raise
        self._batcher.submit(call.ask, partial(self._answered, stream, call))

    def _answered(self, stream: Stream, call: v2_grpc.Call, outcome: Outcome) -> None:
        if isinstance(outcome, Answer):
            self._reply(stream, v2_grpc.write_answer(call, outcome))
        else:
            self._refuse(stream, outcome)
        self._flush()

    def _large(
        self, message: bytes, received_ns: int, deadline_ns: int, view: RepositoryView
    ) -> bytes:
        """All of a large request, in the back room."""
        call = v2_grpc.read_call(
            message, limits=self._parts.limits, received_ns=received_ns, deadline_ns=deadline_ns
        )
        (outcome,) = answer_all(view, [call.ask], self._parts.observer)
        if not isinstance(outcome, Answer):
            raise outcome
        return v2_grpc.write_answer(call, outcome)

    def _aside(self, stream: Stream, work: grpc_service.Aside) -> None:
        """Have a response made in the back room. Raises OverloadError."""

        def done(made: bytes | MotorcadeError) -> None:
            if isinstance(made, bytes):
                self._reply(stream, made)
            else:
                self._refuse(stream, made)
            self._flush()

        self._parts.back_room.submit(work, done)

    def _reply(self, stream: Stream, message: bytes) -> None:
        self._answered_with(stream, "0", None)
        self._connection.respond(
            stream, grpc_wire.HEAD, grpc_wire.framed(message), grpc_wire.TRAILERS_OK
        )

    def _refuse(self, stream: Stream, error: MotorcadeError) -> None:
        self._answered_with(stream, str(grpc_wire.status_of(error)), error)
        self._connection.refuse(stream, grpc_wire.refusal(error))

    def _answered_with(self, stream: Stream, status: str, error: MotorcadeError | None) -> None:
        """Count the answer, and end its span."""
        _METER.answered(status, stream.received_ns)
        span, stream.span = stream.span, None
        if span is not None:
            span.end(error)

    def _flush(self) -> None:
        if self._transport is not None:
            out = self._connection.take_output()
            if out:
                self._transport.write(out)


class GrpcDoor:
    """Serves gRPC on a socket. `start` and `stop` on the loop.

    Args:
        parts: Of the server.
        bounds: Of clients.
        drain_timeout_s: Longest wait for requests under way when it stops.
    """

    def __init__(self, parts: RpcParts, bounds: ClientBounds, *, drain_timeout_s: float) -> None:
        self.parts = parts
        self.bounds = bounds
        self.connections: set[_GrpcProtocol] = set()
        self._drain_timeout_s = drain_timeout_s
        self._server: asyncio.Server | None = None
        self._sweeping: asyncio.Task[None] | None = None

    async def start(self, listener: socket.socket) -> None:
        """Serve on a bound socket, which becomes the door's."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _GrpcProtocol(self), sock=listener, backlog=BACKLOG
        )
        self._sweeping = asyncio.create_task(self._sweep())

    async def stop(self) -> None:
        """Take no more requests, finish what is under way, and close."""
        assert self._server is not None and self._sweeping is not None
        self._server.close()
        self._sweeping.cancel()
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._drain_timeout_s
        while self.connections and loop.time() < until_s:
            for connection in list(self.connections):
                connection.leave()
            await asyncio.sleep(DRAIN_LOOK_S)
        for connection in list(self.connections):
            connection.abort()

    async def _sweep(self) -> None:
        """Drop clients that are too slow, and connections that nobody uses."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_S)
            now_s = loop.time()
            for connection in list(self.connections):
                connection.end_if_late(now_s)
