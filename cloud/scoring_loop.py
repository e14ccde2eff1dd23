"""One life of the scorer's connection to Kafka: from joining the group to a stop or an error.

take a poll ─► score it ─► hand it to the committer ─► take the next ...
                                │
assignment, abort, ─────────────┴─► drop the state, rebuild it up to the committed offsets
model with other features,
rows given up

Where the model runs at a server that is away, scoring waits, and `ConsumerHold` keeps the member
in its group meanwhile.
"""

import gc
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from cloud import scorer_metrics
from cloud.committer import Committer
from cloud.dead_letters import Refused
from cloud.holding import Assignment, ConsumerHold, Member
from cloud.model_intake import ModelIntake
from cloud.poll_trace import PollTrace
from cloud.polls import Poll, PollSize
from cloud.rebuild import Rewind, history, open_alerts, tripped_arms
from cloud.remote.hold import GivenUpError
from cloud.scorer_metrics import PollMeter
from cloud.scorer_parts import KnownModels, ScorerParts
from cloud.scorer_stats import StatsBoard
from cloud.scoring_step import ScoringStep
from cloud.settings import ScorerSettings
from schemas.errors import MotorcadeError
from transport.kafka import (
    AbortNeededError,
    AtLeastOnceProducer,
    KafkaSettings,
    LogConsumer,
    Message,
    Partition,
    TransactionalProducer,
    make_consumer,
)

IDLE_WAIT_S = 0.25
"""Longest wait for the first message of a poll; bounds how late a stop is seen."""

GATHER_S = 0.01
"""How long a poll gathers more after its first message."""

FULL_WAIT_S = 0.1
"""How long a poll gathers when the one before was full: larger transactions cost less."""

COLLECT_S = 2.0
"""Time between two runs of the collector of cyclic garbage, which is off otherwise."""

ABORT_PAUSE_S = 0.2
"""Wait before work whose transaction was aborted is done again."""


