"""Runs a model over a stretch of the log as the scorer would have, beside what it is to replace.

    vehicle.telemetry ─► decoded once ─┬─► old ─┐
    (the stretch)                      └─► new ─┴─► what would have changed

Nothing is written. Memory is bounded whatever the length of the stretch: a poll, the vehicles'
state of both models, and what `cloud.replay_report` remembers.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cloud.decoding import decode_plain
from cloud.model_desk import find
from cloud.polls import Poll
from cloud.rebuild import Rewind, history
from cloud.replay_report import (
    Hours,
    ReplayReport,
    Side,
    SideTally,
    events_of,
    overlap,
    verdict,
)
from schemas.codec import Framing, TelemetryColumns, decode_telemetry
from schemas.errors import ContractError, SettingsError
from schemas.records import Record
from schemas.topics import LABELS, TELEMETRY
from scoring.arms import part_of
from scoring.bundle import Bundle
from scoring.catalog import ModelRef
from scoring.stream import StreamScorer
from transport.kafka import (
    Message,
    SchemaIds,
    Span,
    partition_counts,
    read_range,
    read_to_end,
    register_schemas,
    spans,
)
from transport.settings import KafkaSettings

BATCH_MESSAGES = 5_000
REWIND_MESSAGES_MAX = 500_000
LABELS_MAX = 500_000
"""Labels that are read, the first ones; there is one a fault."""

PROGRESS_S = 5.0


@dataclass(frozen=True, slots=True)
class ReplayTask:
    """What to replay.

    Attributes:
        candidate: The model to try.
        against: What it is compared with.
        since_ms: From this record time on; None: from the first record.
        until_ms: Up to before this record time; None: to the end.
        tolerance_s: Between two alerts that are taken for the same, and behind a label's end.
        max_vehicles: Vehicles remembered.
    """

    candidate: ModelRef
    against: ModelRef
    since_ms: int | None = None
    until_ms: int | None = None
    tolerance_s: float = 60.0
    max_vehicles: int = 100_000

    def __post_init__(self) -> None:
        if self.tolerance_s < 0 or self.max_vehicles < 1:
            raise SettingsError("replay: tolerance_s is at least 0, max_vehicles at least 1")


def replay(
    task: ReplayTask, kafka: KafkaSettings, *, on_progress: Callable[[str], None] = lambda _: None
) -> ReplayReport:
    """Replay, and report what would have changed.

    Args:
        task: What.
        kafka: Where Kafka and the registry are.
        on_progress: Told now and then what was read.

    Raises:
        ContractError: UNKNOWN_MODEL, or one of the models cannot be used.
        SettingsError: There is no telemetry topic.
        TransientError: Kafka or the registry did not answer.
    """
    old = find(kafka, task.against).bundle
    new = find(kafka, task.candidate).bundle
    ids = register_schemas(kafka, [TELEMETRY, LABELS])
    stretch = spans(kafka, TELEMETRY.name, since_ms=task.since_ms, until_ms=task.until_ms)
    pair = Pair(old, new, task.max_vehicles)
    began_s = told_s = time.monotonic()
    for columns in _columns(_before(kafka, stretch, pair), ids, pair.signals):
        pair.warm_up(columns)
    batches = read_range(kafka, TELEMETRY.name, stretch, batch_messages=BATCH_MESSAGES)
    for columns in _columns(batches, ids, pair.signals):
        pair.score(columns)
        if time.monotonic() - told_s > PROGRESS_S:
            told_s = time.monotonic()
            on_progress(f"{pair.hours.messages} messages in {told_s - began_s:.0f} s")
    return report(pair, _labels(kafka, ids), name=task.candidate.name, tolerance_s=task.tolerance_s)


class Pair:
    """Two models on one stream. No I/O.

    Args:
        old: What is replaced.
        new: What replaces it.
        max_vehicles: Vehicles remembered by each.

    Raises:
        ContractError: One of them cannot be used.
    """

    def __init__(self, old: Bundle, new: Bundle, max_vehicles: int) -> None:
        self._scorers = [StreamScorer(b, max_vehicles=max_vehicles) for b in (old, new)]
        self._tallies = [SideTally(bundle.manifest) for bundle in (old, new)]
        self.hours = Hours()

    @property
    def signals(self) -> tuple[str, ...]:
        """Signals that either needs."""
        return tuple(dict.fromkeys(name for each in self._scorers for name in each.signals))

    @property
    def history_s(self) -> float:
        """Seconds of the log before the stretch that warm both up."""
        return max(scorer.history_s for scorer in self._scorers)

    def warm_up(self, columns: TelemetryColumns) -> None:
        """Take in what was before the stretch."""
        for scorer in self._scorers:
            scorer.process(_for(scorer, columns), now_ms=0, replay=True)

    def score(self, columns: TelemetryColumns) -> None:
        """Take in a poll of the stretch."""
        self.hours.add(columns)
        for scorer, tally in zip(self._scorers, self._tallies, strict=True):
            tally.add(scorer.process(_for(scorer, columns), now_ms=0))

    def sides(self) -> tuple[Side, Side]:
        """What the old one and the new one made of it."""
        old, new = (tally.side() for tally in self._tallies)
        return old, new


def report(
    pair: Pair, labels: Iterator[Record] | Sequence[Record], *, name: str, tolerance_s: float
) -> ReplayReport:
    """What would have changed, by what a pair has seen. Pure."""
    tolerance_ms = round(tolerance_s * 1000)
    old, new = pair.sides()
    events = events_of(labels, first_ms=pair.hours.first_ms, last_ms=pair.hours.last_ms)
    return ReplayReport(
        model=name,
        old=old,
        new=new,
        hours=pair.hours,
        overlap=overlap(old.alarms, new.alarms, tolerance_ms=tolerance_ms),
        events=len(events),
        old_verdict=verdict(old.alarms, events, tolerance_ms=tolerance_ms),
        new_verdict=verdict(new.alarms, events, tolerance_ms=tolerance_ms),
    )


def _for(scorer: StreamScorer, columns: TelemetryColumns) -> TelemetryColumns:
    return part_of(columns, np.arange(len(columns.vehicle_ids)), scorer.signals)


def _before(kafka: KafkaSettings, stretch: dict[int, Span], pair: Pair) -> Iterator[list[Message]]:
    """What the models remember at the beginning of the stretch."""
    rewind = Rewind(pair.history_s, REWIND_MESSAGES_MAX, BATCH_MESSAGES)
    starts = {partition: span.start for partition, span in stretch.items()}
    return history(kafka, TELEMETRY.name, starts, rewind)


def _columns(
    batches: Iterator[list[Message]], ids: SchemaIds, signals: tuple[str, ...]
) -> Iterator[TelemetryColumns]:
    for messages in batches:
        yield decode_telemetry(
            Poll.of(messages).payloads,
            framing=Framing.CONFLUENT,
            schema_id=ids.id_of(TELEMETRY),
            schema_ids=ids.releases,
            signals=signals,
        )


def _labels(kafka: KafkaSettings, ids: SchemaIds) -> Iterator[Record]:
    """The labels there are, `LABELS_MAX` at most; a log without that topic has none."""
    if not partition_counts(kafka, [LABELS.name])[LABELS.name]:
        return
    left = LABELS_MAX
    for batch in read_to_end(kafka, LABELS.name):
        for message in batch[:left]:
            try:
                yield decode_plain(LABELS.record, ids.id_of(LABELS), message.value())
            except ContractError:
                # No sound label; it says nothing about any vehicle.
                continue
        left -= len(batch)
        if left <= 0:
            return
