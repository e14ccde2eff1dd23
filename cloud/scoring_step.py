"""From one poll of telemetry to all that is written for it. No I/O, no clock.

Hot path: everything but alerts and dead letters, which are few, is done on arrays and lists.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud.dead_letters import Refused, Undertaker
from cloud.poll_trace import NO_TRACE, PollTrace
from cloud.polls import Poll
from cloud.stats import ScorerWatch
from schemas.codec import Framing, ScoreStamp, TelemetryColumns, decode_telemetry, encode_scores
from schemas.records import encode_confluent
from schemas.topics import (
    ALERTS,
    ALERTS_STATE,
    DEAD_LETTERS,
    MODEL_EVENTS,
    SCORES,
    TELEMETRY,
    Topic,
    alert_state_key,
)
from scoring.alerts import AlertSource, Transition, alert_record
from scoring.arms import ArmedScored, ArmedScorer, Part
from scoring.bundle import Bundle
from scoring.events import EventKind, ModelEvent, Severity
from scoring.lineup import Lane, Lineup
from scoring.storm_guard import Trip
from transport.kafka import Header, Outgoing, Partition, SchemaIds


@dataclass(frozen=True, slots=True)
class ScorerTopics:
    """Where the scorer reads and writes; scores and alerts are co-partitioned with telemetry."""

    telemetry: Topic = TELEMETRY
    scores: Topic = SCORES
    alerts: Topic = ALERTS
    alerts_state: Topic = ALERTS_STATE
    dead_letters: Topic = DEAD_LETTERS
    events: Topic = MODEL_EVENTS

    def co_partitioned(self) -> tuple[Topic, ...]:
        """Topics that need as many partitions as telemetry has."""
        return (self.scores, self.alerts, self.alerts_state)


@dataclass(frozen=True, slots=True)
class ScoreRecords:
    """Score records for one partition, ready for `TransactionalProducer.produce_batch`."""

    topic: str
    partition: int
    messages: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one poll leads to; written in one transaction, or not at all.

    Attributes:
        scores: By partition.
        others: Alerts, events and dead letters, in order.
        offsets: Where to read on.
        messages: Messages read.
        readings: Readings scored.
        payload_bytes: Bytes of the messages read.
        opened: Alerts opened.
        closed: Alerts closed.
        held: Alerts that the storm guard held back.
        dead_letters: Messages refused.
        tripped: Arms that the storm guard tripped. Once this is written the state has to be
            rebuilt: their vehicles are the champion's.
        answered: What was scored, by whom; for metrics.
        trace: Spans of the messages that are traced.
    """

    scores: list[ScoreRecords]
    others: list[Outgoing]
    offsets: dict[Partition, int]
    messages: int = 0
    readings: int = 0
    payload_bytes: int = 0
    opened: int = 0
    closed: int = 0
    held: int = 0
    dead_letters: int = 0
    tripped: tuple[str, ...] = ()
    answered: ArmedScored | None = None
    trace: PollTrace = NO_TRACE


