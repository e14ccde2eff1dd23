"""Events of models on `model.events`."""

from collections.abc import Iterable

from schemas.records import encode_confluent
from schemas.topics import MODEL_EVENTS
from scoring.events import ModelEvent
from transport.kafka import Outgoing, SchemaIds, publish, register_schemas
from transport.settings import KafkaSettings


def event_record(event: ModelEvent, ids: SchemaIds) -> Outgoing:
    """An event, ready to be written; `ids` knows `model.events`."""
    value = encode_confluent(MODEL_EVENTS.record, ids.id_of(MODEL_EVENTS), event.to_record())
    return Outgoing(MODEL_EVENTS.name, value, event.key, timestamp_ms=event.time_ms)


def publish_events(settings: KafkaSettings, events: Iterable[ModelEvent]) -> None:
    """Write events; returns when they are stored.

    Raises:
        TransientError: Kafka or the registry did not answer in time; repeating may repeat them.
        SettingsError: They refuse this client.
    """
    ids = register_schemas(settings, [MODEL_EVENTS])
    publish(settings, [event_record(event, ids) for event in events])
