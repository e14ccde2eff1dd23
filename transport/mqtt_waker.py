"""How another thread wakes one that waits for a socket."""

import contextlib
import socket

_DRAINED_BYTES = 4_096


class Waker:
    """A pair of sockets: `reader` belongs into the selector of the thread that waits."""

    def __init__(self) -> None:
        self.reader, self._writer = socket.socketpair()
        self.reader.setblocking(False)
        self._writer.setblocking(False)

    def wake(self) -> None:
        """From any thread; harmless when repeated."""
        # A full pipe wakes as well, and a closed one has nobody to wake.
        with contextlib.suppress(OSError):
            self._writer.send(b"\0")

    def drain(self) -> None:
        """Take what woke; by the thread that waits."""
        with contextlib.suppress(BlockingIOError):
            while len(self.reader.recv(_DRAINED_BYTES)) == _DRAINED_BYTES:
                pass

    def close(self) -> None:
        """Nobody waits any more."""
        self.reader.close()
        self._writer.close()
