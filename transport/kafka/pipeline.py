"""A writer that does not wait: records are handed over, and their deliveries counted.

Hot path: `produce_batch` hands a whole list to the library in one call; of each record one call
of `Delivery` comes back.
"""

import time
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from schemas.errors import MotorcadeError, TransientError
from transport.kafka.config import QUEUE_MESSAGES_MAX, producer_config
from transport.kafka.consumer import dotted
from transport.kafka.faults import translate, translated
from transport.kafka.producer import Outgoing, first_error, queue_one
from transport.settings import KafkaSettings


class Delivery:
    """What becomes of records that were handed over together.

    Attributes:
        left: Records of which nothing is known yet.
        failed: The error of each record that the brokers did not take for good, with the record.
    """

    __slots__ = ("failed", "left")

    def __init__(self) -> None:
        self.left = 0
        self.failed: list[tuple[MotorcadeError, Message]] = []

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        """As the library's delivery report; runs inside `PipelinedProducer.poll`."""
        self.left -= 1
        if error is not None:
            self.failed.append((translate(error), message))


class PipelinedProducer:
    """Writes records in order and tells later what became of them. For one thread.

    A record is tried for `message_timeout_s`; each is stored once (the producer is idempotent)
    unless it is handed over again.

    Args:
        settings: Where Kafka is.
        linger_ms: How long a record waits for company.
        message_timeout_s: Beyond it a record that could not be stored fails.
        options: The library's, with `_` for `.`.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        linger_ms: float = 0.0,
        message_timeout_s: float = 120.0,
        **options: Any,
    ) -> None:
        self._producer: Producer | None = None
        self._config = producer_config(settings) | {
            "linger.ms": linger_ms,
            "message.timeout.ms": int(message_timeout_s * 1000),
            "socket.nagle.disable": True,
            **dotted(options),
        }

    def start(self) -> None:
        """Make the client. Does not talk to Kafka yet. Raises SettingsError."""
        with translated():
            self._producer = Producer(self._config)

    def close(self) -> None:
        """Drop the client; what is queued is not delivered any more. Harmless when repeated."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with translated():
                producer.purge()

    @property
    def client(self) -> Producer:
        """The library's producer. Raises TransientError where it was not started."""
        if self._producer is None:
            raise TransientError("the producer was not started, or is closed")
        return self._producer

    def produce(self, out: Outgoing, delivery: Delivery, *, timeout_s: float = 30.0) -> None:
        """Hand over one record; waits for room in the queue.

        Raises:
            ContractError: OVERSIZED; nothing was handed over.
            TransientError: No room in time.
        """
        with translated():
            delivery.left += 1
            try:
                queue_one(self.client, out, timeout_s, delivery)
            except BaseException:
                delivery.left -= 1
                raise

    def produce_batch(
        self,
        topic: str,
        messages: list[dict[str, Any]],
        delivery: Delivery,
        *,
        partition: int = -1,
        timeout_s: float = 30.0,
    ) -> None:
        """Hand over records in their order; waits for room in the queue.

        Args:
            topic: Where to.
            messages: Dictionaries with `value`, and `key` where wanted, at most half as many as a
                producer holds. The library may add `_error` to them.
            delivery: Counts them.
            partition: Of all of them; -1: by key.
            timeout_s: Longest wait for room.

        Raises:
            ContractError: OVERSIZED, of the first such record; others were handed over.
            TransientError: No room in time.
        """
        self._make_room(len(messages), timeout_s)
        with translated():
            delivery.left += len(messages)
            taken = self.client.produce_batch(topic, messages, partition, delivery)
        if taken != len(messages):
            delivery.left -= len(messages) - taken
            raise first_error(messages)

    def poll(self, timeout_s: float = 0.0) -> None:
        """Take in what became of records; waits for the first news for at most `timeout_s`."""
        with translated():
            self.client.poll(timeout_s)

    def _make_room(self, messages: int, timeout_s: float) -> None:
        """Waits until the queue takes so many more, for a batch must not go in by halves."""
        until_s = time.monotonic() + timeout_s
        while len(self.client) + messages > QUEUE_MESSAGES_MAX:
            if time.monotonic() > until_s:
                raise TransientError(f"Kafka takes no records: queue full for {timeout_s:g} s")
            self.poll(0.05)
