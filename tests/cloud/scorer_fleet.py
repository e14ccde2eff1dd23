"""A small fleet, its topics, and what a scorer without any trouble makes of it."""

import json
import math
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cloud.scorer import ScorerTopics
from schemas.codec import Framing, decode_telemetry, encode_telemetry
from schemas.records import Record, decode_confluent
from schemas.topics import (
    ALERTS,
    ALERTS_STATE,
    DEAD_LETTERS,
    MODEL_EVENTS,
    RELEASES,
    SCORES,
    TELEMETRY,
    Topic,
)
from scoring.bundle import Bundle
from scoring.catalog import Catalog
from scoring.stream import StreamScorer
from scoring.traffic import Traffic
from transport.catalog import CatalogNews
from transport.kafka import (
    KafkaSettings,
    Outgoing,
    SchemaIds,
    TransactionalProducer,
    ensure_topics,
    read_to_end,
    register_schemas,
)
from transport.releases import BrokenRelease

SMALL = Path(__file__).parents[1] / "scoring" / "data" / "small.motorcade"
SIGNALS = ("speed", "engine_speed", "coolant_temperature", "map", "maf")
MIDDLE = np.array([50.0, 2000.0, 85.0, 100.0, 20.0])
SPREAD = np.array([5.0, 100.0, 1.0, 5.0, 2.0])
START_MS = 1_790_000_000_000
HOT = np.array([50.0, 9000.0, 200.0, 450.0, 500.0])
PATIENCE_S = 30.0
TOPICS = (TELEMETRY, SCORES, ALERTS, ALERTS_STATE, DEAD_LETTERS, MODEL_EVENTS)

At = tuple[int, int]
"""Partition and offset."""


@dataclass(frozen=True)
class Ground:
    """Topics of a test's own."""

    kafka: KafkaSettings
    topics: ScorerTopics
    ids: SchemaIds
    mark: str

    @staticmethod
    def new(kafka: KafkaSettings, partitions: int = 3) -> "Ground":
        mark = uuid.uuid4().hex[:8]
        known = register_schemas(kafka)
        topics = topics_of(mark, partitions)
        ensure_topics(kafka, topics)
        named = {new.name: known.id_of(old) for new, old in zip(topics, TOPICS, strict=True)}
        ids = SchemaIds(named | {RELEASES.name: known.id_of(RELEASES)})
        return Ground(kafka, ScorerTopics(*topics), ids, mark)

    def to_json(self) -> str:
        """For another process."""
        names = {"bootstrap_servers": self.kafka.bootstrap_servers, "mark": self.mark}
        return json.dumps(names | {"ids": self.ids.by_topic, "partitions": self.partitions})

    @staticmethod
    def from_json(text: str) -> "Ground":
        facts = json.loads(text)
        topics = topics_of(facts["mark"], facts["partitions"])
        kafka = KafkaSettings(bootstrap_servers=facts["bootstrap_servers"])
        return Ground(kafka, ScorerTopics(*topics), SchemaIds(facts["ids"]), facts["mark"])

    @property
    def partitions(self) -> int:
        return self.topics.telemetry.partitions

    def write(self, batches: Sequence[Outgoing]) -> None:
        """Produce records as they are; in transactions of a thousand, as a gateway would."""
        producer = TransactionalProducer(self.kafka, f"fill-{uuid.uuid4().hex[:8]}")
        producer.start()
        for start in range(0, len(batches), 1000):
            with producer.transaction():
                for out in batches[start : start + 1000]:
                    producer.produce(out)
        producer.close()

    def records(self, topic: Topic) -> list[tuple[At, bytes | None, Record | None]]:
        """All committed records: where, key, and the value decoded (None for a tombstone)."""
        found = []
        for messages in read_to_end(self.kafka, topic.name):
            for message in messages:
                value = message.value()
                record = None
                if value is not None:
                    record = decode_confluent(topic.record, self.ids.id_of(topic), value)
                at = (message.partition() or 0, message.offset() or 0)
                found.append((at, message.key(), record))
        return sorted(found, key=lambda each: each[0])

    def scores(self) -> dict[At, list[tuple[float, ...]]]:
        """Input partition and offset to the scores of each record that answers it."""
        found: dict[At, list[tuple[float, ...]]] = {}
        for at, _, record in self.records(self.topics.scores):
            assert record is not None
            assert record["input_partition"] == at[0]
            answered = (record["input_partition"], record["input_offset"])
            found.setdefault(answered, []).append(bits(record["scores"]))
        return found

    def alerts(self) -> list[tuple[str, str]]:
        """Alert id and state of each alert record, sorted."""
        records = [record for _, _, record in self.records(self.topics.alerts) if record]
        return sorted((record["alert_id"], record["state"]) for record in records)

    def held_alerts(self) -> set[str]:
        """Ids of the alerts that the state topic holds open."""
        newest = {key: record for _, key, record in self.records(self.topics.alerts_state)}
        return {record["alert_id"] for record in newest.values() if record is not None}

    def expected(self, bundle: Bundle) -> "Expected":
        """What one scorer, without restarts, makes of the telemetry topic, by partition."""
        scorer = StreamScorer(bundle, max_vehicles=1000)
        scores: dict[At, list[tuple[float, ...]]] = {}
        alerts: list[tuple[str, str]] = []
        for messages in read_to_end(self.kafka, self.topics.telemetry.name, batch_messages=777):
            columns = decode_telemetry(
                [message.value() or b"" for message in messages],
                framing=Framing.CONFLUENT,
                schema_id=self.ids.id_of(self.topics.telemetry),
                signals=scorer.signals,
            )
            scored = scorer.process(columns, now_ms=START_MS)
            parts = np.split(scored.scores, columns.starts[1:])
            for index, part in zip(columns.index.tolist(), parts, strict=True):
                at = (messages[index].partition() or 0, messages[index].offset() or 0)
                scores[at] = [bits(part.tolist())]
            alerts += [(t.alert_id, t.state) for t in scored.transitions]
        opened = {alert.alert_id for alert in scorer.open_alerts.values()}
        return Expected(scores, sorted(alerts), opened)


