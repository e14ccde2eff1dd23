"""One life of the Kafka door's connection: from joining the group to a stop or an error.

take a poll ─► score and answer it ─► hand it to the sink ─► take the next ...
                                            │
rebalance, abort ───────────────────────────┴─► go on at the committed offsets

The assignment is eager: each rebalance takes all partitions and gives all. What was taken while
partitions changed hands is dropped, and taken again at the committed offsets by whoever has them.
"""

import threading
import time
from collections.abc import Callable

from cloud.poll_trace import answering
from cloud.polls import PollSize
from cloud.serving.kafka_poll import RequestPoll
from cloud.serving.kafka_settings import DoorTopics, KafkaDoorSettings
from cloud.serving.kafka_sinks import Sink
from cloud.serving.kafka_stats import DoorBoard
from cloud.serving.kafka_step import RequestStep
from schemas.errors import MotorcadeError
from transport.kafka import AbortNeededError, LogConsumer, Message, Partition

IDLE_WAIT_S = 0.1
"""Longest wait for a request while nothing is under way; bounds how late a stop is seen."""

BUSY_WAIT_S = 0.005
"""The same while answers are on their way, whose deliveries are looked at between two polls."""

FULL_WAIT_S = 0.02
"""How long to wait for deliveries while as many answers as allowed are on their way."""

ABORT_PAUSE_S = 0.05
"""Wait before work whose transaction was aborted is done again."""


class DoorLoop:
    """Consumer and sink of one connection. For one thread.

    Args:
        settings: How.
        topics: Where to read.
        consumer: Not started yet.
        sink: Not entered yet.
        step: Answers polls.
        board: Told what was done.
    """

    def __init__(
        self,
        settings: KafkaDoorSettings,
        topics: DoorTopics,
        *,
        consumer: LogConsumer,
        sink: Sink,
        step: RequestStep,
        board: DoorBoard,
    ) -> None:
        self._topics = topics
        self._consumer = consumer
        self._sink = sink
        self._step = step
        self._board = board
        self._size = PollSize(settings.poll_messages, settings.poll_bytes)
        self._assigned: list[Partition] = []
        self._positions: dict[Partition, int] = {}
        self._must_resume = False
        self._is_paused = False
        self._is_closing = False
        self._trouble: MotorcadeError | None = None

    def run(self, stop: threading.Event) -> None:
        """Answer until told to stop.

        Raises:
            TransientError: Begin anew with another loop.
            FencedError, SettingsError: Give up.
        """
        with self._sink, self._consumer:
            self._consumer.subscribe(
                [self._topics.requests.name],
                on_assign=self._on_assign,
                on_revoke=self._on_revoke,
                on_lost=self._on_lost,
            )
            self._board.state("answering")
            try:
                while not stop.is_set():
                    self._turn_or_abort(stop)
                self._settle_or_abort()
            finally:
                self._is_closing = True

    def _turn_or_abort(self, stop: threading.Event) -> None:
        try:
            self._turn()
        except AbortNeededError:
            self._abort()
            stop.wait(ABORT_PAUSE_S)

    def _turn(self) -> None:
        messages = self._take()
        received_s = time.monotonic()
        if self._trouble is not None:
            trouble, self._trouble = self._trouble, None
            raise trouble
        if self._must_resume:
            self._resume()
        elif messages:
            self._answer(messages, received_s)
        self._sink.progress()
        if self._board.is_due:
            ends = {p: self._consumer.known_end(p) for p in self._positions}
            self._board.tell(lag=sum(max(0, ends[p] - at) for p, at in self._positions.items()))

    def _take(self) -> list[Message]:
        self._hold(self._sink.is_full)
        if self._is_paused:
            return self._consumer.consume(1, FULL_WAIT_S)
        wait_s = BUSY_WAIT_S if self._sink.is_busy else IDLE_WAIT_S
        messages = self._consumer.consume(1, wait_s)
        wanted = self._size.messages
        if messages and wanted > 1 and not self._must_resume:
            messages += self._consumer.consume(wanted - 1, 0.0)
        return messages

    def _hold(self, full: bool) -> None:
        """Stop taking while too much is under way; the group is served all the same."""
        if full == self._is_paused:
            return
        if full:
            self._consumer.pause(self._assigned)
        else:
            self._consumer.resume(self._assigned)
        self._is_paused = full

    def _answer(self, messages: list[Message], received_s: float) -> None:
        request = RequestPoll.of(messages)
        self._size.learn(len(messages), request.poll.payload_bytes)
        group = self._consumer.group_metadata()
        with answering(request.headers):
            answers = self._step.run(request, received_s=received_s, now_ms=_now_ms())
        self._sink.submit(answers, group)
        self._positions |= answers.offsets

    def _abort(self) -> None:
        self._board.add(aborts=1)
        self._sink.abandon()
        self._must_resume = True

    def _settle_or_abort(self) -> None:
        try:
            self._sink.settle()
        except AbortNeededError:  # The next one to have the partitions takes it again.
            self._abort()

    # Assignments

    def _on_assign(self, partitions: list[Partition]) -> dict[Partition, int]:
        self._assigned = partitions
        self._positions = {}
        self._is_paused = False
        self._must_resume = True
        self._board.add(rejoins=1)
        return {}

    def _on_revoke(self, partitions: list[Partition]) -> None:
        """Finishes what is under way; the others wait for it. Errors come out of the turn."""
        self._let_go(self._sink.settle)

    def _on_lost(self, partitions: list[Partition]) -> None:
        """Lets go of what is under way: who has the partitions now answers it again."""
        self._let_go(self._sink.drop)

    def _let_go(self, end: Callable[[], None]) -> None:
        if self._is_closing:
            return
        try:
            end()
        except AbortNeededError:
            self._abort()
        except MotorcadeError as error:
            self._trouble = error
        self._assigned = []
        self._positions = {}
        self._is_paused = False
        self._must_resume = True

    def _resume(self) -> None:
        """Go on where the group is: after a rebalance, or where the transaction did not count."""
        self._must_resume = False
        if not self._assigned:
            return
        starts = {}
        for partition, offset in self._consumer.committed(self._assigned).items():
            first, _ = self._consumer.watermarks(partition)
            starts[partition] = first if offset is None else max(first, offset)
        self._consumer.assign(starts)
        self._positions = starts


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