@dataclass(slots=True)
class ScoringStep:
    """Scores polls; the armed scorer within it remembers the vehicles.

    Attributes:
        scorer: The models in use, with the state of the vehicles.
        ids: Schema ids of the topics.
        undertaker: Writes what is refused.
        topics: Where to read and write.
        watch: Counts what was scored.
    """

    scorer: ArmedScorer
    ids: SchemaIds
    undertaker: Undertaker
    topics: ScorerTopics = field(default_factory=ScorerTopics)
    watch: ScorerWatch | None = None

    @property
    def bundle(self) -> Bundle:
        """The champion in use."""
        return self.scorer.bundle

    def decode(self, poll: Poll) -> TelemetryColumns:
        """The columns that the models in use need; may run on another thread."""
        return decode_telemetry(
            poll.payloads,
            framing=Framing.CONFLUENT,
            schema_id=self.ids.id_of(self.topics.telemetry),
            schema_ids=self.ids.releases,
            signals=self.scorer.signals,
        )

    def run(
        self, poll: Poll, columns: TelemetryColumns, *, now_ms: int, trace: PollTrace = NO_TRACE
    ) -> Outcome:
        """Score a poll.

        Args:
            poll: Messages that follow those of the last call, in each partition.
            columns: The same, decoded.
            now_ms: When they are scored.
            trace: Of the poll; goes on in the headers of alerts.

        Returns:
            What to write. The state is then that after the poll: if it is not written, drop
            the state and rebuild it.
        """
        if self.watch is not None:
            self.watch.begin()
        scored = self.scorer.process(columns, now_ms=now_ms, watch=self.watch)
        columns = scored.columns
        partition = poll.partition[columns.index]
        offset = poll.offset[columns.index]
        alerts = list(self._alerts(scored, partition, offset, now_ms, trace))
        events = [self._tripped(trip, now_ms) for trip in scored.trips]
        letters = list(self._letters(poll, columns, now_ms))
        transitions = scored.scored.transitions
        opened = sum(transition.state == "OPEN" for transition in transitions)
        return Outcome(
            scores=self._scores(scored, partition, offset, now_ms),
            others=alerts + events + letters,
            offsets={(self.topics.telemetry.name, p): o for p, o in poll.next_offsets().items()},
            messages=len(poll.messages),
            readings=len(scored.scored.scores),
            payload_bytes=poll.payload_bytes,
            opened=opened,
            closed=len(transitions) - opened,
            held=scored.held,
            dead_letters=len(letters),
            tripped=tuple(scored.lanes[trip.lane].arm for trip in scored.trips),
            answered=scored,
            trace=trace,
        )

    def replay(self, poll: Poll, *, now_ms: int) -> None:
        """Take a poll into the state that was scored before; nothing comes of it."""
        self.scorer.process(self.decode(poll), now_ms=now_ms, replay=True)

    def _stamp(self, lane: Lane, now_ms: int) -> ScoreStamp:
        manifest = lane.bundle.manifest
        return ScoreStamp(
            origin="CLOUD",
            model_name=manifest.name,
            model_version=manifest.version,
            model_sha256=lane.bundle.sha256,
            arm=lane.arm,
            threshold=manifest.threshold,
            input_topic=self.topics.telemetry.name,
            score_time_ms=now_ms,
        )

    def _scores(
        self,
        scored: ArmedScored,
        partition: NDArray[np.int64],
        offset: NDArray[np.int64],
        now_ms: int,
    ) -> list[ScoreRecords]:
        values = [b""] * len(scored.columns.vehicle_ids)
        for part in scored.parts:
            if part.messages is None:
                values = self._encoded(part, partition, offset, now_ms)
                break
            at = part.messages
            some = self._encoded(part, partition[at], offset[at], now_ms)
            for message, value in zip(at.tolist(), some, strict=True):
                values[message] = value
        return _by_partition(self.topics.scores.name, values, scored.columns.vehicle_ids, partition)

    def _encoded(
        self,
        part: Part,
        partition: NDArray[np.int64],
        offset: NDArray[np.int64],
        now_ms: int,
    ) -> list[bytes]:
        """The score records of one lane, in order.

        What came out of order counts as late, too: it was scored without memory.
        """
        columns, scored = part.columns, part.scored
        return encode_scores(
            self._stamp(part.lane, now_ms),
            vehicle_ids=columns.vehicle_ids,
            input_partition=partition,
            input_offset=offset,
            boot_id=columns.boot_id,
            seq=columns.seq,
            event_time_ms=columns.event_time_ms[columns.starts],
            late=scored.late | scored.stale,
            counts=columns.counts,
            scores=scored.scores,
            schema_id=self.ids.id_of(self.topics.scores),
        )

    def _alerts(
        self,
        scored: ArmedScored,
        partition: NDArray[np.int64],
        offset: NDArray[np.int64],
        now_ms: int,
        trace: PollTrace,
    ) -> Iterator[Outgoing]:
        for transition in scored.scored.transitions:
            lane = scored.lane(transition.message)
            at = int(partition[transition.message])
            source = AlertSource(
                origin="CLOUD",
                input_topic=self.topics.telemetry.name,
                input_partition=at,
                input_offset=int(offset[transition.message]),
                score_time_ms=now_ms,
                arm=lane.arm,
            )
            record = alert_record(transition, lane.bundle.manifest, source)
            headers = trace.headers(int(scored.columns.index[transition.message]))
            yield from self._alert(transition, record, at, headers)

    def _alert(
        self,
        transition: Transition,
        record: dict[str, Any],
        partition: int,
        headers: Sequence[Header],
    ) -> Iterator[Outgoing]:
        """The event, and the state: the alert while it is open, a tombstone when it closes."""
        alerts, state = self.topics.alerts, self.topics.alerts_state
        value = encode_confluent("Alert", self.ids.id_of(alerts), record)
        yield Outgoing(alerts.name, value, transition.vehicle_id, partition, headers)
        held = None
        if transition.state == "OPEN":
            held = encode_confluent("Alert", self.ids.id_of(state), record)
        key = alert_state_key("CLOUD", transition.vehicle_id, transition.code)
        yield Outgoing(state.name, held, key, partition)

    def _tripped(self, trip: Trip, now_ms: int) -> Outgoing:
        lineup = self.scorer.lineup
        event = trip_event(trip, lineup, by=self.undertaker.component_id, now_ms=now_ms)
        value = encode_confluent(
            "ModelEvent", self.ids.id_of(self.topics.events), event.to_record()
        )
        return Outgoing(self.topics.events.name, value, event.key)

    def _letters(self, poll: Poll, columns: TelemetryColumns, now_ms: int) -> Iterator[Outgoing]:
        version = self.bundle.manifest.version
        for rejected in columns.rejected:
            refused = Refused.of(poll.messages[rejected.index])
            yield self.undertaker.letter(
                refused, rejected.error, now_ms=now_ms, model_version=version
            )


