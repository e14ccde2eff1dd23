"""What the monitor reads from Kafka: some topics, from a stretch back, then on.

Bounded by what is taken at once; a record that is none of its topic's is counted and passed over.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

from cloud.decoding import decode_plain
from schemas.errors import ContractError
from schemas.records import Record
from schemas.topics import Topic
from transport.kafka import (
    KafkaSettings,
    LogConsumer,
    Message,
    Partition,
    SchemaIds,
    Span,
    make_consumer,
    partition_counts,
    read_range,
    spans,
)

BATCH_MAX = 2_000
GROUP = "motorcade-monitor-reader"  # never joined; the client library wants a name

Records = Mapping[str, list[Record]]
"""By topic, in order within a partition; times are milliseconds."""


class LogTail:
    """Reads topics: what they held since some time, then what comes. Belongs to one thread.

    Args:
        kafka: Where Kafka is.
        topics: Which ones.
        ids: Their schema ids.
        since_ms: From this record time on, milliseconds since the epoch.

    Attributes:
        broken: Records that were none of their topic's.
    """

    def __init__(
        self, kafka: KafkaSettings, topics: Sequence[Topic], ids: SchemaIds, *, since_ms: int
    ) -> None:
        self._kafka = kafka
        self._topics = {topic.name: topic for topic in topics}
        self._ids = ids
        self._since_ms = since_ms
        self._consumer: LogConsumer | None = None
        self._spans: dict[str, dict[int, Span]] = {}
        self.broken = 0

    def __enter__(self) -> Self:
        """Find the stretches.

        Raises:
            TransientError: Kafka did not answer, or a topic is not there yet.
        """
        self._spans = {
            name: spans(self._kafka, name, since_ms=self._since_ms) for name in self._topics
        }
        ends: dict[Partition, int] = {
            (name, partition): span.end
            for name, found in self._spans.items()
            for partition, span in found.items()
        }
        self._consumer = make_consumer(self._kafka, GROUP)
        self._consumer.start()
        self._consumer.assign(ends)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()

    def history(self) -> Iterator[Records]:
        """What the topics held at the start, one topic after the other.

        Raises:
            TransientError: Kafka fell silent.
        """
        for name, wanted in self._spans.items():
            for batch in read_range(self._kafka, name, wanted, batch_messages=BATCH_MAX):
                yield self._decoded(batch)

    def take(self, timeout_s: float) -> Records:
        """What came since. Raises TransientError, SettingsError."""
        if self._consumer is None:
            return {}
        return self._decoded(self._consumer.consume(BATCH_MAX, timeout_s))

    def _decoded(self, messages: Sequence[Message]) -> Records:
        taken: dict[str, list[Record]] = {}
        for message in messages:
            topic = self._topics[message.topic() or ""]
            try:
                record = decode_plain(topic.record, self._ids.id_of(topic), message.value())
            except ContractError:
                self.broken += 1
                continue
            taken.setdefault(topic.name, []).append(record)
        return taken


def missing_topics(kafka: KafkaSettings, topics: Sequence[Topic]) -> tuple[str, ...]:
    """Those that are not there (yet). Raises TransientError."""
    counts = partition_counts(kafka, [topic.name for topic in topics])
    return tuple(name for name, count in counts.items() if not count)
