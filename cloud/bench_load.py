"""Load on a server from one thread over several sockets, one request in flight on each."""

import selectors
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cloud.bench_wire import Wire
from schemas.errors import TransientError

ANSWER_TIMEOUT_S = 30.0
_RECEIVE_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Load:
    """What a server did.

    Attributes:
        requests_per_s: Answered.
        p50_ms: Median time from the send to the whole answer.
        p99_ms: Of a hundred requests one took longer.
    """

    requests_per_s: float
    p50_ms: float
    p99_ms: float


class _Link:
    def __init__(self, port: int, wire: Wire) -> None:
        self.wire = wire
        self.socket = socket.create_connection(("127.0.0.1", port), ANSWER_TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent_s = 0.0

    def open(self) -> None:
        """First bytes, and one answer, so that what follows is the usual case."""
        self.socket.sendall(self.wire.opening())
        self.send()
        while not self.receive():
            pass

    def send(self) -> None:
        self.sent_s = time.perf_counter()
        self.socket.sendall(self.wire.request())

    def receive(self) -> bool:
        """Takes what is there; whether the answer is complete."""
        data = self.socket.recv(_RECEIVE_BYTES)
        if not data:
            raise TransientError("the server closed the connection")
        reply = self.wire.feed(data)
        if reply:
            self.socket.sendall(reply)
        return self.wire.answered()


def load(port: int, wires: Sequence[Wire], *, warmup_s: float, duration_s: float) -> Load:
    """Send requests over a connection each, as fast as they are answered.

    Raises:
        TransientError: The server refused, closed, or did not answer for `ANSWER_TIMEOUT_S`.
    """
    links = [_Link(port, wire) for wire in wires]
    try:
        for link in links:
            link.open()
        run = _alone if len(links) == 1 else _together
        run(links, warmup_s)
        begun_s = time.perf_counter()
        took_s = run(links, duration_s)
        seconds = time.perf_counter() - begun_s
    finally:
        for link in links:
            link.socket.close()
    took_ms = np.array(took_s) * 1000
    p50, p99 = np.percentile(took_ms, [50, 99])
    return Load(len(took_s) / seconds, float(p50), float(p99))


_Run = Callable[[Sequence[_Link], float], list[float]]


def _alone(links: Sequence[_Link], duration_s: float) -> list[float]:
    """One connection needs no selector: a blocking read is the fastest way to wait."""
    (link,) = links
    took_s: list[float] = []
    until_s = time.perf_counter() + duration_s
    while not took_s or link.sent_s < until_s:
        link.send()
        while not link.receive():
            pass
        took_s.append(time.perf_counter() - link.sent_s)
    return took_s


def _together(links: Sequence[_Link], duration_s: float) -> list[float]:
    took_s: list[float] = []
    until_s = time.perf_counter() + duration_s
    with selectors.DefaultSelector() as selector:
        for link in links:
            selector.register(link.socket, selectors.EVENT_READ, link)
            link.send()
        waiting = len(links)
        while waiting:
            ready = selector.select(ANSWER_TIMEOUT_S)
            if not ready:
                raise TransientError(f"no answer for {ANSWER_TIMEOUT_S:g} s")
            for key, _ in ready:
                link = key.data
                if not link.receive():
                    continue
                now_s = time.perf_counter()
                took_s.append(now_s - link.sent_s)
                if now_s < until_s:
                    link.send()
                else:
                    waiting -= 1
    return took_s
