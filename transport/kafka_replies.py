"""The way to a Kafka model server and back: requests out, responses of one partition in."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from schemas.errors import TransientError
from schemas.requests import ResponseColumns, decode_responses
from schemas.topics import REQUESTS, RESPONSES, Topic
from transport.kafka import (
    Delivery,
    KafkaSettings,
    LogConsumer,
    Message,
    Outgoing,
    Partition,
    PipelinedProducer,
    SchemaIds,
    latest_offsets,
    make_consumer,
    partition_counts,
    register_schemas,
)
from transport.tracing import carried

RECEIVE_MAX = 10_000
"""Most responses taken at once."""


@dataclass(frozen=True, slots=True)
class ReplyTopics:
    """Where to ask, and where to be answered.

    Attributes:
        requests: Where requests go.
        responses: Where responses are wanted; the server must allow it.
    """

    requests: Topic = REQUESTS
    responses: Topic = RESPONSES


class ReplyChannel:
    """Writes requests, and reads one partition of the reply topic without a group. One thread.

    Other clients may read the same partition: who reads must pass over what is not his.

    Args:
        kafka: Where Kafka and the registry are.
        topics: Where to write and read.
        timeout_s: Longest wait for each answer of Kafka at the start.
        ids: Schema ids of the topics; None: ask the registry.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topics: ReplyTopics,
        *,
        timeout_s: float = 10.0,
        ids: SchemaIds | None = None,
    ) -> None:
        self._kafka = kafka
        self._topics = topics
        self._timeout_s = timeout_s
        self._ids = ids
        self._partition: Partition | None = None
        self._producer = PipelinedProducer(kafka)
        self._consumer = self._reader()
        self._delivery = Delivery()

    def start(self) -> None:
        """Find the topics, and read the reply partition from its end on.

        Raises:
            TransientError: Kafka or the registry did not answer, or a topic is not there yet.
            SettingsError: They refuse this client.
        """
        topics = [self._topics.requests, self._topics.responses]
        counts = partition_counts(
            self._kafka, [topic.name for topic in topics], timeout_s=self._timeout_s
        )
        missing = [name for name, count in counts.items() if count == 0]
        if missing:
            raise TransientError(f"no such topic yet: {', '.join(missing)}")
        if self._ids is None:
            self._ids = register_schemas(self._kafka, topics)
        name = self._topics.responses.name
        partition = (name, random.randrange(counts[name]))
        self._producer.start()
        self._consumer.start()
        ends = latest_offsets(self._kafka, name, timeout_s=self._timeout_s)
        self._consumer.assign({partition: ends[partition[1]]})
        self._partition = partition

    def close(self) -> None:
        """Drop the connections. Harmless when repeated."""
        self._partition = None
        self._consumer.close()
        self._producer.close()

    @property
    def address(self) -> Partition:
        """Topic and partition where responses are read. Raises TransientError: not started."""
        if self._partition is None:
            raise TransientError("the client was not started, or is closed")
        return self._partition

    @property
    def ids(self) -> SchemaIds:
        """Schema ids of the topics. Raises TransientError: not started."""
        if self._ids is None:
            raise TransientError("the client was not started")
        return self._ids

    def send(self, payload: bytes, key: bytes | None) -> None:
        """Send a request; of one key they arrive in order.

        Raises:
            ContractError: OVERSIZED.
            TransientError: The queue is full.
        """
        headers = [(name, value.encode()) for name, value in carried()]
        out = Outgoing(self._topics.requests.name, payload, key, headers=headers)
        self._producer.produce(out, self._delivery)
        self._serve()

    def send_batch(self, requests: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Send requests, each with its key. Raises as `send`."""
        records: list[dict[str, Any]] = [{"value": v, "key": k} for v, k in requests]
        self._producer.produce_batch(self._topics.requests.name, records, self._delivery)
        self._serve()

    def receive(self, timeout_s: float) -> ResponseColumns:
        """Responses that came; waits for the first one for at most `timeout_s`.

        Raises:
            ContractError: Kafka refuses a request that was sent.
            SettingsError: Kafka refuses this client.
        """
        values = self.receive_values(timeout_s)
        return decode_responses(values, schema_id=self.ids.id_of(self._topics.responses))

    def receive_values(self, timeout_s: float) -> list[bytes]:
        """As `receive`, not decoded."""
        self._serve()
        messages = self._consumer.consume(1, timeout_s)
        if messages:
            messages += self._consumer.consume(RECEIVE_MAX - 1, 0.0)
        return [value or b"" for value in map(Message.value, messages)]

    def _serve(self) -> None:
        """Takes in what became of requests. One that did not arrive is sent again by the caller."""
        self._producer.poll()
        failed, self._delivery.failed = self._delivery.failed, []
        for error, _ in failed:
            if not isinstance(error, TransientError):
                raise error

    def _reader(self) -> LogConsumer:
        return make_consumer(
            self._kafka,
            f"{self._kafka.client_id}-replies",  # Never joined and never committed to.
            socket_nagle_disable=True,
            fetch_wait_max_ms=100,
        )
