"""The scores of gateways and of the cloud as they come, for `cloud.monitoring.agreement`.

The cloud's scores are many, and of few of them a gateway's are in the sample. They are read
`agreement_delay_s` after they were written: by then the sample is known, so only that is held, and
of the rest no more is looked at than whose batch it is.

Hot path: a record of the cloud costs a look-up of its vehicle, and where that one is in the sample
two varints more.
"""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from cloud.decoding import decode_plain
from cloud.monitoring.agreement import Agreement, Identity, Outcome
from cloud.monitoring.settings import MonitorSettings
from cloud.monitoring.sources import missing_topics
from schemas.errors import ContractError
from schemas.topics import EDGE_SCORES, SCORES
from scoring.events import ModelEvent
from transport.kafka import (
    KafkaSettings,
    LogConsumer,
    Message,
    Partition,
    SchemaIds,
    make_consumer,
    read_range,
    register_schemas,
    spans,
)
from transport.release_records import headers_of

TOPICS = (EDGE_SCORES, SCORES)
BATCH_MAX = 20_000
LOOK_AGAIN_S = 10.0
GROUP = "motorcade-agreement-reader"  # never joined; the client library wants a name


class AgreementTail:
    """Reads both topics from a while ago on. Belongs to one thread.

    Args:
        settings: Of the monitor.
        kafka: Where Kafka is.
        since_ms: When the monitor began; the stretch of `agreement_window_s` before is read, too.

    Attributes:
        agreement: What came of it.
        broken: Records that were none of their topic's.
    """

    def __init__(self, settings: MonitorSettings, kafka: KafkaSettings, *, since_ms: int) -> None:
        self._kafka = kafka
        self.agreement = Agreement(settings)
        self._began_ms = since_ms
        self._since_ms = since_ms - round(settings.agreement_window_s * 1000)
        self._delay_ms = round(settings.agreement_delay_s * 1000)
        self._consumers: Mapping[str, LogConsumer] = {}
        self._ids: SchemaIds | None = None
        self._unripe: deque[Message] = deque()
        self._look_again_s = 0.0
        self._shown: Mapping[Outcome, int] = {}
        self.broken = 0

    def __enter__(self) -> Self:
        """Start reading, where both topics are there.

        Raises:
            TransientError: Kafka or the registry did not answer.
        """
        self._open(self._began_ms)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for consumer in self._consumers.values():
            consumer.close()
        self._consumers = {}

    def take(self, now_ms: int) -> list[ModelEvent]:
        """Take in what came, at most BATCH_MAX records of each topic; what there is to tell.

        Raises:
            TransientError, SettingsError: As of a consumer.
        """
        if self._ids is None:
            self._open(now_ms)
        if self._ids is None:
            return []
        for message in self._consumers[EDGE_SCORES.name].consume(BATCH_MAX, 0):
            self._take_edge(self._ids, message, now_ms)
        if not self._unripe:
            self._unripe.extend(self._consumers[SCORES.name].consume(BATCH_MAX, 0))
        events: list[ModelEvent] = []
        while self._unripe and _written_ms(self._unripe[0]) <= now_ms - self._delay_ms:
            events += self._take_cloud(self._ids, self._unripe.popleft(), now_ms)
        self.agreement.expire(now_ms)
        return events

    def news(self) -> list[str]:
        """A sentence where any count has moved since the last one."""
        totals = self.agreement.totals()
        if totals == self._shown:
            return []
        self._shown = totals
        told = ", ".join(f"{totals.get(outcome, 0)} {outcome.value}" for outcome in Outcome)
        return [f"scores of gateways and of the cloud: {told}"]

    def _open(self, now_ms: int) -> None:
        """Where both topics are there; without any gateway the one of the edge may never be."""
        if time.monotonic() < self._look_again_s:
            return
        self._look_again_s = time.monotonic() + LOOK_AGAIN_S
        if missing_topics(self._kafka, TOPICS):
            return
        ids = register_schemas(self._kafka, TOPICS)
        # All of the sample so far comes first: of the cloud's scores only that is looked at.
        sample = spans(self._kafka, EDGE_SCORES.name, since_ms=self._since_ms)
        for batch in read_range(self._kafka, EDGE_SCORES.name, sample):
            for message in batch:
                self._take_edge(ids, message, now_ms)
        scores = spans(self._kafka, SCORES.name, since_ms=self._since_ms)
        self._consumers = {
            EDGE_SCORES.name: self._consumer(
                {(EDGE_SCORES.name, partition): span.end for partition, span in sample.items()}
            ),
            SCORES.name: self._consumer(
                {(SCORES.name, partition): span.start for partition, span in scores.items()}
            ),
        }
        self._ids = ids

    def _consumer(self, starts: dict[Partition, int]) -> LogConsumer:
        consumer = make_consumer(self._kafka, GROUP)
        consumer.start()
        consumer.assign(starts)
        return consumer

    def _take_edge(self, ids: SchemaIds, message: Message, now_ms: int) -> None:
        try:
            record = decode_plain(EDGE_SCORES.record, ids.id_of(EDGE_SCORES), message.value())
        except ContractError:
            self.broken += 1
            return
        self.agreement.take_edge(record, gateway_id=_gateway_of(message), now_ms=now_ms)

    def _take_cloud(self, ids: SchemaIds, message: Message, now_ms: int) -> Sequence[ModelEvent]:
        payload, key = message.value(), message.key()
        if not isinstance(payload, bytes) or not isinstance(key, bytes):
            self.broken += 1
            return ()
        if not self.agreement.waits_for_vehicle(key.decode(errors="replace")):
            return ()
        identity = peeked(payload, key)
        if identity is None or not self.agreement.waits_for(identity):
            return ()
        try:
            record = decode_plain(SCORES.record, ids.id_of(SCORES), payload)
        except ContractError:
            self.broken += 1
            return ()
        return self.agreement.take_cloud(record, now_ms=now_ms)


def peeked(payload: bytes, vehicle_id: bytes) -> Identity | None:
    """Whose score a record is, without decoding it: boot and batch stand behind the vehicle's id.

    Where the same text stands earlier in the record, as the name of its model, what comes out is
    the identity of no batch.
    """
    text = _long_bytes(len(vehicle_id)) + vehicle_id
    at = payload.find(text)
    if at < 0:
        return None
    try:
        boot_id, at = _long(payload, at + len(text))
        seq, _ = _long(payload, at)
    except IndexError:
        return None
    return Identity(vehicle_id.decode(errors="replace"), boot_id, seq)


def _long(payload: bytes, at: int) -> tuple[int, int]:
    """An Avro long, and where the next field begins. Raises IndexError at the end."""
    value = shift = 0
    while True:
        byte = payload[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at


def _long_bytes(value: int) -> bytes:
    """An Avro long, not negative."""
    left, out = value << 1, bytearray()
    while left >= 0x80:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    out.append(left)
    return bytes(out)


def _written_ms(message: Message) -> int:
    return int(message.timestamp()[1])


def _gateway_of(message: Message) -> str:
    gateway_id = dict(headers_of(message)).get("gateway_id")
    return "" if gateway_id is None else gateway_id.decode(errors="replace")
