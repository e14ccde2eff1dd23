"""The vehicle's side of delivery: hold each batch until a gateway has it on its disk. Pure.

A batch is freed by nothing but an end-to-end acknowledgement, or when the bounded buffer is full
and it is the oldest; that is counted. What was sent and not acknowledged in time, or before the
connection was lost, is sent again, with waits that double while nothing is acknowledged.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Identity = tuple[int, int]
"""(boot_id, seq)."""


@dataclass(slots=True)
class Held:
    """A batch that is not acknowledged yet.

    `sent_ms` is None while it waits to be sent; `traceparent` where its trace begins, if it has
    one.
    """

    boot_id: int
    seq: int
    readings: int
    payload: bytes
    sent_ms: int | None = None
    sendings: int = 0
    traceparent: str | None = None


class Outbox:
    """Batches of one vehicle, in the order in which they were measured.

    Args:
        capacity: Batches held at most; then the oldest is dropped.
        window: Batches sent and not acknowledged at most.
        resend_after_ms: First wait for an acknowledgement.
        resend_max_ms: Longest such wait.
    """

    def __init__(
        self, *, capacity: int, window: int, resend_after_ms: int, resend_max_ms: int
    ) -> None:
        self._capacity = capacity
        self._window = window
        self._first_wait_ms = resend_after_ms
        self._wait_ms = resend_after_ms
        self._wait_max_ms = resend_max_ms
        self._held: dict[Identity, Held] = {}
        self._unsent: deque[Identity] = deque()
        self._under_way: deque[Identity] = deque()
        self.acknowledged_readings = 0

    def __len__(self) -> int:
        return len(self._held)

    def oldest_seq(self, boot_id: int, default: int) -> int:
        """Lowest held seq of the boot; `default` where none is held."""
        return next((seq for boot, seq in self._held if boot == boot_id), default)

    def add(self, batch: Held) -> Held | None:
        """Hold a new batch; the one that was dropped for it, if any."""
        dropped = None
        if len(self._held) >= self._capacity:
            dropped = self._held.pop(next(iter(self._held)))
        identity = (batch.boot_id, batch.seq)
        self._held[identity] = batch
        self._unsent.append(identity)
        return dropped

    def acknowledge(self, boot_id: int, seq: int, ranges: Sequence[tuple[int, int]]) -> int:
        """Free what is on a disk: all of the boot up to `seq`, and the ranges. How many."""
        covered = self._covered(boot_id, seq, ranges)
        for identity in covered:
            self.acknowledged_readings += self._held.pop(identity).readings
        if covered:
            self._wait_ms = self._first_wait_ms
        return len(covered)

    def _covered(self, boot_id: int, seq: int, ranges: Sequence[tuple[int, int]]) -> list[Identity]:
        top = max([seq, *(last for _, last in ranges)])
        covered = []
        for identity in self._held:
            boot, at = identity
            if boot != boot_id:
                continue
            if at > top:
                break  # held in order of measuring, so nothing behind it is covered
            if at <= seq or any(first <= at <= last for first, last in ranges):
                covered.append(identity)
        return covered

    def due(self, now_ms: int) -> Iterator[Held]:
        """Batches to send now, oldest first; each counts as sent when it is taken."""
        self._time_out(now_ms)
        while self._unsent and len(self._under_way) < self._window:
            identity = self._unsent.popleft()
            batch = self._held.get(identity)
            if batch is None:
                continue
            batch.sent_ms = now_ms
            batch.sendings += 1
            self._under_way.append(identity)
            yield batch

    def give_back(self, batch: Held) -> None:
        """The batch just taken could not be handed over: it is to be sent next."""
        self._under_way.pop()
        batch.sent_ms = None
        batch.sendings -= 1
        self._unsent.appendleft((batch.boot_id, batch.seq))

    def connection_lost(self) -> None:
        """Nothing under way can be relied upon: send it again, in order."""
        again = [identity for identity in self._under_way if identity in self._held]
        self._under_way.clear()
        for identity in reversed(again):
            self._held[identity].sent_ms = None
            self._unsent.appendleft(identity)

    def _time_out(self, now_ms: int) -> None:
        while self._under_way and self._under_way[0] not in self._held:
            self._under_way.popleft()
        if len(self._under_way) >= self._window:
            self._under_way = deque(i for i in self._under_way if i in self._held)
        if not self._under_way:
            return
        sent_ms = self._held[self._under_way[0]].sent_ms or 0
        if now_ms - sent_ms >= self._wait_ms:
            self._wait_ms = min(2 * self._wait_ms, self._wait_max_ms)
            self.connection_lost()
