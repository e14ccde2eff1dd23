"""The scoring thread: stored telemetry to alerts, each alert once.

It reads what the storing thread has committed, never what it has not. A transition becomes an
Alert in the priority lane in the same transaction that moves the scored position past the reading
that caused it, so a crash at any moment repeats no alert and loses none. Between transitions the
scored position is a hint: scoring the same rows again comes to the same end.

Beside alerts it tells what it finds of the vehicles' clocks, and a sample of its scores; see
`edge.settling` for how they reach the disk.

Without a model the scored position moves on with what is stored. Alarming later about what was
measured long before the model came would help nobody; the rows still serve as history.
"""

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from edge.agreement import AgreementSample
from edge.alert_board import AlertBoard
from edge.clock_watch import ClockWatch
from edge.gateway_metrics import ScoreMeter, model_in_use
from edge.health import Health
from edge.history import history_start, moments
from edge.marks import Mark
from edge.model_watch import ModelWatch
from edge.patience import Patience
from edge.probation import Breach
from edge.receipts import UNKNOWN_MS
from edge.rows import AlertState, Kind, Lane, Priority, StoredTelemetry
from edge.settings import GatewaySettings
from edge.settling import Settling
from edge.spans import begin_spans
from edge.spool import Spool, SpoolReader
from edge.timekeeper import Timekeeper
from schemas.codec import Framing, TelemetryColumns, decode_telemetry
from schemas.errors import ContractError
from schemas.records import decode_single_object, encode_single_object
from schemas.topics import mqtt_telemetry
from scoring.alerts import AlertSource, Transition, alert_record, open_alert_of
from scoring.bundle import Bundle
from scoring.stream import Scored, StreamScorer

Retreat = Callable[[Bundle, Breach], Bundle | None]
"""Gives up a model that was in use; gives the one to go back to."""

WAIT_S = 0.1
FINISH_S = 5.0
BYTES_MAX = 2 * 1024 * 1024


