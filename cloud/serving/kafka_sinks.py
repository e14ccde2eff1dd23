"""Two ways to write answers so that no request is lost: acknowledged, or in transactions.

The loop hands over the answers of one poll after the other and does not wait. Offsets move behind
what is stored, never before it.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from cloud.committer import Committer
from cloud.dead_letters import Refused, Undertaker
from cloud.serving.kafka_poll import Answers
from cloud.serving.kafka_settings import KafkaDoorSettings
from schemas.errors import ContractError, MotorcadeError, TransientError
from transport.kafka import (
    AbortNeededError,
    Delivery,
    GroupMetadata,
    KafkaSettings,
    LogConsumer,
    Partition,
    PipelinedProducer,
    TransactionalProducer,
)

COMMIT_INTERVAL_S = 0.1
"""Time between two commits of offsets: how much a server that dies has answered at most twice."""

SETTLE_S = 5.0
"""Longest wait for deliveries when partitions go to another replica; what is not through then is
answered again by that one."""

_POLL_S = 0.05

OnStored = Callable[[Answers], None]


class Sink(Protocol):
    """Writes answers and moves the group's offsets behind them."""

    def __enter__(self) -> Self:
        """Make ready. Raises TransientError, SettingsError."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Leave; what is under way may be lost, and its offsets with it."""

    @property
    def is_busy(self) -> bool:
        """Whether anything is under way."""

    @property
    def is_full(self) -> bool:
        """Whether no more should be handed over now."""

    def submit(self, answers: Answers, group: GroupMetadata) -> None:
        """Write the answers of a poll that this member took in this generation of the group.

        Raises:
            AbortNeededError: What was under way does not count: `abandon`, and take it again.
            TransientError, FencedError: As of the producer.
        """

    def progress(self) -> None:
        """Take in what became of earlier answers; does not wait. Raises as `submit`."""

    def settle(self) -> None:
        """Wait until nothing is under way and the offsets are moved. Raises as `submit`."""

    def drop(self) -> None:
        """Leave what is under way to who has the partitions now. Raises as `submit`."""

    def abandon(self) -> None:
        """Forget what is under way: it will be taken again. Raises TransientError."""


@dataclass(frozen=True, slots=True)
class _Sent:
    """Answers on their way."""

    answers: Answers
    delivery: Delivery


