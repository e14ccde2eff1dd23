"""From the MQTT network thread to the storing thread: a queue that is bounded and pushes back.

When it is full, `put` blocks the network thread. Then nothing is read from the socket, TCP fills
up, and the broker keeps what comes; nothing was acknowledged, so nothing is lost. Should the
broker take that silence for death, the client reconnects and gets the messages again.
"""

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple


class Inbound(NamedTuple):
    """One MQTT message as received; `token` acknowledges it.

    `received_ms`, `gateway_boot` and `monotonic_ms` say when (`edge.timekeeper.Stamp`).
    """

    topic: str
    payload: bytes
    user_properties: Sequence[tuple[str, str]]
    received_ms: int
    token: int
    gateway_boot: int = 0
    monotonic_ms: int = 0


class Intake:
    """Bounded queue of received messages, for one thread on each side.

    Args:
        messages_max: Messages held at most.
        bytes_max: Bytes of payload held at most; a message is taken while less are held.
    """

    def __init__(self, *, messages_max: int, bytes_max: int) -> None:
        self._messages_max = messages_max
        self._bytes_max = bytes_max
        self._queue: deque[Inbound] = deque()
        self._bytes = 0
        self._since_s = 0.0
        self._wake_at = 1
        self._closed = False
        lock = threading.Lock()
        self._filled = threading.Condition(lock)
        self._drained = threading.Condition(lock)
        self.waits = 0

    def put(self, message: Inbound) -> bool:
        """Hand a message over; blocks while the queue is full. False when it was closed."""
        with self._filled:
            if self._full():
                self.waits += 1
                self._filled.notify()
                self._drained.wait_for(lambda: self._closed or not self._full())
            if self._closed:
                return False
            if not self._queue:
                self._since_s = time.monotonic()
            self._queue.append(message)
            self._bytes += len(message.payload)
            if len(self._queue) >= self._wake_at:
                self._filled.notify()
            return True

    def take(
        self, *, group_max: int, group_s: float, timeout_s: float, group_bytes_max: int = 1 << 62
    ) -> list[Inbound]:
        """Take the next group.

        Waits up to `timeout_s` for a first message, then until `group_max` have come, the queue
        is full, or `group_s` have passed since the first one came, which may be before the call.
        What is queued when the intake is closed still comes.

        Returns:
            Up to `group_max` messages, in order of arrival; fewer where `group_bytes_max` of
            payload are reached with the last of them; none after a time-out.
        """
        with self._filled:
            if not self._wait(1, time.monotonic() + timeout_s):
                return []
            self._wait(group_max, self._since_s + group_s)
            group: list[Inbound] = []
            size = 0
            while self._queue and len(group) < group_max and size < group_bytes_max:
                group.append(self._queue.popleft())
                size += len(group[-1].payload)
            self._bytes -= size
            self._drained.notify()
            return group

    def _wait(self, count: int, deadline_s: float) -> bool:
        """Wait for `count` messages; whether there is any."""
        self._wake_at = count
        while len(self._queue) < count and not self._closed and not self._full():
            if not self._filled.wait(max(0.0, deadline_s - time.monotonic())):
                break
        return bool(self._queue)

    @property
    def is_full(self) -> bool:
        """Whether `put` blocks."""
        return self._full()

    def _full(self) -> bool:
        return len(self._queue) >= self._messages_max or self._bytes >= self._bytes_max

    def close(self) -> None:
        """Take no more, and wake both sides."""
        with self._filled:
            self._closed = True
            self._filled.notify_all()
            self._drained.notify_all()
