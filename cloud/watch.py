"""Alerts as they come: `vehicle.alerts`, read committed, with filters."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cloud.decoding import decode_plain
from schemas.errors import ContractError
from schemas.records import Record
from schemas.topics import ALERTS
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
        Records `Alert`, times as integers of milliseconds.

    Raises:
        SettingsError: There is no such topic, or Kafka refuses this client.
        TransientError: Kafka or the registry did not answer at the start, or, without `follow`,
            fell silent. While following, a connection that is lost comes back by itself.
    """
    ids = register_schemas(kafka, [ALERTS])
    start = _start(wanted, kafka)
    halt = stop or threading.Event()
    batches = _follow(kafka, start, halt) if wanted.follow else _once(kafka, start, halt)
    for batch in batches:
        yield from _alerts(batch, wanted, ids, on_broken)


def _start(wanted: AlertFilter, kafka: KafkaSettings) -> dict[int, Span]:
    held = spans(kafka, ALERTS.name, since_ms=wanted.since_ms)
    if wanted.since_ms is not None:
        return held
    return {partition: Span(span.end, span.end) for partition, span in held.items()}


def _once(
    kafka: KafkaSettings, start: dict[int, Span], stop: threading.Event
) -> Iterator[list[Message]]:
    for batch in read_range(kafka, ALERTS.name, start, batch_messages=BATCH_MAX):
        if stop.is_set():
            return
        yield batch


def _follow(
    kafka: KafkaSettings, start: dict[int, Span], stop: threading.Event
) -> Iterator[list[Message]]:
    with make_consumer(kafka, GROUP) as consumer:
        consumer.assign({(ALERTS.name, p): span.start for p, span in start.items()})
        while not stop.is_set():
            yield consumer.consume(BATCH_MAX, POLL_S)


def _alerts(
    batch: list[Message], wanted: AlertFilter, ids: SchemaIds, on_broken: OnBroken | None
) -> Iterator[Record]:
    key = None if wanted.vehicle_id is None else wanted.vehicle_id.encode()
    for message in batch:
        if key is not None and message.key() != key:
            continue
        try:
            yield decode_plain(ALERTS.record, ids.id_of(ALERTS), message.value())
        except ContractError as error:
            if on_broken is not None:
                on_broken(error)
