"""A TCP proxy that breaks what passes through it, as an uplink does.

It works on the byte stream, not on packets, so packet loss is what TCP makes of it: a lost segment
stalls everything behind it for a retransmission time-out, which doubles with each further loss, and
a connection that loses the same segment five times in a row is dropped. Other modes are nearer to
the real thing: refused (nobody listens), black hole (accepted, and nothing ever passes: a lost NAT
entry, a tunnel), latency (everything is late, none of it lost), and a narrow way (so many bytes a
second). What was connected during a refusal or a black hole is reset when the way heals.
"""

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

LOOPBACK = "127.0.0.1"
CHUNK_BYTES = 8 * 1024
CHUNKS_MAX = 512
"""On their way in one direction; whoever sends more waits."""

RETRANSMIT_S = 0.2
LOSSES_MAX = 5


@dataclass(frozen=True)
class Weather:
    """What the way is like: `open` whether anybody listens, `passes` whether anything passes."""

    open: bool = True
    passes: bool = True
    latency_s: float = 0.0
    loss: float = 0.0
    bytes_per_s: float = 0.0


@dataclass(eq=False)
class Link:
    """One connection through the proxy."""

    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    def reset(self) -> None:
        for writer in self.writers:
            writer.transport.abort()


class TcpProxy:
    """Listens on one loopback port and passes on to another; a thread of its own does the work."""

    def __init__(self, port: int, target_port: int, *, seed: int) -> None:
        self.port = port
        self._target_port = target_port
        self._rng = random.Random(seed)
        self._weather = Weather()
        self._links: set[Link] = set()
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._apply(Weather()))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._call(self._apply(Weather(open=False)))
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def heal(self) -> None:
        """Everything passes at once, and what was broken is reset."""
        self._call(self._apply(Weather()))

    def refuse(self) -> None:
        """Nobody listens; what is connected is reset."""
        self._call(self._apply(Weather(open=False)))

    def black_hole(self) -> None:
        """Connections are taken, and nothing passes on any, not even their end."""
        self._call(self._apply(Weather(passes=False)))

    def delay(self, one_way_s: float) -> None:
        """Everything comes so much later, in both directions."""
        self._call(self._apply(Weather(latency_s=one_way_s)))

    def lose(self, share: float) -> None:
        """So many segments are lost."""
        self._call(self._apply(Weather(loss=share)))

    def narrow(self, bytes_per_s: float) -> None:
        """No more than so many bytes a second pass in each direction of a connection."""
        self._call(self._apply(Weather(bytes_per_s=bytes_per_s)))

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30.0)

    async def _apply(self, weather: Weather) -> None:
        before, self._weather = self._weather, weather
        if not weather.open or not before.passes:
            for link in list(self._links):
                link.reset()
        if not weather.open and self._server is not None:
            self._server.close()
            self._server = None
        elif weather.open and self._server is None:
            self._server = await asyncio.start_server(self._accept, LOOPBACK, self.port)

    async def _end(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link([writer])
        self._links.add(link)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            onward = await asyncio.open_connection(LOOPBACK, self._target_port)
            link.writers.append(onward[1])
            pumps = [
                asyncio.ensure_future(self._pump(reader, onward[1])),
                asyncio.ensure_future(self._pump(onward[0], writer)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass  # Kafka is away, or the test is over.
        finally:
            link.reset()
            self._links.discard(link)
            self._tasks.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction of one connection, until either end goes."""
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS_MAX)
        arrivals = asyncio.ensure_future(self._arrive(on_the_way, writer))
        with contextlib.suppress(OSError):
            try:
                while data := await reader.read(CHUNK_BYTES):
                    due_s = self._loop.time() + self._weather.latency_s
                    await on_the_way.put((due_s, data))
                    if arrivals.done():
                        break
                await self._until(lambda: on_the_way.empty() or arrivals.done())
            finally:
                arrivals.cancel()
                await asyncio.gather(arrivals, return_exceptions=True)

    async def _arrive(
        self, on_the_way: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter
    ) -> None:
        while True:
            due_s, data = await on_the_way.get()
            await asyncio.sleep(max(0.0, due_s - self._loop.time()))
            await self._until(lambda: self._weather.passes)
            await asyncio.sleep(self._stall_s(len(data)))
            writer.write(data)
            await writer.drain()

    def _stall_s(self, size: int) -> float:
        """How long a chunk takes in the present weather. Raises ConnectionError: given up."""
        weather = self._weather
        stall_s = size / weather.bytes_per_s if weather.bytes_per_s else 0.0
        for losses in range(LOSSES_MAX):
            if self._rng.random() >= weather.loss:
                return stall_s
            stall_s += RETRANSMIT_S * 2.0**losses
        raise ConnectionError("lost the same segment too often")

    async def _until(self, true: Callable[[], bool]) -> None:
        while not true():
            await asyncio.sleep(0.02)
