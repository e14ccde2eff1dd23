"""Fills the audit's logs from Kafka, read committed."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from cloud.audit import AlertLog, Log, unique_alerts
from cloud.decoding import decode_plain
from schemas.codec import Framing, decode_telemetry
from schemas.errors import ContractError
from schemas.records import Record
from schemas.topics import ALERTS, DEAD_LETTERS, SCORES, TELEMETRY, Topic
from transport.kafka import Message, SchemaIds, read_to_end, register_schemas
from transport.settings import KafkaSettings

BATCH_MESSAGES = 20_000

# One signal is enough to know who sent what; the others would only cost memory.
_SIGNALS = ("speed",)


@dataclass(slots=True)
class Found:
    """What the topics hold.

    Attributes:
        telemetry: Identities in `vehicle.telemetry`.
        scores: Identities in `vehicle.scores`.
        alerts: Alerts by identity.
        dead_letters: Number of each reason in `dead-letters`.
        broken: Records, by topic, that are not what the topic holds.
        observed: First and last event time (ms) of each vehicle's telemetry.
    """

    telemetry: Log = field(default_factory=Log)
    scores: Log = field(default_factory=Log)
    alerts: AlertLog = field(default_factory=lambda: AlertLog((), 0))
    dead_letters: Counter[str] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    observed: dict[str, tuple[int, int]] = field(default_factory=dict)


def read_found(kafka: KafkaSettings, *, since_ms: int | None = None) -> Found:
    """Read all four topics to the end they have now.

    Memory is about 100 bytes a message; meant for a demo or a test, not for a year of a fleet.

    Args:
        kafka: Where they are.
        since_ms: From this record time on, where the log is older than the run.

    Raises:
        SettingsError: A topic is missing.
        TransientError: Kafka or the registry did not answer.
    """
    ids = register_schemas(kafka, [TELEMETRY, SCORES, ALERTS, DEAD_LETTERS])
    found = Found()
    for batch in read_to_end(
        kafka, TELEMETRY.name, since_ms=since_ms, batch_messages=BATCH_MESSAGES
    ):
        _add_telemetry(found, [message.value() or b"" for message in batch], ids)
    for batch in read_to_end(kafka, SCORES.name, since_ms=since_ms, batch_messages=BATCH_MESSAGES):
        _add_scores(found, batch, ids)
    found.alerts = unique_alerts(_records(kafka, ALERTS, ids, found.broken, since_ms))
    for letter in _records(kafka, DEAD_LETTERS, ids, found.broken, since_ms):
        found.dead_letters[letter["reason"]] += 1
    return found


def _add_telemetry(found: Found, payloads: list[bytes], ids: SchemaIds) -> None:
    columns = decode_telemetry(
        payloads, framing=Framing.CONFLUENT, schema_id=ids.id_of(TELEMETRY), signals=_SIGNALS
    )
    vehicle_ids = [name.decode() for name in columns.vehicle_ids]
    found.telemetry.add(vehicle_ids, columns.boot_id, columns.seq, columns.counts)
    found.broken[TELEMETRY.name] += len(columns.rejected)
    first_ms = columns.event_time_ms[columns.starts].tolist()
    last_ms = columns.event_time_ms[columns.starts + columns.counts - 1].tolist()
    for name, first, last in zip(vehicle_ids, first_ms, last_ms, strict=True):
        low, high = found.observed.get(name, (first, last))
        found.observed[name] = (min(low, first), max(high, last))


def _add_scores(found: Found, batch: list[Message], ids: SchemaIds) -> None:
    records = list(_decoded(batch, SCORES, ids, found.broken))
    found.scores.add(
        [record["vehicle_id"] for record in records],
        [record["boot_id"] for record in records],
        [record["seq"] for record in records],
        [len(record["scores"]) for record in records],
    )


def _records(
    kafka: KafkaSettings,
    topic: Topic,
    ids: SchemaIds,
    broken: Counter[str],
    since_ms: int | None,
) -> Iterator[Record]:
    for batch in read_to_end(kafka, topic.name, since_ms=since_ms):
        yield from _decoded(batch, topic, ids, broken)


def _decoded(
    batch: list[Message], topic: Topic, ids: SchemaIds, broken: Counter[str]
) -> Iterator[Record]:
    for message in batch:
        try:
            yield decode_plain(topic.record, ids.id_of(topic), message.value())
        except ContractError:
            broken[topic.name] += 1
