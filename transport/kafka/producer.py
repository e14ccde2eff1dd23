"""Writers: in transactions, and one-off.

Hot path: `produce_batch` hands a whole list to the library in one call.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from schemas.errors import ContractError, FencedError, MotorcadeError, TransientError
from transport.kafka.config import QUEUE_MESSAGES_MAX, Config, producer_config
from transport.kafka.consumer import GroupMetadata, Partition, dotted
from transport.kafka.faults import (
    Kind,
    ProducerLostError,
    kafka_error,
    kind_of,
    translate,
    translated,
)
from transport.settings import KafkaSettings

Header = tuple[str, bytes | None]

TRANSACTION_TIMEOUT_S = 30.0
"""After it the brokers abort a transaction that its producer left open."""

_RETRY_PAUSE_S = 0.1
_LOOK_S = 1.0
"""While a commit waits, whoever waits for it is asked this often whether to go on."""


class Outgoing(NamedTuple):
    """A record to write; a tuple, as some hundred thousand are made a second.

    Attributes:
        topic: Where to.
        value: None is a tombstone.
        key: Chooses the partition where `partition` is -1.
        partition: -1: by key.
        headers: In order.
        timestamp_ms: Record time; 0: now.
    """

    topic: str
    value: bytes | None
    key: bytes | None = None
    partition: int = -1
    headers: Sequence[Header] = ()
    timestamp_ms: int = 0


class RecordWriter:
    """Queues records, one at a time or a list in one call: what all producers have in common."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._producer: Producer | None = None

    @property
    def client(self) -> Producer:
        """The library's producer. Raises ProducerLostError where it was not started."""
        if self._producer is None:
            raise ProducerLostError("the producer was not started, or is closed")
        return self._producer

    def close(self) -> None:
        """Drop the client; nothing that is queued is delivered any more. Harmless when repeated."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with translated():
                producer.purge()

    def produce(self, out: Outgoing, *, timeout_s: float = 30.0) -> None:
        """Queue one record; waits for room in the queue.

        Raises:
            ContractError: OVERSIZED; nothing was queued, and the transaction may go on.
            TransientError: No room in time; abort.
        """
        with self._judged():
            queue_one(self.client, out, timeout_s)

    def produce_all(
        self,
        records: Iterable[Outgoing],
        *,
        on_delivery: Callable[[int, MotorcadeError], None] | None = None,
        timeout_s: float = 30.0,
    ) -> list[tuple[int, MotorcadeError]]:
        """Queue records of any topics in their order, with headers; waits for room in the queue.

        Args:
            records: Headers that are a list are handed on as they are.
            on_delivery: Told of each record that the brokers refuse, by its number among these;
                costs a call a record. None: only the transaction tells.
            timeout_s: Longest wait for room.

        Returns:
            The records that are too large for this client, by number; they were not queued, and
            the transaction may go on.

        Raises:
            TransientError: No room in time; abort.
        """
        refused: list[tuple[int, MotorcadeError]] = []
        with self._judged():
            produce = self.client.produce
            for number, out in enumerate(records):
                topic, value, key, partition, headers, timestamp_ms = out
                report = {} if on_delivery is None else {"on_delivery": _told(number, on_delivery)}
                try:
                    produce(
                        topic,
                        value,
                        key,
                        partition,
                        headers=headers if type(headers) is list else list(headers),
                        timestamp=timestamp_ms,
                        **report,
                    )
                except BufferError:
                    queue_one(self.client, out, timeout_s, report.get("on_delivery"))
                except KafkaException as error:
                    wrong = translate(kafka_error(error))
                    if not isinstance(wrong, ContractError):
                        raise
                    refused.append((number, wrong))
        return refused

    def flush(self, timeout_s: float = 30.0) -> None:
        """Wait until the brokers have answered for all that is queued; serves `on_delivery`."""
        with self._judged():
            if self.client.flush(timeout_s):
                raise TransientError(f"Kafka: records not stored in {timeout_s:g} s")

    def poll(self) -> None:
        """Serve call-backs, such as `on_error`; never waits."""
        with self._judged():
            self.client.poll(0)

    def produce_batch(
        self,
        topic: str,
        messages: list[dict[str, Any]],
        *,
        partition: int = -1,
        timeout_s: float = 30.0,
    ) -> None:
        """Queue records in their order; waits for room in the queue.

        Args:
            topic: Where to.
            messages: Dictionaries with `value`, and `key` where wanted. The library may add
                `_error` to them; a `partition` in them it passes over.
            partition: Of all of them; -1: by key.
            timeout_s: Longest wait for room.

        Raises:
            ContractError: OVERSIZED, of the first such record; abort: others may be queued.
            TransientError: No room in time; abort.
        """
        step = QUEUE_MESSAGES_MAX // 2
        with self._judged():
            for start in range(0, len(messages), step):
                chunk = messages[start : start + step] if len(messages) > step else messages
                self._make_room(len(chunk), timeout_s)
                if self.client.produce_batch(topic, chunk, partition) != len(chunk):
                    raise first_error(chunk)

    def _make_room(self, messages: int, timeout_s: float) -> None:
        """Waits until the queue takes so many more, for a batch must not go in by halves."""
        if len(self.client) + messages > QUEUE_MESSAGES_MAX and self.client.flush(timeout_s):
            raise TransientError(f"Kafka takes no records: queue full for {timeout_s:g} s")

    @contextmanager
    def _judged(self) -> Iterator[None]:
        """Errors of the library as ours."""
        with translated():
            yield


class TransactionalProducer(RecordWriter):
    """Writes records and group offsets so that all of a transaction count, or none.

    One transaction at a time. `commit` and `abort` may run on another thread while nothing else
    is called; they let go of the interpreter while they wait. A transaction that is open when it
    is closed is left to time out, or to the next start.

    Args:
        settings: Where Kafka is.
        transactional_id: Whose transactions; there is one producer of an id at a time.
        transaction_timeout_s: After it the brokers abort one that is left open.
        on_error: Told what the client says without being asked: that no broker can be reached, or
            that they do not let it in. Called by `start`, `poll`, `flush` and `commit`; the client
            goes on trying.
        options: The library's, with `_` for `.`.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        transactional_id: str,
        *,
        transaction_timeout_s: float = TRANSACTION_TIMEOUT_S,
        on_error: Callable[[MotorcadeError], None] | None = None,
        **options: Any,
    ) -> None:
        told = {} if on_error is None else {"error_cb": _serious(on_error)}
        super().__init__(
            producer_config(settings)
            | {
                "transactional.id": transactional_id,
                "transaction.timeout.ms": int(transaction_timeout_s * 1000),
                **told,
                **dotted(options),
            }
        )
        self._timeout_s = transaction_timeout_s
        self._began_s = 0.0

    def start(self, timeout_s: float = 30.0) -> None:
        """Take over the transactional id: fence whoever had it and settle what it left open.

        Raises:
            TransientError: Kafka did not answer in time; call it again.
            SettingsError: Kafka refuses this client.
        """
        self.close()
        with translated():
            producer = Producer(self._config)
            try:
                self._retried(producer.init_transactions, timeout_s)
            finally:
                producer.poll(0)  # For `on_error`: only it says why no broker lets this client in.
        self._producer = producer

    def begin(self) -> None:
        """Open a transaction. Raises ProducerLostError or FencedError."""
        self._began_s = time.monotonic()
        with self._judged():
            self.client.begin_transaction()

    def send_offsets(
        self, offsets: Mapping[Partition, int], group: GroupMetadata, *, timeout_s: float = 30.0
    ) -> None:
        """Let the group's offsets move with the transaction.

        Args:
            offsets: Next offset to read of each partition.
            group: The member, from `LogConsumer.group_metadata` when the batch was taken: a
                rebalance since then makes this fail, as it must.
            timeout_s: Longest wait.

        Raises:
            AbortNeededError: The member is no longer of that generation, or Kafka did not answer.
        """
        wanted = [TopicPartition(t, p, offset) for (t, p), offset in offsets.items()]
        with self._judged():
            self._retried(
                lambda left_s: self.client.send_offsets_to_transaction(wanted, group, left_s),
                timeout_s,
            )

    def commit(
        self, timeout_s: float = 30.0, *, on_wait: Callable[[float], None] | None = None
    ) -> None:
        """Make the transaction count, once its records are stored.

        Args:
            timeout_s: Longest wait.
            on_wait: Called about once a second while it waits, with how long it has waited; may
                raise, and then it is not known whether the transaction counts.

        Raises:
            AbortNeededError: It cannot; abort it.
            ProducerLostError: It is not known whether it did.
        """
        began_s = time.monotonic()

        def commit_for(left_s: float) -> None:
            try:
                self.client.commit_transaction(left_s if on_wait is None else min(left_s, _LOOK_S))
            except KafkaException as error:
                if on_wait is not None and kafka_error(error).retriable():
                    on_wait(time.monotonic() - began_s)
                raise

        with self._judged():
            try:
                self._retried(commit_for, timeout_s)
            except TransientError as error:
                if type(error) is TransientError:
                    raise ProducerLostError(str(error)) from error
                raise

    def abort(self, timeout_s: float = 30.0) -> None:
        """Make the transaction never to have been.

        Raises:
            ProducerLostError: Not known whether it did; a new producer settles it.
        """
        with self._judged():
            try:
                self._retried(self.client.abort_transaction, timeout_s)
            except TransientError as error:
                raise ProducerLostError(str(error)) from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A block whose records count if it ends well; an exception aborts and goes on up.

        Raises:
            ProducerLostError: As `commit` and `abort`; start again.
        """
        self.begin()
        try:
            yield
            self.commit()
        except (FencedError, ProducerLostError):
            raise
        except BaseException:
            self.abort()
            raise

    def _retried(self, call: Callable[[float], Any], timeout_s: float) -> None:
        """Repeats a call while its error says that it may be repeated, for at most `timeout_s`."""
        until_s = time.monotonic() + timeout_s
        while True:
            left_s = until_s - time.monotonic()
            try:
                call(max(left_s, _RETRY_PAUSE_S))
                return
            except KafkaException as error:
                if not kafka_error(error).retriable() or left_s <= _RETRY_PAUSE_S:
                    raise translate(kafka_error(error)) from error
            time.sleep(_RETRY_PAUSE_S)

    @contextmanager
    def _judged(self) -> Iterator[None]:
        """Errors as ours; being fenced by the brokers' own time-out is no other process's doing."""
        try:
            with translated():
                yield
        except FencedError as error:
            if time.monotonic() - self._began_s < self._timeout_s:
                raise
            raise ProducerLostError(f"transaction timed out: {error}") from error


def publish(
    settings: KafkaSettings, records: Iterable[Outgoing], *, timeout_s: float = 30.0
) -> int:
    """Write a few records and wait until all are stored; for what needs no transaction.

    Returns:
        How many were written.

    Raises:
        TransientError: Not all were stored in time; some may be, so repeating may repeat them.
        ContractError: OVERSIZED.
    """
    failed: list[KafkaError] = []

    def report(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failed.append(error)

    with translated():
        producer = Producer(producer_config(settings))
        written = 0
        for out in records:
            queue_one(producer, out, timeout_s, report)
            written += 1
        left = producer.flush(timeout_s)
    if failed:
        raise translate(failed[0])
    if left:
        raise TransientError(f"{left} of {written} records not stored in {timeout_s:g} s")
    return written


def queue_one(
    producer: Producer,
    out: Outgoing,
    timeout_s: float,
    report: Callable[[KafkaError | None, Message], None] | None = None,
) -> None:
    """Queues one record, waiting for room for at most `timeout_s`."""
    until_s = time.monotonic() + timeout_s
    options = {"on_delivery": report} if report else {}
    while True:
        try:
            producer.produce(
                out.topic,
                out.value,
                out.key,
                out.partition,
                headers=list(out.headers),
                timestamp=out.timestamp_ms,
                **options,
            )
            return
        except BufferError as error:
            if time.monotonic() > until_s:
                raise TransientError(f"Kafka: queue full for {timeout_s:g} s") from error
            producer.poll(_RETRY_PAUSE_S)


def _serious(on_error: Callable[[MotorcadeError], None]) -> Callable[[KafkaError], None]:
    """Hands on that no broker can be reached, or that they refuse this client."""

    def told(error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN or kind_of(error.code()) is Kind.SETTINGS:
            on_error(translate(error))

    return told


def _told(
    number: int, on_delivery: Callable[[int, MotorcadeError], None]
) -> Callable[[KafkaError | None, Message], None]:
    """A delivery report that tells only what was refused, and which."""

    def report(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            on_delivery(number, translate(error))

    return report


def first_error(messages: list[dict[str, Any]]) -> MotorcadeError:
    """Why a batch was not taken whole."""
    errors = [message["_error"] for message in messages if "_error" in message]
    return translate(errors[0]) if errors else TransientError("Kafka took only part of a batch")