@dataclass(frozen=True)
class Expected:
    """Scores by input, all transitions, and what is open at the end."""

    scores: dict[At, list[tuple[float, ...]]]
    alerts: list[tuple[str, str]]
    opened: set[str]


def topics_of(mark: str, partitions: int) -> list[Topic]:
    """The scorer's topics, under names of a test's own."""
    return [replace(t, name=f"{t.name}.{mark}", partitions=partitions) for t in TOPICS]


def bits(scores: Sequence[float]) -> tuple[float, ...]:
    """Comparable to the bit: NaN equals NaN."""
    return tuple(-1.0 if math.isnan(score) else score for score in scores)


def small_bundle(version: str = "1", **changes: Any) -> Bundle:
    """The committed model with another version and other facts in its manifest."""
    bundle = Bundle.load(SMALL)
    return Bundle(replace(bundle.manifest, version=version, **changes), bundle.model)


class Models:
    """A catalog as the test changes it; a source of models."""

    def __init__(self, *bundles: Bundle, traffic: Traffic | None = None) -> None:
        self._news = threading.Condition()
        self._broken: list[BrokenRelease] = []
        self._catalog = Catalog()
        self._changed = False
        self.release(*bundles)
        if traffic is not None:
            self.direct(traffic)

    def release(self, *bundles: Bundle) -> None:
        for bundle in bundles:
            self.change(self._catalog.with_release(bundle))

    def direct(self, traffic: Traffic) -> None:
        self.change(self._catalog.with_traffic(traffic))

    def delete(self, version: str) -> None:
        self.change(self._catalog.without_release("small", version))

    def change(self, catalog: Catalog) -> None:
        with self._news:
            self._catalog, self._changed = catalog, True
            self._news.notify()

    def break_release(self, broken: BrokenRelease) -> None:
        with self._news:
            self._broken.append(broken)
            self._news.notify()

    def poll(self, timeout_s: float) -> CatalogNews:
        with self._news:
            self._news.wait_for(lambda: self._changed or self._broken, timeout_s)
            news = CatalogNews(self._catalog, self._changed, self._broken, True)
            self._changed, self._broken = False, []
            return news


def drive(
    ground: Ground, *, vehicles: int, batches: int, readings: int = 1, seed: int = 1
) -> list[Outgoing]:
    """Records of a drive in order of time; every third vehicle runs hot for a while."""
    rng = np.random.default_rng(seed)
    # By the record time a broker forgets old records, so that has to be of today.
    received_ms = time.time_ns() // 1_000_000 - batches * readings * 1000
    records = []
    vehicle_ids = [b"car-%03d" % v for v in range(vehicles)]
    for batch in range(batches):
        values = MIDDLE + SPREAD * rng.standard_normal((vehicles * readings, len(SIGNALS)))
        hot = np.repeat(np.arange(vehicles) % 3 == 0, readings)
        if batches // 4 <= batch < batches // 2:
            values[hot] = HOT
        uptime_ms = batch * readings * 1000
        times = START_MS + uptime_ms + np.tile(np.arange(readings) * 1000, vehicles)
        payloads = encode_telemetry(
            vehicle_ids,
            np.full(vehicles, 5, np.int64),
            np.full(vehicles, batch + 1, np.int64),
            np.full(vehicles, 1, np.int64),
            np.full(vehicles, uptime_ms, np.int64),
            np.ones(vehicles, np.bool_),
            np.full(vehicles, readings, np.int64),
            times.astype(np.int64),
            values.astype(np.float32),
            signals=SIGNALS,
            framing=Framing.CONFLUENT,
            schema_id=ground.ids.id_of(ground.topics.telemetry),
        )
        records += [
            Outgoing(
                ground.topics.telemetry.name,
                payload,
                vehicle_id,
                number % ground.partitions,
                timestamp_ms=received_ms + uptime_ms,
            )
            for number, (vehicle_id, payload) in enumerate(zip(vehicle_ids, payloads, strict=True))
        ]
    return records


def wait_until(condition: Callable[[], bool], facts: Callable[[], object]) -> None:
    """Look until it holds; after `PATIENCE_S` fail with the facts."""
    until_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until_s, facts()
        time.sleep(0.01)