class AcknowledgedSink:
    """At least once: offsets are committed once the brokers have all answers up to them.

    Any number of polls may be on their way, within the limits of the settings.

    Args:
        settings: Limits.
        kafka: Where Kafka is.
        consumer: Whose offsets to commit.
        undertaker: Buries answers that the brokers refuse for good.
        on_stored: Told of answers whose records are all stored, in order.
    """

    def __init__(
        self,
        settings: KafkaDoorSettings,
        kafka: KafkaSettings,
        consumer: LogConsumer,
        undertaker: Undertaker,
        *,
        on_stored: OnStored,
    ) -> None:
        self._settings = settings
        self._producer = PipelinedProducer(kafka, linger_ms=settings.linger_ms)
        self._consumer = consumer
        self._undertaker = undertaker
        self._on_stored = on_stored
        self._sent: deque[_Sent] = deque()
        self._messages = 0
        self._bytes = 0
        self._uncommitted: dict[Partition, int] = {}
        self._committed_s = 0.0

    def __enter__(self) -> Self:
        self._producer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._producer.close()

    @property
    def is_busy(self) -> bool:
        """Whether a record is not stored yet, or an offset not committed."""
        return bool(self._sent or self._uncommitted)

    @property
    def is_full(self) -> bool:
        """Whether as much is on its way as the settings allow."""
        settings = self._settings
        return (
            self._messages >= settings.in_flight_messages or self._bytes >= settings.in_flight_bytes
        )

    def submit(self, answers: Answers, group: GroupMetadata) -> None:
        """As `Sink.submit`; the member does not matter: a commit too many repeats answers."""
        delivery = Delivery()
        for batch in answers.scores:
            self._producer.produce_batch(
                batch.topic, batch.messages, delivery, partition=batch.partition
            )
        for out in answers.others:
            self._producer.produce(out, delivery)
        self._sent.append(_Sent(answers, delivery))
        self._messages += answers.records
        self._bytes += answers.payload_bytes

    def progress(self) -> None:
        """As `Sink.progress`; commits every `COMMIT_INTERVAL_S`."""
        self._poll(0.0)
        if self._uncommitted and time.monotonic() - self._committed_s > COMMIT_INTERVAL_S:
            self._consumer.commit(self._uncommitted, wait=False)
            self._committed()

    def settle(self) -> None:
        """As `Sink.settle`, for at most `SETTLE_S`. Raises TransientError beyond it."""
        until_s = time.monotonic() + SETTLE_S
        while self._sent and time.monotonic() < until_s:
            self._poll(_POLL_S)
        if self._uncommitted:
            self._consumer.commit(self._uncommitted, wait=True)
            self._committed()
        if self._sent:
            raise TransientError(f"{self._messages} responses were not stored in {SETTLE_S:g} s")

    def drop(self) -> None:
        """As `Sink.drop`."""
        self.abandon()

    def abandon(self) -> None:
        """As `Sink.abandon`; what is under way may still be stored."""
        self._sent.clear()
        self._uncommitted = {}
        self._messages = self._bytes = 0

    def _committed(self) -> None:
        self._uncommitted = {}
        self._committed_s = time.monotonic()

    def _poll(self, timeout_s: float) -> None:
        self._producer.poll(timeout_s)
        while self._sent and self._sent[0].delivery.left == 0:
            sent = self._sent[0]
            if sent.delivery.failed:
                self._bury(sent.delivery)
                return
            self._sent.popleft()
            self._messages -= sent.answers.records
            self._bytes -= sent.answers.payload_bytes
            self._uncommitted |= sent.answers.offsets
            self._on_stored(sent.answers)

    def _bury(self, delivery: Delivery) -> None:
        """Write dead letters for what the brokers refuse; they count as the answers did.

        Raises the first error that may pass: the requests are taken and answered again.
        """
        failed, delivery.failed = delivery.failed, []
        now_ms = time.time_ns() // 1_000_000
        for error, message in failed:
            refused = Refused.of(message)
            if not isinstance(error, ContractError) or self._is_letter(refused):
                raise _again(error)
            letter = self._undertaker.letter(refused, error, now_ms=now_ms, model_version=None)
            self._producer.produce(letter, delivery)

    def _is_letter(self, refused: Refused) -> bool:
        return refused.topic == self._undertaker.topic


def _again(error: MotorcadeError) -> MotorcadeError:
    if isinstance(error, ContractError):
        return TransientError(f"a dead letter was refused: {error}")
    return error


@contextmanager
def _refusal_aborts() -> Iterator[None]:
    """A record that the brokers refuse keeps the transaction from counting: it is done again.

    It is tried until they take it, for neither the record nor those beside it may be left out.
    """
    try:
        yield
    except ContractError as error:
        raise AbortNeededError(f"a record was refused: {error}") from error


class TransactionSink:
    """Exactly once: the answers of a poll and the offsets behind it are one transaction.

    One transaction is finished while the next poll is scored.

    Args:
        settings: Whose transactional id.
        kafka: Where Kafka is.
        on_stored: Told of answers that count, in order.
    """

    def __init__(
        self, settings: KafkaDoorSettings, kafka: KafkaSettings, *, on_stored: OnStored
    ) -> None:
        producer = TransactionalProducer(
            kafka,
            settings.member_id,
            transaction_timeout_s=settings.transaction_timeout_s,
            linger_ms=settings.linger_ms,
            socket_nagle_disable=True,
        )
        self._committer = Committer(producer, on_committed=on_stored)

    def __enter__(self) -> Self:
        self._committer.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._committer.__exit__(kind, error, tb)

    @property
    def is_busy(self) -> bool:
        """Whether a transaction is under way."""
        return self._committer.is_busy

    @property
    def is_full(self) -> bool:
        """Never: `submit` waits for the transaction before."""
        return False

    def submit(self, answers: Answers, group: GroupMetadata) -> None:
        """As `Sink.submit`, after the transaction before it."""
        with _refusal_aborts():
            self._committer.submit(answers, group)

    def progress(self) -> None:
        """As `Sink.progress`."""
        if not self._committer.is_busy:
            self.settle()

    def settle(self) -> None:
        """As `Sink.settle`."""
        with _refusal_aborts():
            self._committer.settle()

    def drop(self) -> None:
        """As `Sink.drop`: the offsets of a former member make the transaction fail."""
        self.settle()

    def abandon(self) -> None:
        """As `Sink.abandon`: the transaction never was."""
        self._committer.abort()
