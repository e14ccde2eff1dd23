"""Writing what the cloud's parts read, for tests on a real Kafka."""

import time
from collections.abc import Iterable

from schemas.codec import Framing, encode_telemetry
from schemas.columns import TelemetryColumns
from schemas.records import Record, encode_confluent
from schemas.topics import TELEMETRY, Topic
from transport.kafka import KafkaSettings, Outgoing, publish, register_schemas


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def publish_telemetry(kafka: KafkaSettings, columns: TelemetryColumns) -> None:
    payloads = encode_telemetry(
        columns.vehicle_ids,
        columns.boot_id,
        columns.seq,
        columns.oldest_seq,
        columns.uptime_ms,
        columns.clock_synced,
        columns.counts,
        columns.event_time_ms,
        columns.values,
        signals=columns.signals,
        framing=Framing.CONFLUENT,
        schema_id=register_schemas(kafka, [TELEMETRY]).id_of(TELEMETRY),
    )
    pairs = zip(columns.vehicle_ids, payloads, strict=True)
    publish(kafka, [Outgoing(TELEMETRY.name, payload, key) for key, payload in pairs])


def publish_records(kafka: KafkaSettings, topic: Topic, records: Iterable[Record]) -> None:
    schema_id = register_schemas(kafka, [topic]).id_of(topic)
    publish(
        kafka,
        [
            Outgoing(
                topic.name,
                encode_confluent(topic.record, schema_id, record),
                record.get("vehicle_id", "").encode(),
            )
            for record in records
        ],
    )
