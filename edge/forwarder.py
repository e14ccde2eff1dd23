"""The forwarding thread: from the spool to Kafka, exactly once.

Each transaction holds rows of the spool and what of the spool is then in Kafka, so Kafka itself
knows what it has. After a failure or a restart the producer is started anew, which settles what
was left open; then the positions are read, and forwarding goes on behind them.

Whatever Kafka refuses, the gateway goes on storing and scoring: there is no give-up but one, when
another gateway has taken over the identity.
"""

import random
import threading
import time
from collections.abc import Callable, Mapping

from edge.claim import ANSWER_TIMEOUT_S, Claim
from edge.frames import WRITTEN_TOPICS, Framer
from edge.health import Health
from edge.lane_reader import LaneReader, Taken
from edge.load import Load
from edge.loading import Loading
from edge.marks import Mark
from edge.positions import Positions
from edge.receipts import Receipts
from edge.refusals import Refusals
from edge.settings import GatewaySettings
from edge.spans import begin_spans
from edge.spool import Spool
from edge.timekeeper import Timekeeper
from edge.uplink import UplinkState
from edge.uplink_watch import MissingTopicError, UplinkWatch, require_written_topics
from schemas.errors import ContractError, FencedError, MotorcadeError, SettingsError, TransientError
from schemas.records import Record
from schemas.topics import ALERTS_STATE
from transport.backoff import backoff_s
from transport.kafka import (
    KafkaSettings,
    SchemaIds,
    TransactionalProducer,
    partition_counts,
    register_schemas,
)
from transport.tracing import Spans

BACKOFF_MIN_S = 0.5
BACKOFF_MAX_S = 10.0
REFUSED_PAUSE_S = 15.0
"""Between two tries where Kafka says no: what people must change takes them longer."""

