"""Alerts, events of models and heartbeats of gateways, read committed, with filters."""

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from cloud.clocks import Clocks
from cloud.decoding import decode_plain
from schemas.errors import ContractError
from schemas.records import CONFLUENT_HEADER_BYTES, Record
from schemas.topics import ALERTS, GATEWAY_STATUS, MODEL_EVENTS, Topic
from schemas.versions import decode_any_version
from scoring.traffic import epoch_ms
from transport.kafka import (
    Message,
    SchemaIds,
    Span,
    make_consumer,
    read_range,
    register_schemas,
    spans,
)
from transport.settings import KafkaSettings

BATCH_MAX = 1_000
POLL_S = 0.2
GROUP = "motorcade-watch"  # never joined; the client library wants a name

OnBroken = Callable[[ContractError], None]


@dataclass(frozen=True, slots=True)
class AlertFilter:
    """Which alerts to show.

    Attributes:
        vehicle_id: Only of this vehicle; None: of all.
        since_ms: From this record time on, milliseconds since the epoch; None: from now on.
        follow: Go on with what comes; False ends at the end of the log.
    """

    vehicle_id: str | None = None
    since_ms: int | None = None
    follow: bool = True


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events of models to show.

    Attributes:
        model: Only of this model; None: of all.
        since_ms: From this record time on, milliseconds since the epoch; None: from now on.
        follow: Go on with what comes; False ends at the end of the log.
    """

    model: str | None = None
    since_ms: int | None = None
    follow: bool = True


@dataclass(frozen=True, slots=True)
class GatewayFilter:
    """Which gateways' heartbeats to show.

    Attributes:
        gateway_id: Only of this gateway; None: of all.
        since_ms: From this record time on, milliseconds since the epoch; None: from now on.
        follow: Go on with what comes; False ends at the end of the log.
    """

    gateway_id: str | None = None
    since_ms: int | None = None
    follow: bool = True


def watch_alerts(
    wanted: AlertFilter,
    kafka: KafkaSettings,
    *,
    stop: threading.Event | None = None,
    on_broken: OnBroken | None = None,
) -> Iterator[Record]:
    """Alerts in order of the log (of each partition; partitions are mixed).

    Args:
        wanted: Which ones.
        kafka: Where they are.
        stop: Ends the iteration within `POLL_S` seconds when set.
        on_broken: Told of records that are no alerts; they are passed over.

    Yields:
        Records `Alert`, times as integers of milliseconds; with `true_event_time` and `true_since`
        where the vehicle's clock was not right and `vehicle.clocks` tells by how much.

    Raises:
        SettingsError: There is no such topic, or Kafka refuses this client.
        TransientError: Kafka or the registry did not answer at the start, or, without `follow`,
            fell silent. While following, a connection that is lost comes back by itself.
    """
    with Clocks(kafka) as clocks:
        for alert in _watch(ALERTS, _of_alerts(wanted), kafka, stop, on_broken):
            yield clocks.corrected(alert)


def watch_events(
    wanted: EventFilter,
    kafka: KafkaSettings,
    *,
    stop: threading.Event | None = None,
    on_broken: OnBroken | None = None,
) -> Iterator[Record]:
    """Records `ModelEvent` in order of the log; all else as of `watch_alerts`."""
    yield from _watch(MODEL_EVENTS, _of_events(wanted), kafka, stop, on_broken)


def watch_gateways(
    wanted: GatewayFilter,
    kafka: KafkaSettings,
    *,
    stop: threading.Event | None = None,
    on_broken: OnBroken | None = None,
) -> Iterator[Record]:
    """Records `GatewayStatus`, also of gateways of an earlier version; else as `watch_alerts`."""
    key = None if wanted.gateway_id is None else wanted.gateway_id.encode()
    chosen = _Wanted(key, wanted.since_ms, wanted.follow)
    for message in _messages(GATEWAY_STATUS, chosen, kafka, stop):
        try:
            yield status_of(message.value() or b"")
        except ContractError as error:
            if on_broken is not None:
                on_broken(error)


def status_of(value: bytes) -> Record:
    """A heartbeat of any version, its time in milliseconds.

    Raises:
        ContractError: It is none.
    """
    record = decode_any_version("GatewayStatus", value[CONFLUENT_HEADER_BYTES:])
    return record | {"time": epoch_ms(record["time"])}


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What of a topic: from a record time on, of one key (None: of all), and whether to go on."""

    key: bytes | None
    since_ms: int | None
    follow: bool


def _of_alerts(wanted: AlertFilter) -> _Wanted:
    key = None if wanted.vehicle_id is None else wanted.vehicle_id.encode()
    return _Wanted(key, wanted.since_ms, wanted.follow)


def _of_events(wanted: EventFilter) -> _Wanted:
    key = None if wanted.model is None else wanted.model.encode()
    return _Wanted(key, wanted.since_ms, wanted.follow)


def _watch(
    topic: Topic,
    wanted: _Wanted,
    kafka: KafkaSettings,
    stop: threading.Event | None,
    on_broken: OnBroken | None,
) -> Iterator[Record]:
    ids = register_schemas(kafka, [topic])
    yield from _decoded(topic, _messages(topic, wanted, kafka, stop), ids, on_broken)


def _messages(
    topic: Topic, wanted: _Wanted, kafka: KafkaSettings, stop: threading.Event | None
) -> Iterator[Message]:
    start = _start(topic, wanted, kafka)
    read = _follow if wanted.follow else _once
    for batch in read(topic, kafka, start, stop or threading.Event()):
        yield from (m for m in batch if wanted.key is None or m.key() == wanted.key)


def _start(topic: Topic, wanted: _Wanted, kafka: KafkaSettings) -> dict[int, Span]:
    held = spans(kafka, topic.name, since_ms=wanted.since_ms)
    if wanted.since_ms is not None:
        return held
    return {partition: Span(span.end, span.end) for partition, span in held.items()}


def _once(
    topic: Topic, kafka: KafkaSettings, start: dict[int, Span], stop: threading.Event
) -> Iterator[list[Message]]:
    for batch in read_range(kafka, topic.name, start, batch_messages=BATCH_MAX):
        if stop.is_set():
            return
        yield batch


def _follow(
    topic: Topic, kafka: KafkaSettings, start: dict[int, Span], stop: threading.Event
) -> Iterator[list[Message]]:
    with make_consumer(kafka, GROUP) as consumer:
        consumer.assign({(topic.name, p): span.start for p, span in start.items()})
        while not stop.is_set():
            yield consumer.consume(BATCH_MAX, POLL_S)


def _decoded(
    topic: Topic, messages: Iterable[Message], ids: SchemaIds, on_broken: OnBroken | None
) -> Iterator[Record]:
    for message in messages:
        try:
            yield decode_plain(topic.record, ids.id_of(topic), message.value())
        except ContractError as error:
            if on_broken is not None:
                on_broken(error)
