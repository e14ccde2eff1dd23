"""A writer for what may be lost: it never waits and never fails its caller."""

from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from transport.kafka.config import producer_config
from transport.kafka.faults import translated
from transport.kafka.producer import Outgoing
from transport.settings import KafkaSettings

QUEUE_MAX = 10_000
"""Records held while Kafka is away; beyond it new ones are lost."""

KEEP_S = 30.0
"""A record that was not stored for so long is lost."""


class TellingProducer:
    """Queues records and lets the library store them when it can. Belongs to one thread.

    Attributes:
        lost: Records that were not stored: no room, or Kafka away for `KEEP_S`.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._config = producer_config(settings) | {
            "queue.buffering.max.messages": QUEUE_MAX,
            "message.timeout.ms": int(KEEP_S * 1000),
            "linger.ms": 100,
        }
        self._producer: Producer | None = None
        self.lost = 0

    def start(self) -> None:
        """Make the client; connects by itself. Raises SettingsError."""
        with translated():
            self._producer = Producer(self._config)

    def tell(self, out: Outgoing) -> None:
        """Queue a record, or lose it where there is no room. Before `start` nothing happens.

        Raises:
            ContractError: OVERSIZED.
        """
        if self._producer is None:
            return
        with translated():
            self._producer.poll(0)
            try:
                self._producer.produce(
                    out.topic, out.value, out.key, out.partition, on_delivery=self._report
                )
            except BufferError:
                self.lost += 1

    def close(self, timeout_s: float) -> None:
        """Wait until all is stored, no longer than `timeout_s`; the rest is lost."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with translated():
                producer.flush(timeout_s)
                producer.purge()

    def _report(self, error: KafkaError | None, _: Message | Any) -> None:
        if error is not None:
            self.lost += 1