class ScoringLoop:
    """Consumer, producer and the vehicles' state of one connection.

    Args:
        settings: How.
        kafka: Where Kafka is.
        parts: Schemas and topics.
        known: What is known of models.
        board: Told what was done.
        stop: Ends it, after the transaction under way.
    """

    def __init__(
        self,
        settings: ScorerSettings,
        kafka: KafkaSettings,
        parts: ScorerParts,
        known: KnownModels,
        board: StatsBoard,
        *,
        stop: threading.Event,
    ) -> None:
        self._stop = stop
        self._settings = settings
        self._kafka = kafka
        self._parts = parts
        self._board = board
        self._size = PollSize(settings.poll_messages, settings.poll_bytes)
        self._consumer = self._member()
        self._committer = Committer(self._producer(), on_committed=board.committed)
        self._hold = ConsumerHold(stop, board)
        self._link = settings.deployment.link(kafka, self._hold)
        self._models = ModelIntake(
            settings, parts, known, self._committer, board, make_scorer=self._link.make_scorer
        )
        self._collected_s = 0.0
        self._assignment = Assignment()
        self._positions: dict[Partition, int] = {}
        self._must_rebuild = False
        self._tripped: set[str] = set()
        self._was_full = False
        self._trouble: MotorcadeError | None = None

    def run(self) -> None:
        """Score until told to stop.

        Raises:
            TransientError: Begin anew with another loop.
            FencedError, SettingsError: Give up.
        """
        with self._link, self._committer, self._models:
            scorer = self._models.first(self._stop)
            if scorer is None:
                return
            parts = self._parts
            step = ScoringStep(
                scorer, parts.ids, self._models.undertaker, parts.topics, parts.watch
            )
            with self._consumer, _quiet_collector():
                self._subscribe()
                self._hold.keep(self._held_member())
                self._board.state("scoring")
                while not self._stop.is_set():
                    self._turn_or_abort(step)
                self._settle_or_abort()

    def _producer(self) -> TransactionalProducer | AtLeastOnceProducer:
        if self._settings.delivery == "at-least-once":
            return AtLeastOnceProducer(self._kafka, self._commit_offsets)
        return TransactionalProducer(
            self._kafka,
            self._settings.member_id,
            transaction_timeout_s=self._settings.transaction_timeout_s,
        )

    def _commit_offsets(self, offsets: Mapping[Partition, int]) -> None:
        self._consumer.commit(offsets, wait=True)

    def _member(self) -> LogConsumer:
        settings = self._settings
        return make_consumer(
            self._kafka,
            settings.group_id,
            session_timeout_ms=int(settings.session_timeout_s * 1000),
            max_poll_interval_ms=int(settings.poll_interval_max_s * 1000),
            partition_assignment_strategy="range",
            queued_min_messages=2 * settings.poll_messages,
            queued_max_messages_kbytes=2 * settings.poll_bytes // 1000,
        )

    def _held_member(self) -> Member:
        return Member(self._consumer, self._assignment, self._committer.settle, self._look)

    def _look(self) -> None:
        """While a model server is waited for. Raises GivenUpError for models that are others."""
        self._report()
        if self._models.wants_another():
            raise GivenUpError("others shall score")

    # Taking polls

    def _turn_or_abort(self, step: ScoringStep) -> None:
        try:
            self._turn(step)
        except AbortNeededError:
            self._abort()
            self._stop.wait(ABORT_PAUSE_S)
        except GivenUpError:
            # The vehicles' features have taken the rows in, but nothing was scored.
            self._must_rebuild = True

    def _turn(self, step: ScoringStep) -> None:
        if self._models.has_news() and self._models.take(step.scorer):
            self._must_rebuild = True
            self._tripped.clear()  # It may be another experiment.
        messages = self._take()
        if self._trouble is not None:
            trouble, self._trouble = self._trouble, None
            raise trouble
        if self._must_rebuild:
            # What was taken may be of an assignment that is gone; it is taken again.
            self._rebuild(step)
        elif messages:
            self._score(step, messages)
        else:
            self._committer.settle()
        self._report()

    def _take(self) -> list[Message]:
        if self._hold.early:
            early, self._hold.early = self._hold.early, []
            return early
        wanted = self._size.messages
        if self._was_full:
            messages = self._consumer.consume(wanted, FULL_WAIT_S)
        else:
            messages = self._consumer.consume(1, IDLE_WAIT_S)
            if messages and wanted > 1:
                messages += self._consumer.consume(wanted - 1, GATHER_S)
        self._was_full = len(messages) >= wanted
        return messages

    def _score(self, step: ScoringStep, messages: list[Message]) -> None:
        taken_s = time.monotonic()
        trace = PollTrace.of(messages)
        poll = Poll.of(messages)
        self._size.learn(len(messages), poll.payload_bytes)
        group = self._consumer.group_metadata()
        meter = PollMeter(taken_s, self._board.deployment)
        with trace.scoring():
            outcome = step.run(poll, step.decode(poll), now_ms=_now_ms(), trace=trace)
        meter.scored(outcome, now_ms=_now_ms())
        self._committer.submit(outcome, group)
        self._positions |= outcome.offsets
        self._tripped.update(outcome.tripped)
        self._must_rebuild |= bool(outcome.tripped)

    def _settle_or_abort(self) -> None:
        try:
            self._committer.settle()
        except AbortNeededError:
            self._abort()

    def _abort(self) -> None:
        self._board.add(aborts=1)
        self._committer.abort()
        self._tripped.clear()
        self._must_rebuild = True

    def _report(self) -> None:
        now_s = time.monotonic()
        if now_s - self._collected_s > COLLECT_S:
            self._collected_s = now_s
            gc.collect(1)
        if self._board.is_due:
            ends = {p: self._consumer.known_end(p) for p in self._positions}
            behind = {p: max(0, ends[p] - at) for p, at in self._positions.items()}
            scorer_metrics.lag(behind)
            self._board.tell(lag=sum(behind.values()))

    # Assignments

    def _subscribe(self) -> None:
        self._consumer.subscribe(
            [self._parts.topics.telemetry.name],
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_revoke,
        )

    def _on_assign(self, partitions: list[Partition]) -> dict[Partition, int]:
        self._assignment.change(partitions)
        self._must_rebuild = True
        return {}

    def _on_revoke(self, partitions: list[Partition]) -> None:
        """Finishes what is under way; the others wait for it. Errors come out of the turn."""
        try:
            self._settle_or_abort()
        except MotorcadeError as error:
            self._trouble = error
        self._assignment.change([])
        self._positions = {}
        self._must_rebuild = True

    def _rebuild(self, step: ScoringStep) -> None:
        self._committer.settle()
        self._must_rebuild = False
        self._sideline(step)
        step.scorer.drop_all()
        self._hold.early.clear()
        if not self._assignment.partitions:
            return
        self._board.add(rebuilds=1)
        starts = self._starts()
        self._restore_open_alerts(step)
        self._replay(step, {partition: offset for (_, partition), offset in starts.items()})
        self._consumer.assign(starts)
        self._hold.early.clear()
        self._positions = starts

    def _starts(self) -> dict[Partition, int]:
        """Where to go on: at the committed offset, or at the first that is still there.

        A shadow that has none yet begins with what comes now, and passes over what is older than
        its experiment: its group may be of one that had the same id.
        """
        starts = {}
        oldest = self._oldest_for_shadow()
        for partition, offset in self._consumer.committed(self._assignment.partitions).items():
            first, end = self._consumer.watermarks(partition)
            if offset is None:
                starts[partition] = end if self._parts.shadow else first
            else:
                starts[partition] = max(first, offset, oldest.get(partition, 0))
                self._board.add(skipped=starts[partition] - offset)
        return starts

    def _oldest_for_shadow(self) -> dict[Partition, int]:
        """First offsets since the experiment began; of partitions that have any."""
        experiment = self._models.lineup.experiment
        if not self._parts.shadow or experiment is None:
            return {}
        times_ms = dict.fromkeys(self._assignment.partitions, experiment.started_time_ms)
        found = self._consumer.offsets_at(times_ms)
        return {partition: at for partition, at in found.items() if at is not None}

    def _sideline(self, step: ScoringStep) -> None:
        """Give the vehicles of arms that a guard has tripped to the champion."""
        lineup, events = step.scorer.lineup, self._parts.topics.events
        if lineup.experiment is None or lineup.is_shadow:
            return
        arms = tripped_arms(
            self._kafka,
            events,
            self._parts.ids.id_of(events),
            model_name=step.bundle.manifest.name,
            experiment=lineup.experiment,
            refuse=lambda message, error: self._models.bury(Refused.of(message), error),
        )
        # What this scorer has written may be hidden yet by somebody else's open transaction.
        arms |= self._tripped | step.scorer.sidelined
        self._tripped.clear()
        step.scorer.sideline(arms)
        self._board.sidelined(lineup, arms)

    def _restore_open_alerts(self, step: ScoringStep) -> None:
        topic = self._parts.topics.alerts_state
        found = open_alerts(
            self._kafka,
            topic,
            self._parts.ids.id_of(topic),
            {partition for _, partition in self._assignment.partitions},
            lambda message, error: self._models.bury(Refused.of(message), error),
        )
        for vehicle_id, alert in found.items():
            step.scorer.restore_open(vehicle_id, alert)

    def _replay(self, step: ScoringStep, committed: dict[int, int]) -> None:
        rewind = Rewind(
            back_s=step.scorer.history_s + self._settings.rewind_margin_s,
            messages_max=self._settings.rewind_messages,
            batch_messages=self._size.messages,
        )
        topic = self._parts.topics.telemetry.name
        for messages in history(self._kafka, topic, committed, rewind):
            step.replay(Poll.of(messages), now_ms=_now_ms())


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


@contextmanager
def _quiet_collector() -> Iterator[None]:
    """No cyclic garbage collection by count of objects.

    A poll makes tens of thousands of objects without a cycle, and each few hundred of them would
    start a search for one.
    """
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
