"""`vehicle.clocks` as a follower sees it: what the wrong times of vehicles truly are."""

from types import TracebackType
from typing import Self

from cloud.decoding import decode_plain
from schemas.clocks import corrected_time_ms
from schemas.errors import ContractError
from schemas.records import Record
from schemas.topics import CLOCKS
from transport.kafka import (
    KafkaSettings,
    LogConsumer,
    Message,
    SchemaIds,
    make_consumer,
    partition_counts,
    read_range,
    register_schemas,
    spans,
)

CLOCKS_MAX = 200_000
"""Boots remembered; beyond it the one heard of longest ago is forgotten."""

BATCH_MAX = 2_000
GROUP = "motorcade-clocks"  # never joined; the client library wants a name


class Clocks:
    """The newest `VehicleClock` of each boot. Belongs to one thread.

    Args:
        kafka: Where they are. Without that topic, as without gateways, nothing is corrected.

    Attributes:
        broken: Records that were none.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._known: dict[tuple[str, int], Record] = {}
        self._consumer: LogConsumer | None = None
        self._ids: SchemaIds | None = None
        self.broken = 0

    def __enter__(self) -> Self:
        """Read what there is.

        Raises:
            TransientError: Kafka or the registry did not answer.
            SettingsError: They refuse this client.
        """
        if not partition_counts(self._kafka, [CLOCKS.name])[CLOCKS.name]:
            return self
        self._ids = register_schemas(self._kafka, [CLOCKS])
        held = spans(self._kafka, CLOCKS.name)
        for batch in read_range(self._kafka, CLOCKS.name, held, batch_messages=BATCH_MAX):
            self._take(batch, self._ids)
        self._consumer = make_consumer(self._kafka, GROUP)
        self._consumer.start()
        self._consumer.assign({(CLOCKS.name, p): span.end for p, span in held.items()})
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

    def corrected(self, alert: Record) -> Record:
        """An alert by what is known now, times as integers of milliseconds.

        Returns:
            The same; where its vehicle's clock was not right, with `true_event_time` and
            `true_since` beside the times that the vehicle showed.

        Raises:
            TransientError, SettingsError: As of a consumer.
        """
        self._refresh()
        clock = self._known.get((alert["vehicle_id"], alert["boot_id"]))
        event_ms = corrected_time_ms(clock, alert["seq"], alert["event_time"])
        if event_ms == alert["event_time"]:
            return alert
        since_ms = corrected_time_ms(clock, alert["seq"], alert["since"])
        return alert | {"true_event_time": event_ms, "true_since": since_ms}

    def _refresh(self) -> None:
        if self._consumer is not None and self._ids is not None:
            while batch := self._consumer.consume(BATCH_MAX, 0):
                self._take(batch, self._ids)

    def _take(self, messages: list[Message], ids: SchemaIds) -> None:
        for message in messages:
            try:
                record = decode_plain(CLOCKS.record, ids.id_of(CLOCKS), message.value())
            except ContractError:
                self.broken += 1
                continue
            key = (record["vehicle_id"], record["boot_id"])
            self._known.pop(key, None)
            self._known[key] = record
            if len(self._known) > CLOCKS_MAX:
                del self._known[next(iter(self._known))]
