"""The REST door: uvicorn on the server's event loop, with bounds on what a client may take.

The only module that imports uvicorn. It parses with httptools and is asked for no framework, no
access log and no signal handlers. What it does not bound is bounded here: connections, the size of
a request's head, and the time of a client that sends or reads slowly.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from cloud.serving import v2_json
from cloud.serving.client_bounds import BACKLOG, SWEEP_S, ClientBounds
from cloud.serving.refusals import OverloadError
from cloud.serving.rest_app import RETRY_AFTER_S, RestApp
from cloud.serving.rpc_parts import RpcParts

HEAD_BYTES_MAX = 32 << 10


class _BoundedProtocol(HttpToolsProtocol):
    """A connection; `bounds` is set by the subclass that a door makes for itself."""

    bounds: ClientBounds

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse one too many."""
        self._head_since_s: float | None = self.loop.time()
        self._body_since_s: float | None = None
        self._stalled_since_s: float | None = None
        self._head_bytes = 0
        super().connection_made(transport)
        if len(self.connections) > self.bounds.connections_max:
            transport.write(_full())
            transport.close()

    def data_received(self, data: bytes) -> None:
        """Note when a request begins."""
        if self.parser is None or self.transport.is_closing():
            return
        if self._head_since_s is None and self._body_since_s is None:
            self._head_since_s = self.loop.time()
        super().data_received(data)

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head_since_s, self._body_since_s = None, self.loop.time()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._head_since_s = self._body_since_s = None
        super().on_message_complete()

    def pause_writing(self) -> None:
        self._stalled_since_s = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stalled_since_s = None
        super().resume_writing()

    def is_too_slow(self, now_s: float) -> bool:
        """Whether the client has taken more time than it may."""
        bounds = self.bounds
        return (
            _over(self._head_since_s, bounds.head_timeout_s, now_s)
            or _over(self._body_since_s, bounds.body_timeout_s, now_s)
            or _over(self._stalled_since_s, bounds.body_timeout_s, now_s)
        )

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES_MAX:
            # The parser turns it into its own error, and uvicorn that into status 400.
            raise ValueError("the head of the request is too large")


def _over(since_s: float | None, limit_s: float, now_s: float) -> bool:
    return since_s is not None and now_s - since_s > limit_s


def _full() -> bytes:
    body = v2_json.write_error(OverloadError("too many connections"))
    head = (
        f"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nretry-after: {RETRY_AFTER_S}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the command's."""
        yield


class RestDoor:
    """Serves REST on a socket. `start` and `stop` on the loop.

    Args:
        parts: Of the server.
        bounds: Of clients.
        drain_timeout_s: Longest wait for requests under way when it stops.
    """

    def __init__(self, parts: RpcParts, bounds: ClientBounds, *, drain_timeout_s: float) -> None:
        protocol: type[Any] = type("Protocol", (_BoundedProtocol,), {"bounds": bounds})
        config = uvicorn.Config(
            RestApp(parts),
            http=protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=max(1, round(bounds.idle_timeout_s)),
            timeout_graceful_shutdown=max(1, round(drain_timeout_s)),
        )
        # It warns of every client that speaks no HTTP.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        self._server = _Uvicorn(config)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, listener: socket.socket) -> None:
        """Serve on a bound socket, which becomes the door's."""
        self._tasks = [
            asyncio.create_task(self._server.serve(sockets=[listener])),
            asyncio.create_task(self._sweep()),
        ]
        while not self._server.started:
            if self._tasks[0].done():
                await self._tasks[0]
            await asyncio.sleep(0)

    async def stop(self) -> None:
        """Take no more connections, finish what is under way, and close."""
        self._server.should_exit = True
        serving, sweeping = self._tasks
        await serving
        sweeping.cancel()

    async def _sweep(self) -> None:
        """Drop clients that are too slow."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_S)
            now_s = loop.time()
            for connection in list(self._server.server_state.connections):
                if isinstance(connection, _BoundedProtocol) and connection.is_too_slow(now_s):
                    connection.transport.abort()
