"""`motorcade bench score`: how many readings a second the scorer carries, exactly once.

For each size of message a topic of telemetry is written first. Then three things read it whole, in
one process each after the other, and what each does a second is told:

- bare consume: take the messages, do nothing;
- bare transactional: take 20,000, write as many records of a score record's size, commit;
- the scorer, as `motorcade score` runs it.
"""

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from cloud.bench_fleet import Fleet, bench_bundle
from cloud.scorer import ScorerParts, ScorerSettings, ScorerStats, ScorerTopics, run_with
from schemas.errors import MotorcadeError
from schemas.topics import (
    ALERTS,
    ALERTS_STATE,
    DEAD_LETTERS,
    MODEL_EVENTS,
    SCORES,
    TELEMETRY,
    Topic,
)
from scoring.bundle import Bundle
from scoring.catalog import Catalog
from transport.catalog import CatalogNews
from transport.kafka import (
    KafkaSettings,
    LogConsumer,
    SchemaIds,
    TransactionalProducer,
    delete_topics,
    ensure_topics,
    latest_offsets,
    make_consumer,
    register_schemas,
)

READINGS = {1: 1_500_000, 10: 6_000_000, 100: 12_000_000}
"""Readings written by size of message; enough for a run of some seconds."""

SCORE_RECORD_BYTES = 150
_CHUNK = 20_000
_POLL_S = 0.1
_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class _Arena:
    """A topic of telemetry and where its scores go."""

    kafka: KafkaSettings
    topics: ScorerTopics
    ids: SchemaIds
    fleet: Fleet


