"""Kafka and the schema registry: the only package that imports `confluent_kafka`.

    settings ─► config ─► admin      topics are there
                      ├─► registry   schemas have ids
                      ├─► producer   transactions; one-off writes
                      ├─► plain      at least once, without transactions
                      ├─► pipeline   writes that are not waited for
                      ├─► telling    what may be lost, without waiting
                      ├─► consumer   a member of a group
                      └─► reading    a stretch of a topic, without a group

Every error of the library leaves as one of `schemas.errors`, by the table in `faults`.
"""

from confluent_kafka import Message

from transport.kafka.admin import (
    TopicDirectory,
    delete_topics,
    ensure_topics,
    missing_topics,
    partition_counts,
    require_topics,
)
from transport.kafka.consumer import (
    GroupMetadata,
    LogConsumer,
    Partition,
    make_consumer,
)
from transport.kafka.faults import AbortNeededError, ProducerLostError
from transport.kafka.pipeline import Delivery, PipelinedProducer
from transport.kafka.plain import AtLeastOnceProducer
from transport.kafka.producer import Header, Outgoing, TransactionalProducer, publish
from transport.kafka.reading import Span, latest_offsets, read_range, read_to_end, spans
from transport.kafka.registry import SchemaIds, register_schemas
from transport.kafka.telling import TellingProducer
from transport.settings import KafkaSettings

__all__ = [
    "AbortNeededError",
    "AtLeastOnceProducer",
    "Delivery",
    "GroupMetadata",
    "Header",
    "KafkaSettings",
    "LogConsumer",
    "Message",
    "Outgoing",
    "Partition",
    "PipelinedProducer",
    "ProducerLostError",
    "SchemaIds",
    "Span",
    "TellingProducer",
    "TopicDirectory",
    "TransactionalProducer",
    "delete_topics",
    "ensure_topics",
    "latest_offsets",
    "make_consumer",
    "missing_topics",
    "partition_counts",
    "publish",
    "read_range",
    "read_to_end",
    "register_schemas",
    "require_topics",
    "spans",
]
