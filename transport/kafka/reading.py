"""A stretch of a topic, read once, without a group.

Offsets have gaps: a transaction ends with a control record that no reader sees, and aborted
records stay in the log. So the end of a stretch is told by a record at or behind it, or by the
partition's end, never by counting.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, Message

from schemas.errors import SettingsError, TransientError
from transport.kafka.admin import partition_counts
from transport.kafka.config import consumer_config
from transport.kafka.consumer import LogConsumer, dotted, is_final
from transport.kafka.faults import translate, translated
from transport.settings import KafkaSettings

_GROUP = "motorcade-reader"  # never joined and never committed to; the library wants one
_SLICE_S = 0.05
_SETTLE_PAUSE_S = 0.1
_WHOLE = 1 << 62


@dataclass(frozen=True, slots=True)
class Span:
    """Offsets of one partition: `start` included, `end` not."""

    start: int
    end: int


def latest_offsets(
    settings: KafkaSettings, topic: str, *, timeout_s: float = 30.0
) -> dict[int, int]:
    """Of each partition the offset behind its last committed record.

    Raises:
        SettingsError: There is no such topic.
        TransientError: No answer in time.
    """
    return {
        partition: span.end
        for partition, span in spans(settings, topic, timeout_s=timeout_s).items()
    }


def spans(
    settings: KafkaSettings,
    topic: str,
    *,
    since_ms: int | None = None,
    until_ms: int | None = None,
    timeout_s: float = 30.0,
) -> dict[int, Span]:
    """What a topic holds now, or of it the records of a time.

    Args:
        settings: Where Kafka is.
        topic: Which topic.
        since_ms: From the first record of at least this record time; None: from the first.
        until_ms: To before the first record of at least this record time; None: to the last
            committed one.
        timeout_s: Longest wait for each answer.

    Returns:
        A span of each partition; an empty one has start == end.

    Raises:
        SettingsError: There is no such topic.
        TransientError: No answer in time.
    """
    count = partition_counts(settings, [topic], timeout_s=timeout_s)[topic]
    if count == 0:
        raise SettingsError(f"there is no topic {topic!r} at {settings.bootstrap_servers}")
    with _reader(settings) as consumer:
        return {
            partition: _patient_span(consumer, (topic, partition), since_ms, until_ms, timeout_s)
            for partition in range(count)
        }


def read_range(
    settings: KafkaSettings,
    topic: str,
    wanted: Mapping[int, Span],
    *,
    batch_messages: int = 10_000,
    stall_timeout_s: float = 30.0,
    **options: Any,
) -> Iterator[list[Message]]:
    """Committed records of these spans, each once.

    Args:
        settings: Where Kafka is.
        topic: Which topic.
        wanted: Span of each partition to read; an end behind the partition's end is cut to it.
        batch_messages: Most messages in one list.
        stall_timeout_s: Longest silence.
        options: The library's, with `_` for `.`.

    Yields:
        Lists of messages, never empty. In order within a partition; partitions are mixed.

    Raises:
        TransientError: Nothing came for `stall_timeout_s`; what was yielded was right, the rest
            is missing.
    """
    ends = {partition: span.end for partition, span in wanted.items() if span.end > span.start}
    if not ends:
        return
    with _reader(settings, **options) as consumer:
        consumer.assign({(topic, p): wanted[p].start for p in ends})
        heard_s = time.monotonic()
        while ends:
            with translated():
                messages = consumer.client.consume(batch_messages, _SLICE_S)
            if messages:
                heard_s = time.monotonic()
            elif time.monotonic() - heard_s > stall_timeout_s:
                raise TransientError(f"Kafka: nothing of {topic} for {stall_timeout_s:g} s")
            inside = _inside(messages, ends)
            if inside:
                yield inside


def read_to_end(
    settings: KafkaSettings,
    topic: str,
    *,
    start: Mapping[int, int] | None = None,
    since_ms: int | None = None,
    batch_messages: int = 10_000,
    stall_timeout_s: float = 30.0,
) -> Iterator[list[Message]]:
    """Committed records up to the end that the topic has at the first step of the iteration.

    Args:
        settings: Where Kafka is.
        topic: Which topic.
        start: Partition to the offset to start at; others start at their first record.
        since_ms: Start at this record time instead.
        batch_messages: Most messages in one list.
        stall_timeout_s: Longest silence.

    Yields, Raises:
        As `read_range`, and SettingsError where there is no such topic.
    """
    found = spans(settings, topic, since_ms=since_ms, timeout_s=stall_timeout_s)
    started = {
        partition: Span(max(span.start, (start or {}).get(partition, 0)), span.end)
        for partition, span in found.items()
    }
    yield from read_range(
        settings,
        topic,
        started,
        batch_messages=batch_messages,
        stall_timeout_s=stall_timeout_s,
    )


def _reader(settings: KafkaSettings, **options: Any) -> LogConsumer:
    config = consumer_config(settings, _GROUP) | {
        "enable.partition.eof": True,
        **dotted(options),
    }
    return LogConsumer(config)


def _patient_span(
    consumer: LogConsumer,
    partition: tuple[str, int],
    since_ms: int | None,
    until_ms: int | None,
    timeout_s: float,
) -> Span:
    """`_span`, asked again while the brokers settle.

    Right after a topic was made, or a leader has moved, they answer that they do not lead it.
    """
    until_s = time.monotonic() + timeout_s
    while True:
        try:
            return _span(consumer, partition, since_ms, until_ms, timeout_s)
        except TransientError:
            if time.monotonic() > until_s:
                raise
            time.sleep(_SETTLE_PAUSE_S)


def _span(
    consumer: LogConsumer,
    partition: tuple[str, int],
    since_ms: int | None,
    until_ms: int | None,
    timeout_s: float,
) -> Span:
    first, end = consumer.watermarks(partition, timeout_s)

    def at(time_ms: int | None, otherwise: int) -> int:
        if time_ms is None:
            return otherwise
        found = consumer.offsets_at({partition: time_ms}, timeout_s)[partition]
        return end if found is None else min(max(found, first), end)

    start = at(since_ms, first)
    return Span(start, max(start, at(until_ms, end)))


def _inside(messages: list[Message], ends: dict[int, int]) -> list[Message]:
    """The messages before their partition's end; takes out of `ends` what is read to its end."""
    inside = []
    for message in messages:
        partition = message.partition()
        if partition is None or partition not in ends:
            continue
        next_offset = _next_offset(message)
        if message.error() is None and next_offset <= ends[partition]:
            inside.append(message)
        if next_offset >= ends[partition]:
            del ends[partition]
    return inside


def _next_offset(message: Message) -> int:
    """Up to where a partition is known to be read, given this. Raises for a final error."""
    error = message.error()
    offset = message.offset()
    if error is None and offset is not None:
        return offset + 1
    if error is not None and error.code() == KafkaError._PARTITION_EOF:
        return _WHOLE
    if error is not None and is_final(error):
        raise translate(error)
    return -1