def bench_score(
    kafka: KafkaSettings,
    *,
    readings_per_message: Sequence[int] = (1, 10, 100),
    vehicles: int = 10_000,
    memory: bool = False,
    readings: int | None = None,
    bundle: Bundle | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Measure.

    Args:
        kafka: Where Kafka and the registry are; topics are made there and deleted again.
        readings_per_message: Sizes to measure.
        vehicles: Vehicles that send in turn.
        memory: Whether the model also has features with memory.
        readings: Readings of each run; None: as `READINGS`.
        bundle: The model; None: one is trained, which needs TensorFlow.
        on_progress: Told what is being done.

    Returns:
        One dictionary a size: `readings_per_message`, `scored_readings_per_s`,
        `bare_consume_messages_per_s`, `bare_transactional_messages_per_s`,
        `ratio_to_bare_transactional` (scored messages a second by those of the bare
        transactional loop), `features` ('plain' or 'memory'), `vehicles`, `readings`,
        `cpu_us_per_reading` (of this process while scoring).

    Raises:
        TransientError: Kafka did not answer.
        MotorcadeError: Scoring came to a stop, or gave another number of scores than readings.
    """
    if bundle is None:
        on_progress("training a model")
        bundle = bench_bundle(memory=memory)
    facts = {"features": "memory" if memory else "plain", "vehicles": vehicles}
    rows = []
    for size in readings_per_message:
        messages = max(1, (readings or READINGS.get(size, READINGS[10])) // size)
        fleet = Fleet(vehicles, size, messages, TELEMETRY.partitions)
        rows.append(_measure(kafka, bundle, fleet, on_progress) | facts)
    return rows


def _measure(
    kafka: KafkaSettings, bundle: Bundle, fleet: Fleet, on_progress: Callable[[str], None]
) -> dict[str, Any]:
    size = fleet.readings_per_message
    with _arena(kafka, fleet) as arena:
        on_progress(f"{size} readings a message: writing {fleet.messages} messages")
        _fill(arena)
        on_progress(f"{size} readings a message: bare consume")
        consume_s = _bare_consume(arena)
        on_progress(f"{size} readings a message: bare transactional")
        transactional_s = _bare_transactional(arena)
        on_progress(f"{size} readings a message: scoring")
        run = _score(arena, bundle)
    return _row(fleet, consume_s, transactional_s, run)


@dataclass(frozen=True, slots=True)
class _Run:
    """Seconds on the wall and of this process's cores."""

    wall_s: float
    cpu_s: float


def _row(fleet: Fleet, consume_s: float, transactional_s: float, run: _Run) -> dict[str, Any]:
    readings = fleet.messages * fleet.readings_per_message
    return {
        "readings_per_message": fleet.readings_per_message,
        "scored_readings_per_s": round(readings / run.wall_s),
        "bare_consume_messages_per_s": round(fleet.messages / consume_s),
        "bare_transactional_messages_per_s": round(fleet.messages / transactional_s),
        "ratio_to_bare_transactional": round(transactional_s / run.wall_s, 3),
        "readings": readings,
        "cpu_us_per_reading": round(run.cpu_s / readings * 1e6, 3),
    }


@contextmanager
def _arena(kafka: KafkaSettings, fleet: Fleet) -> Iterator[_Arena]:
    """Topics of this run's own; deleted at the end, however it ends."""
    mark = uuid.uuid4().hex[:8]
    kinds = (TELEMETRY, SCORES, ALERTS, ALERTS_STATE, DEAD_LETTERS, MODEL_EVENTS)
    topics = ScorerTopics(*(_renamed(topic, mark) for topic in kinds))
    every = [topics.telemetry, *topics.co_partitioned(), topics.dead_letters, topics.events]
    known = register_schemas(kafka)
    ids = SchemaIds(
        known.by_topic | {t.name: known.by_topic[t.name.partition(".bench-")[0]] for t in every}
    )
    ensure_topics(kafka, every)
    try:
        yield _Arena(kafka, topics, ids, fleet)
    finally:
        delete_topics(kafka, [topic.name for topic in every])


def _renamed(topic: Topic, mark: str) -> Topic:
    return replace(topic, name=f"{topic.name}.bench-{mark}")


def _fill(arena: _Arena) -> None:
    topic = arena.topics.telemetry
    producer = TransactionalProducer(arena.kafka, f"{topic.name}-fill")
    producer.start()
    chunk = max(1, _CHUNK // arena.fleet.readings_per_message)
    for records in arena.fleet.records(arena.ids.id_of(topic), chunk=chunk):
        with producer.transaction():
            for partition, messages in records.items():
                producer.produce_batch(topic.name, messages, partition=partition)
    producer.close()


def _reader(arena: _Arena) -> LogConsumer:
    settings = ScorerSettings()
    return make_consumer(
        arena.kafka,
        f"{arena.topics.telemetry.name}-bare",
        queued_min_messages=2 * settings.poll_messages,
        queued_max_messages_kbytes=2 * settings.poll_bytes // 1000,
    )


def _taken(consumer: LogConsumer, arena: _Arena) -> Iterator[int]:
    """How many messages each poll brought, until the whole topic was read.

    Raises:
        MotorcadeError: Nothing came for a minute.
    """
    topic = arena.topics.telemetry
    consumer.assign({(topic.name, partition): 0 for partition in range(topic.partitions)})
    left = arena.fleet.messages
    heard_s = time.monotonic()
    while left > 0:
        messages = consumer.consume(_CHUNK, _POLL_S)
        if messages:
            heard_s = time.monotonic()
            left -= len(messages)
            yield len(messages)
        elif time.monotonic() - heard_s > _PATIENCE_S:
            raise MotorcadeError(f"{left} messages of the benchmark did not come")


def _bare_consume(arena: _Arena) -> float:
    with _reader(arena) as consumer:
        began_s = time.monotonic()
        for _ in _taken(consumer, arena):
            pass
        return time.monotonic() - began_s


def _bare_transactional(arena: _Arena) -> float:
    """One record out for each in; sequential, one transaction a poll."""
    topic = arena.topics.telemetry
    out = arena.topics.dead_letters.name
    value = bytes(SCORE_RECORD_BYTES)
    producer = TransactionalProducer(arena.kafka, f"{topic.name}-bare")
    producer.start()
    with _reader(arena) as consumer:
        began_s = time.monotonic()
        for count in _taken(consumer, arena):
            with producer.transaction():
                records = [{"value": value} for _ in range(count)]
                producer.produce_batch(out, records, partition=0)
        took_s = time.monotonic() - began_s
    producer.close()
    return took_s


class _OneModel:
    """A catalog of one model, at once."""

    def __init__(self, bundle: Bundle) -> None:
        self._news = CatalogNews(Catalog().with_release(bundle), True, [], True)

    def poll(self, timeout_s: float) -> CatalogNews:
        """The model the first time, nothing new afterwards."""
        news, self._news = self._news, replace(self._news, changed=False)
        return news


class _Watch:
    """Stops the scorer at the last message; measures from where the first poll is taken."""

    def __init__(self, messages: int, stop: threading.Event) -> None:
        self._messages = messages
        self._stop = stop
        self._heard_s = time.monotonic()
        self._done = 0
        self.began: tuple[float, float] | None = None
        self.ended: tuple[float, float] | None = None

    def __call__(self, stats: ScorerStats) -> None:
        """As `on_stats`."""
        now_s = time.monotonic()
        if stats.rebuilds and self.began is None:  # the group is joined, the first poll follows
            self.began = now_s, time.process_time()
        if stats.messages > self._done:
            self._done, self._heard_s = stats.messages, now_s
        if self.ended is None and stats.messages >= self._messages:
            self.ended = now_s, time.process_time()
            self._stop.set()
        elif now_s - self._heard_s > _PATIENCE_S:
            self._stop.set()


def _score(arena: _Arena, bundle: Bundle) -> _Run:
    stop = threading.Event()
    watch = _Watch(arena.fleet.messages, stop)
    group = f"{arena.topics.telemetry.name}-scorer"
    settings = ScorerSettings(
        group_id=group,
        transactional_id=group,
        model=f"embedded:{bundle.manifest.name}",
        max_vehicles=max(arena.fleet.vehicles, 1_000),
        stats_interval_s=0.0,
    )
    parts = ScorerParts(arena.ids, _OneModel(bundle), arena.topics)
    stats = run_with(settings, arena.kafka, parts, stop=stop, on_stats=watch)
    _check(arena, stats)
    if watch.began is None or watch.ended is None:
        raise MotorcadeError(f"scoring came to a stop: {stats}")
    return _Run(watch.ended[0] - watch.began[0], watch.ended[1] - watch.began[1])


def _check(arena: _Arena, stats: ScorerStats) -> None:
    """That every reading was scored and every score was written."""
    expected = arena.fleet.messages * arena.fleet.readings_per_message
    written = sum(latest_offsets(arena.kafka, arena.topics.scores.name).values())
    if stats.readings != expected or written < arena.fleet.messages:
        raise MotorcadeError(f"scored {stats.readings} of {expected} readings: {stats}")