def trip_event(trip: Trip, lineup: Lineup, *, by: str, now_ms: int) -> ModelEvent:
    """What is told of an arm that the storm guard tripped."""
    lane, champion = lineup.lanes[trip.lane], lineup.lanes[0].bundle.manifest
    manifest = lane.bundle.manifest
    return ModelEvent(
        kind=EventKind.GUARD_TRIPPED,
        model_name=manifest.name,
        model_version=manifest.version,
        arm=lane.arm,
        experiment=None if lineup.experiment is None else lineup.experiment.id,
        severity=Severity.CRITICAL,
        detail=(
            f"arm {lane.arm} opened {trip.openings} alerts in {trip.readings} readings, champion "
            f"{champion.version} {trip.champion_openings} in {trip.champion_readings}; its further "
            "alerts are held back and its vehicles are the champion's"
        ),
        values={
            "alerts": trip.openings,
            "readings": trip.readings,
            "champion_alerts": trip.champion_openings,
            "champion_readings": trip.champion_readings,
        },
        by=by,
        time_ms=now_ms,
    )


def _by_partition(
    topic: str, values: list[bytes], keys: list[bytes], partition: NDArray[np.int64]
) -> list[ScoreRecords]:
    """Runs of one partition: fetches come by partition, so a poll has few of them."""
    if not values:
        return []
    edges = [0, *(np.flatnonzero(np.diff(partition)) + 1).tolist(), len(values)]
    return [
        ScoreRecords(
            topic,
            int(partition[start]),
            [
                {"value": value, "key": key}
                for value, key in zip(values[start:end], keys[start:end], strict=True)
            ],
        )
        for start, end in itertools.pairwise(edges)
    ]
