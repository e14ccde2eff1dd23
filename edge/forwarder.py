"""The forwarding thread: from the spool to Kafka, exactly once.

Each transaction holds rows of the spool and the position up to which they go, so Kafka itself
knows what it has. After a failure or a restart the producer is started anew, which settles what
was left open; then the positions are read, and forwarding goes on behind them.

Whatever Kafka refuses, the gateway goes on storing and scoring: there is no give-up but one, when
another gateway has taken over the identity.
"""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from edge.frames import WRITTEN_TOPICS, Framer
from edge.health import CONNECTED, Health
from edge.marks import Mark
from edge.positions import read_committed, remember_where_to_look
from edge.receipts import Receipts
from edge.rows import Lane
from edge.settings import GatewaySettings
from edge.spans import begin_spans
from edge.spool import Spool, SpoolReader
from edge.timekeeper import Timekeeper
from schemas.errors import ContractError, SettingsError, TransientError
from schemas.records import Record
from schemas.topics import ALERTS_STATE
from transport.backoff import backoff_s
from transport.kafka import (
    KafkaSettings,
    Outgoing,
    SchemaIds,
    TransactionalProducer,
    ensure_topics,
    partition_counts,
    register_schemas,
)
from transport.tracing import NO_SPANS, Spans

BACKOFF_MIN_S = 0.5
BACKOFF_MAX_S = 10.0
ANSWER_TIMEOUT_S = 10.0
DRAIN_S = 5.0
IDLE_S = 0.5


@dataclass(slots=True)
class Batch:
    """What goes into one transaction.

    Attributes:
        records: In order; the priority lane first.
        rows: How many of the records are rows of the spool.
        positions: Of each lane that moves, up to which position.
        spans: Of the rows that are traced.
    """

    records: list[Outgoing] = field(default_factory=list)
    rows: int = 0
    positions: dict[Lane, int] = field(default_factory=dict)
    spans: Spans = NO_SPANS


