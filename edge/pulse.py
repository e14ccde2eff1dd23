"""Whether every loop of a gateway makes progress: what the watchdog is fed by.

Each loop beats once a turn, and says by that within which time the next beat will come. To wait is
progress as long as the wait is bounded: a loop without work, or one whose disk or broker refuses,
turns and beats like any other. One that hangs in a call does not, whoever else is lively.

A loop may wait for another one, as the network thread does when the queue is full; it is then
excused, for the other one's beats count.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

WITHIN_S: dict[str, float] = {
    # A worn card stalls a write for seconds, the worst for a minute.
    "store": 90.0,
    # As well, and a batch or a stretch of history takes its time on a slow board.
    "score": 120.0,
    # Kafka's calls have time-outs of ten seconds, some in a row; a commit may take a minute.
    "forward": 240.0,
    # A model of 16 MB is fetched and tried.
    "releases": 300.0,
    # Resolving a name and connecting; the pause between attempts is added.
    "mqtt": 120.0,
}
"""Longest time between two beats of a loop, until it is taken to hang."""


@dataclass(slots=True)
class _Loop:
    due_s: float
    excused: Callable[[], bool]


def _never() -> bool:
    return False


class Pulse:
    """Beats of loops, each of its own thread; asked from another. Cheap enough for each turn.

    Args:
        monotonic_s: Elapsed time.
        within_s: Longest time between two beats, by the name of the loop.
    """

    def __init__(
        self,
        monotonic_s: Callable[[], float] = time.monotonic,
        within_s: dict[str, float] | None = None,
    ) -> None:
        self._monotonic_s = monotonic_s
        self._within_s = WITHIN_S if within_s is None else within_s
        self._loops: dict[str, _Loop] = {}
        self._of_thread = threading.local()

    @contextmanager
    def loop(self, name: str) -> Iterator[None]:
        """The calling thread is a loop, for as long as the block lasts."""
        self._of_thread.name = name
        self.beat_of(name)
        try:
            yield
        finally:
            self._of_thread.name = None
            self._loops.pop(name, None)

    def beat(self) -> None:
        """The loop of the calling thread has come round; of no loop, it changes nothing."""
        name = getattr(self._of_thread, "name", None)
        if name is not None:
            self.beat_of(name)

    def beat_of(
        self, name: str, *, more_s: float = 0.0, excused: Callable[[], bool] = _never
    ) -> None:
        """A loop has come round; from any thread.

        Args:
            name: In WITHIN_S.
            more_s: A pause that begins now and is added to what the loop may take.
            excused: Whether it waits for another loop, asked when it is late.
        """
        due_s = self._monotonic_s() + self._within_s[name] + more_s
        self._loops[name] = _Loop(due_s, excused)

    def hanging(self) -> list[str]:
        """Loops that should have come round by now; empty while all make progress."""
        now_s = self._monotonic_s()
        late = [name for name, loop in tuple(self._loops.items()) if now_s > loop.due_s]
        return sorted(name for name in late if not self._is_excused(name))

    def _is_excused(self, name: str) -> bool:
        loop = self._loops.get(name)
        return loop is None or loop.excused()