DRAIN_S = 5.0
IDLE_S = 0.5


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
        self._keeper = keeper
        self._receipts = Receipts(keeper, spool)
        self._reader = spool.reader()
        self._lanes = LaneReader(settings, spool, self._reader)
        self._claim = Claim(settings.gateway_id, kafka, spool)
        self._watch = UplinkWatch(health, kafka, now_ms=keeper.wall_ms)
        self._refusals = Refusals(settings.gateway_id)
        self._producer: TransactionalProducer | None = None
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
        try:
            while not stop.is_set():
                try:
                    framer = self._connect()
                    self._serve(framer, stop)
                    self._drain(framer, stored_all)
                except (TransientError, SettingsError, ContractError) as error:
                    self._lost(error)
                    self._pause(stop, error)
        except FencedError as error:
            self._watch.changed(UplinkState.FENCED, str(error))
            raise
        finally:
            self._close()
            self._reader.close()

    # -- the way to Kafka

    def _connect(self) -> Framer:
        """Claim the identity, learn from where to go on, and show that the way is open."""
        # Kept over reconnects: the registry may be away, and its ids do not change.
        ids = self._ids = self._ids or register_schemas(self._kafka, WRITTEN_TOPICS)
        require_written_topics(self._kafka, make=self._watch.never_connected)
        partitions = partition_counts(self._kafka, [ALERTS_STATE.name], timeout_s=ANSWER_TIMEOUT_S)
        producer = self._producer = TransactionalProducer(
            self._kafka,
            self._settings.gateway_id,
            on_error=self._watch.told,
            **self._refusals.producer_options(),
        )
        positions = self._claim.take(producer)
        framer = Framer(
            self._settings.gateway_id,
            ids,
            partitions[ALERTS_STATE.name],
            self._receipts.of,
            self._keeper.wall_ms,
        )
        took_s = self._tell_positions(framer, positions)
        self._lanes.resume(positions, now_s=time.monotonic(), round_trips_s=took_s)
        self._note()
        self._watch.connected()
        return framer

    def _tell_positions(self, framer: Framer, positions: Positions) -> float:
        """Write what Kafka is to go by from now on; how long that took."""
        load = Load()
        self._add_positions(framer, load, positions)
        took_s = self._transact(load)
        self._claim.told()
        return took_s

    def _lost(self, error: MotorcadeError) -> None:
        self._watch.lost(error)
        self._lanes.fell_through()
        self._close()
        if isinstance(error, SettingsError):
            self._ids = None

    def _close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close()

    def _pause(self, stop: threading.Event, error: MotorcadeError) -> None:
        if self._refusals.learned():
            return  # What was refused is known, and is left out at once.
        wait_s = backoff_s(
            self._attempt, minimum_s=BACKOFF_MIN_S, maximum_s=BACKOFF_MAX_S, rng=self._rng
        )
        self._attempt += 1
        slow = isinstance(error, SettingsError) and not isinstance(error, MissingTopicError)
        stop.wait(max(wait_s, REFUSED_PAUSE_S) if slow else wait_s)

    # -- transactions

    def _serve(self, framer: Framer, stop: threading.Event) -> None:
        while not stop.is_set():
            if self._await_work():
                self._step(framer)

    def _await_work(self) -> bool:
        """Wait for rows, for the backlog's turn or for the heartbeat; False: for nothing yet."""
        producer = self._started()
        producer.poll()
        if not self._watch.uplink.connected:
            self._status_due_s = 0.0  # Only a transaction tells that the way is open again.
        now_s = time.monotonic()
        backlog_s = self._lanes.wait_s(now_s)
        until_s = self._status_due_s - now_s
        if backlog_s is not None:
            until_s = min(until_s, backlog_s)
        if until_s <= 0:
            return True
        if self._spool.wait_beyond(self._lanes.positions, timeout_s=min(IDLE_S, until_s)):
            return True
        return until_s <= IDLE_S

    def _drain(self, framer: Framer, stored_all: threading.Event) -> None:
        deadline_s = time.monotonic() + DRAIN_S
        stored_all.wait(DRAIN_S)
        self._status_due_s = 0.0
        while time.monotonic() < deadline_s and self._step(framer):
            pass

    def _step(self, framer: Framer) -> bool:
        """One transaction; whether there was anything to forward."""
        taken = self._lanes.take(self._keeper.now(), time.monotonic())
        moved = self._lanes.after(taken)
        load, spans = self._load(framer, taken)
        self._add_status(framer, load)
        if not load.records:
            self._lanes.skipped(moved)
            return False
        self._add_positions(framer, load, self._lanes.changed(moved))
        with spans:
            took_s = self._transact(load)
        self._lanes.forwarded(taken, moved, took_s=took_s, now_s=time.monotonic())
        self._health.forwarded += taken.rows
        self._attempt = 0
        self._note()
        return taken.rows > 0

    def _load(self, framer: Framer, taken: Taken) -> tuple[Load, Spans]:
        live, spans = begin_spans("gateway forward", taken.live)
        backlog, late_spans = begin_spans("gateway forward", taken.backlog)
        loading = Loading(framer, self._refusals, now_ms=self._keeper.wall_ms())
        loading.priority(taken.priority)
        loading.telemetry(live, late=taken.live_late)
        loading.telemetry(backlog, late=True)
        return loading.load, Spans([*spans.begun, *late_spans.begun])

    def _add_status(self, framer: Framer, load: Load) -> None:
        if time.monotonic() >= self._status_due_s:
            self._status_due_s = time.monotonic() + self._settings.status_interval_s
            load.add(framer.status(self._status()))

    def _add_positions(self, framer: Framer, load: Load, positions: Positions) -> None:
        now_ms = self._keeper.wall_ms()
        for lane, done in positions.items():
            load.add(framer.position(lane, done, spool_id=self._spool.spool_id, now_ms=now_ms))

    def _transact(self, load: Load) -> float:
        """All of a load, or nothing; how long that took.

        Raises:
            ContractError: A record is too large; which, is known the next time.
            TransientError, SettingsError: Connect again, which settles what is open.
            FencedError: Another gateway has taken over.
        """
        producer = self._started()
        began_s = time.monotonic()
        refused: dict[int, MotorcadeError] = {}
        producer.begin()
        careful = self._refusals.careful
        report = refused.__setitem__ if careful else None
        refused |= dict(producer.produce_all(load.records, on_delivery=report))
        if careful:
            producer.flush()
        self._refuse(load, refused)
        try:
            producer.commit(on_wait=self._watch.waiting)
        except ContractError:
            self._refusals.somewhere()
            raise
        self._health.dead_letters += self._refusals.committed(load)
        self._watch.connected()
        return time.monotonic() - began_s

    def _refuse(self, load: Load, refused: Mapping[int, MotorcadeError]) -> None:
        """Remember which records are too large, and give the transaction up for them."""
        wrong = {n: error for n, error in refused.items() if isinstance(error, ContractError)}
        if wrong:
            error = next(iter(wrong.values()))
            self._refusals.found(load, set(wrong), error)
            raise error

    def _started(self) -> TransactionalProducer:
        if self._producer is None:
            raise TransientError("there is no producer")
        return self._producer

    def _note(self) -> None:
        """Tell the spool; a hint, for Kafka knows it better."""
        for lane, position in self._lanes.done().items():
            self._spool.marks.note(Mark.forwarded(lane), position)
        telemetry = self._lanes.telemetry
        self._health.ahead = telemetry.done.ahead
        self._health.backlog_depth = telemetry.backlog
