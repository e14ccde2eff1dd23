"""Pause and hold: what a scorer does while its model server is away.

Its partitions are paused and polling goes on, so that the brokers see a living member; what was
written before is settled; a stop is answered. The rows in hand wait. When the partitions change
hands meanwhile, or other models shall score, they are given up, unscored and uncommitted, and
whoever has the partitions then reads them again.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cloud.remote.hold import GivenUpError
from cloud.scorer_stats import StatsBoard
from transport.kafka import LogConsumer, Message, Partition

PAUSE_AFTER_S = 1.0
"""A server that answers within this is not paused for: a pause drops what was fetched ahead."""


@dataclass(slots=True)
class Assignment:
    """The partitions of a member, and how often they have changed."""

    partitions: list[Partition] = field(default_factory=list)
    generation: int = 0

    def change(self, partitions: list[Partition]) -> None:
        """They are others now."""
        self.partitions = partitions
        self.generation += 1


@dataclass(frozen=True, slots=True)
class Member:
    """What is kept alive.

    Attributes:
        consumer: Subscribed.
        assignment: Changed by the consumer's call-backs.
        settle: Ends what is being written; called once a hold.
        look: Called with each look at the group; may raise GivenUpError.
    """

    consumer: LogConsumer
    assignment: Assignment
    settle: Callable[[], None]
    look: Callable[[], None]


class ConsumerHold:
    """A `Hold` that keeps a consumer in its group. For one thread.

    Args:
        stop: Ends every wait.
        board: Told what is waited for.
        pause_after_s: How long a wait is only a slow answer.

    Attributes:
        early: Messages that came in spite of the pause, in order; to be scored next, unless the
            rows in hand are given up.
    """

    def __init__(
        self, stop: threading.Event, board: StatsBoard, *, pause_after_s: float = PAUSE_AFTER_S
    ) -> None:
        self._stop = stop
        self._board = board
        self._pause_after_s = pause_after_s
        self._member: Member | None = None
        self._began_s: float | None = None
        self._generation = 0
        self._paused: list[Partition] | None = None
        self._state_before: str | None = None
        self.early: list[Message] = []

    def keep(self, member: Member) -> None:
        """From now on there is a member to keep alive."""
        self._member = member

    def pump(self, wait_s: float, why: str) -> None:
        """As of `Hold`.

        Raises:
            GivenUpError: Told to stop, or the partitions have changed hands.
            AbortNeededError, ProducerLostError: What was being written before did not count.
            TransientError, FencedError, SettingsError: Of the consumer.
        """
        now_s = time.monotonic()
        if self._began_s is None:
            self._begin(now_s)
        if self._member is None or now_s - (self._began_s or now_s) < self._pause_after_s:
            self._stop.wait(wait_s)
        else:
            self._serve(self._member, wait_s, why)
        if self._stop.is_set():
            raise GivenUpError(f"told to stop while waiting for {why}")

    def over(self) -> None:
        """As of `Hold`: deliver again, and say what was said before.

        A partition stays paused when it is given back and comes again, so all are resumed.
        """
        paused, self._paused = self._paused, None
        if paused and self._member is not None:
            self._member.consumer.resume(paused)
        if self._state_before is not None:
            self._board.state(self._state_before)
        self._began_s = self._state_before = None

    def _begin(self, now_s: float) -> None:
        self._began_s = now_s
        if self._member is not None:
            self._generation = self._member.assignment.generation

    def _serve(self, member: Member, wait_s: float, why: str) -> None:
        if self._state_before is None:
            self._state_before = self._board.stats.state
        self._board.state(f"waiting: {why}")
        if self._paused is None:
            self._paused = list(member.assignment.partitions)
            member.consumer.pause(self._paused)
            member.settle()
        self.early += member.consumer.consume(1, wait_s)
        if member.assignment.generation != self._generation:
            self.early.clear()
            raise GivenUpError("the partitions have changed hands")
        member.look()