class Forwarder:
    """Owner of the producer and of what is known to be in Kafka.

    Args:
        settings: Of the gateway.
        kafka: Where to forward to.
        spool: From where.
        health: Told about the uplink.
        status: Makes the record of a heartbeat.
        rng: For jitter.
        keeper: The gateway's time.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        kafka: KafkaSettings,
        spool: Spool,
        *,
        health: Health,
        status: Callable[[], Record],
        rng: random.Random,
        keeper: Timekeeper,
    ) -> None:
        self._settings = settings
        self._kafka = kafka
        self._spool = spool
        self._health = health
        self._status = status
        self._rng = rng
        self._now_ms = keeper.wall_ms
        self._receipts = Receipts(keeper, spool)
        self._producer = TransactionalProducer(kafka, settings.gateway_id)
        self._positions = {lane: spool.marks[Mark.forwarded(lane)] for lane in Lane}
        self._took_over = True
        self._attempt = 0
        self._ids: SchemaIds | None = None
        self._status_due_s = 0.0

    def run(self, stop: threading.Event, stored_all: threading.Event) -> None:
        """Forward until stopped; then what is left, for DRAIN_S at most, if Kafka is there.

        Args:
            stop: Asks for the end.
            stored_all: Set when nothing more will come into the spool.

        Raises:
            FencedError: Another gateway has this id now.
            SpoolDamagedError: The spool is broken.
        """
        reader = self._spool.reader()
        try:
            while not stop.is_set():
                try:
                    framer = self._connect()
                    self._serve(framer, reader, stop)
                    self._drain(framer, reader, stored_all)
                except (TransientError, SettingsError, ContractError) as error:
                    self._lost(error)
                    self._pause(stop)
        finally:
            self._producer.close()
            reader.close()

    def _connect(self) -> Framer:
        """Claim the identity, and learn from where to go on."""
        # Kept over reconnects: the registry may be away, and its ids do not change.
        ids = self._ids = self._ids or register_schemas(self._kafka, WRITTEN_TOPICS)
        ensure_topics(self._kafka, WRITTEN_TOPICS, timeout_s=ANSWER_TIMEOUT_S)
        partitions = partition_counts(self._kafka, [ALERTS_STATE.name], timeout_s=ANSWER_TIMEOUT_S)
        remember_where_to_look(self._kafka, self._spool)
        self._producer.start(ANSWER_TIMEOUT_S)
        self._positions = read_committed(
            self._kafka,
            self._spool,
            gateway_id=self._settings.gateway_id,
            took_over=self._took_over,
        )
        self._took_over = False
        self._note()
        self._health.uplink = CONNECTED
        self._health.announcer.info("uplink", "forwarding to Kafka")
        return Framer(
            self._settings.gateway_id, ids, partitions[ALERTS_STATE.name], self._receipts.of
        )

    def _lost(self, error: Exception) -> None:
        self._health.uplink = str(error)
        self._health.announcer.warn("uplink lost", f"not forwarding, storing on: {error}")
        self._producer.close()
        if isinstance(error, SettingsError):
            self._ids = None

    def _pause(self, stop: threading.Event) -> None:
        wait_s = backoff_s(
            self._attempt, minimum_s=BACKOFF_MIN_S, maximum_s=BACKOFF_MAX_S, rng=self._rng
        )
        self._attempt += 1
        stop.wait(wait_s)

    def _serve(self, framer: Framer, reader: SpoolReader, stop: threading.Event) -> None:
        while not stop.is_set():
            until_status_s = self._status_due_s - time.monotonic()
            wait_s = max(0.0, min(IDLE_S, until_status_s))
            if self._spool.wait_beyond(self._positions, timeout_s=wait_s) or until_status_s <= 0:
                self._step(framer, reader)

    def _drain(self, framer: Framer, reader: SpoolReader, stored_all: threading.Event) -> None:
        deadline_s = time.monotonic() + DRAIN_S
        stored_all.wait(DRAIN_S)
        self._status_due_s = 0.0
        while time.monotonic() < deadline_s and self._step(framer, reader):
            pass

    def _step(self, framer: Framer, reader: SpoolReader) -> bool:
        """One transaction; whether there was anything to forward."""
        batch = self._read(framer, reader)
        if time.monotonic() >= self._status_due_s:
            self._status_due_s = time.monotonic() + self._settings.status_interval_s
            batch.records.append(framer.status(self._status()))
        if batch.records:
            self._commit(framer, batch)
        return bool(batch.positions)

    def _read(self, framer: Framer, reader: SpoolReader) -> Batch:
        """The next rows of both lanes, priority first, within the limits of a transaction."""
        rows_max, bytes_max = (
            self._settings.forward_messages_max,
            self._settings.forward_bytes_max,
        )
        batch = Batch()
        letters = reader.priority(
            after=self._positions[Lane.PRIORITY], rows_max=rows_max, bytes_max=bytes_max
        )
        if letters:
            batch.records += framer.priority(letters)
            batch.positions[Lane.PRIORITY] = letters[-1].position
        rows = reader.telemetry(
            after=self._positions[Lane.TELEMETRY], rows_max=rows_max, bytes_max=bytes_max
        )
        if rows:
            rows, batch.spans = begin_spans("gateway forward", rows)
            batch.records += framer.telemetry(rows)
            batch.positions[Lane.TELEMETRY] = rows[-1].position
        batch.rows = len(letters) + len(rows)
        return batch

    def _commit(self, framer: Framer, batch: Batch) -> None:
        now_ms = self._now_ms()
        produce = self._producer.produce
        with batch.spans, self._producer.transaction():
            for record in batch.records:
                produce(record)
            for lane, position in batch.positions.items():
                produce(
                    framer.position(lane, position, spool_id=self._spool.spool_id, now_ms=now_ms)
                )
        self._positions.update(batch.positions)
        self._health.forwarded += batch.rows
        self._attempt = 0
        self._note()

    def _note(self) -> None:
        """Tell the spool; a hint, for Kafka knows it better."""
        for lane, position in self._positions.items():
            self._spool.marks.note(Mark.forwarded(lane), position)