class ScoringLoop:
    """Owner of the scorer and of the scored position.

    Args:
        settings: Of the gateway.
        fleet: Second level of the MQTT topics.
        spool: Where telemetry comes from and alerts go.
        board: Shows alerts on MQTT.
        patience: Waits for a disk that refuses.
        health: Gets counts and state.
        keeper: The gateway's time.
        retreat: Called when the model in use fails or breaks its bounds.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        fleet: str,
        spool: Spool,
        *,
        board: AlertBoard,
        patience: Patience,
        health: Health,
        keeper: Timekeeper,
        retreat: Retreat,
    ) -> None:
        self._settings = settings
        self._fleet = fleet
        self._spool = spool
        self._board = board
        self._patience = patience
        self._health = health
        self._keeper = keeper
        self._now_ms = keeper.wall_ms
        self._retreat = retreat
        self._arriving: queue.SimpleQueue[Bundle] = queue.SimpleQueue()
        self._scorer: StreamScorer | None = None
        self._watch: ModelWatch | None = None
        self._position = spool.marks[Mark.SCORED]
        self._settling = Settling(spool, patience)
        self._agreement = AgreementSample(
            settings.agreement_share, fleet, shared=bool(settings.shared_group)
        )
        self._clocks = ClockWatch(settings, spool, keeper)

    @property
    def history_s(self) -> float:
        """How much telemetry the model in use wants to be kept."""
        scorer = self._scorer
        return 0.0 if scorer is None else scorer.history_s

    def offer(self, bundle: Bundle) -> None:
        """A model to use from the next batch on; from any thread."""
        self._arriving.put(bundle)

    def run(self, stop: threading.Event, stored_all: threading.Event) -> None:
        """Score until stopped, then what is left, for FINISH_S at most.

        Raises:
            SpoolDamagedError: The spool is broken.
        """
        reader = self._spool.reader()
        try:
            while not stop.is_set():
                self.step(reader, wait_s=WAIT_S)
            stored_all.wait(FINISH_S)
            deadline_s = time.monotonic() + FINISH_S
            while time.monotonic() < deadline_s and self.step(reader, wait_s=0.0):
                pass
            self._settling.flush()
        finally:
            reader.close()

    def step(self, reader: SpoolReader, *, wait_s: float) -> bool:
        """Take a new model if there is one, then score a batch; whether there was a batch."""
        self._clocks.remember(reader)
        self._adopt(reader)
        self._board.tick(reader)
        self._settling.tick()
        if self._spool.last(Lane.TELEMETRY) <= self._position and not self._spool.wait_beyond(
            {Lane.TELEMETRY: self._position}, timeout_s=wait_s
        ):
            return False
        if self._scorer is None or self._watch is None:
            return self._pass_over(reader)
        self._score(self._scorer, self._watch, reader)
        self._board.tick(reader)
        return True

    # -- models

    def _adopt(self, reader: SpoolReader) -> None:
        while not self._arriving.empty():
            self._use(self._arriving.get(), reader)

    def _use(self, bundle: Bundle, reader: SpoolReader) -> None:
        """Swap between two batches; a model that does not work gives way to the one before it."""
        try:
            if self._scorer is None:
                self._scorer = self._made(bundle, reader)
            elif self._scorer.swap(bundle):
                self._replay(self._scorer, reader)
        except ContractError as error:
            self._give_up(bundle, Breach(error.reason, error.detail), reader)
            return
        self._watch = ModelWatch(bundle, max_vehicles=self._settings.max_vehicles)
        model_in_use(bundle)
        self._health.scoring = "ok"
        self._health.model_version = bundle.manifest.version
        self._health.model_sha256 = bundle.manifest.model_sha256
        self._health.announcer.info(
            f"model {bundle.manifest.version}",
            f"scoring with {bundle.manifest.name} {bundle.manifest.version}",
        )

    def _give_up(self, bundle: Bundle, breach: Breach, reader: SpoolReader) -> None:
        """Go back to the model before; without one nothing is scored until another comes."""
        before = self._retreat(bundle, breach)
        if before is not None:
            self._use(before, reader)
        elif self._scorer is None or self._scorer.bundle is bundle:
            self._scorer = self._watch = None
            self._health.scoring = f"no model: {bundle.manifest.version} {breach.detail}"
            self._health.model_version = self._health.model_sha256 = None

    def _made(self, bundle: Bundle, reader: SpoolReader) -> StreamScorer:
        """A scorer with the memory and the open alerts that the spool holds."""
        scorer = StreamScorer(
            bundle,
            max_vehicles=self._settings.max_vehicles,
            origin="EDGE",
            place=place_of(self._settings),
        )
        for state in reader.alerts(unpublished_only=False):
            if state.state == "OPEN":
                alert = open_alert_of(decode_single_object("Alert", state.payload))
                scorer.restore_open(state.vehicle_id.encode(), alert)
        self._replay(scorer, reader)
        return scorer

    def _replay(self, scorer: StreamScorer, reader: SpoolReader) -> None:
        """Rebuild feature memory from the rows up to the scored position."""
        first = reader.first_position(Lane.TELEMETRY)
        if first is None:
            return
        at = history_start(
            round(scorer.history_s * 1000),
            first=first,
            last=self._position,
            moment_at=moments(reader),
        )
        while rows := self._rows(reader, after=at - 1, through=self._position):
            columns = _decode(rows, scorer)
            scorer.process(columns, now_ms=UNKNOWN_MS, replay=True)
            at = rows[-1].position + 1

    # -- telemetry

    def _pass_over(self, reader: SpoolReader) -> bool:
        """Without a model; whether there was anything."""
        rows = self._rows(reader, after=self._position)
        if rows:
            self._position = rows[-1].position
            self._settling.settle(self._position, self._clocks.hear_rows(rows))
        return bool(rows)

    def _rows(
        self, reader: SpoolReader, *, after: int, through: int | None = None
    ) -> list[StoredTelemetry]:
        rows_max = self._settings.score_messages_max
        if through is not None:
            rows_max = min(rows_max, through - after)
        if rows_max <= 0:
            return []
        rows: list[StoredTelemetry] = []

        def read() -> None:
            rows[:] = reader.telemetry(after=after, rows_max=rows_max, bytes_max=BYTES_MAX)

        self._patience.until_done("reading telemetry", read)
        return rows

    def _score(self, scorer: StreamScorer, watch: ModelWatch, reader: SpoolReader) -> None:
        rows = self._rows(reader, after=self._position)
        if not rows:
            return
        rows, spans = begin_spans("gateway score", rows)
        meter = ScoreMeter(self._keeper.now)
        columns = _decode(rows, scorer)
        at = columns.index.tolist()
        good = [rows[i] for i in at]
        received_ms = self._clocks.times(good)
        try:
            with spans:
                scored, breach = watch.process(scorer, columns, now_ms=received_ms)
        except ContractError as error:
            self._give_up(scorer.bundle, Breach(error.reason, error.detail), reader)
            return
        self._health.scored += len(scored.scores)
        meter.scored(scorer.bundle, rows, columns, scored)
        self._position = rows[-1].position
        letters = self._clocks.hear(columns, good, received_ms)
        sample = replace(self._agreement, share=self._settings.agreement_share)  # it may change
        letters += sample.letters(scorer.bundle, columns, good, scored, now_ms=self._now_ms())
        if scored.transitions:
            self._raise(scorer.bundle, scored, good, letters)
        else:
            self._settling.settle(self._position, letters)
        if breach is not None:
            self._give_up(scorer.bundle, breach, reader)

    def _raise(
        self,
        bundle: Bundle,
        scored: Scored,
        rows: list[StoredTelemetry],
        letters: list[Priority],
    ) -> None:
        alerts: list[Priority] = []
        states: dict[tuple[str, str], AlertState] = {}
        for transition in scored.transitions:
            row = rows[transition.message]
            letter = self._letter(bundle, transition, row)
            alerts.append(letter)
            states[row.vehicle_id, transition.code] = AlertState(
                row.vehicle_id, transition.code, transition.state, self._position, letter.payload
            )
        self._settling.settle(self._position, letters, alerts=alerts, states=list(states.values()))
        self._health.alerts += len(alerts)
        self._board.changed()

    def _letter(self, bundle: Bundle, transition: Transition, row: StoredTelemetry) -> Priority:
        source = AlertSource(
            origin="EDGE",
            input_topic=mqtt_telemetry(self._fleet, row.vehicle_id),
            input_partition=-1,
            input_offset=row.position,
            score_time_ms=self._now_ms(),
            gateway_id=self._settings.gateway_id,
        )
        payload = encode_single_object("Alert", alert_record(transition, bundle.manifest, source))
        known_ms = self._clocks.time_of(row)
        return Priority(Kind.ALERT, row.vehicle_id, known_ms or 0, payload, row.traceparent)


def _decode(rows: list[StoredTelemetry], scorer: StreamScorer) -> TelemetryColumns:
    return decode_telemetry(
        [row.payload for row in rows], framing=Framing.SINGLE_OBJECT, signals=scorer.signals
    )


def place_of(settings: GatewaySettings) -> str:
    """What tells the alerts of this gateway from those of others that share its fleet.

    Each decides by its own part of the readings. With one name they would overwrite each other's
    state, retained on MQTT and in `vehicle.alerts.state`.
    """
    return f"@{settings.gateway_id}" if settings.shared_group else ""
