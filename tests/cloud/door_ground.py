"""Topics, models and a running Kafka door of a test's own."""

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from serving_models import catalog_of, release

from cloud.serving.kafka_door import DoorParts, DoorStats, DoorTopics, KafkaDoor, KafkaDoorSettings
from cloud.serving.observer import NoObserver, ServingObserver
from cloud.serving.repository import ModelRepository
from schemas.records import Record, decode_confluent
from schemas.topics import DEAD_LETTERS, REQUESTS, RESPONSES, Topic
from scoring.catalog import Catalog
from transport.kafka import (
    KafkaSettings,
    Message,
    Outgoing,
    SchemaIds,
    ensure_topics,
    publish,
    read_to_end,
    register_schemas,
)
from transport.kafka_replies import ReplyTopics

PATIENCE_S = 120.0
NAME = "anomaly"


@dataclass(frozen=True)
class Ground:
    """Topics of a test's own."""

    kafka: KafkaSettings
    topics: DoorTopics
    ids: SchemaIds
    mark: str

    @staticmethod
    def new(kafka: KafkaSettings, partitions: int = 3) -> "Ground":
        mark = uuid.uuid4().hex[:8]
        every = (REQUESTS, RESPONSES, DEAD_LETTERS)
        known = register_schemas(kafka, every)
        return Ground.known(kafka, mark, partitions, [known.id_of(topic) for topic in every])

    @staticmethod
    def known(kafka: KafkaSettings, mark: str, partitions: int, ids: Sequence[int]) -> "Ground":
        every = (REQUESTS, RESPONSES, DEAD_LETTERS)
        topics = [replace(t, name=f"{t.name}.{mark}", partitions=partitions) for t in every]
        ensure_topics(kafka, topics)
        named = {topic.name: schema_id for topic, schema_id in zip(topics, ids, strict=True)}
        return Ground(kafka, DoorTopics(*topics), SchemaIds(named), mark)

    def to_json(self) -> str:
        """For another process."""
        topics = (self.topics.requests, self.topics.responses, self.topics.dead_letters)
        return json.dumps(
            {
                "bootstrap_servers": self.kafka.bootstrap_servers,
                "mark": self.mark,
                "partitions": self.topics.requests.partitions,
                "ids": [self.ids.id_of(topic) for topic in topics],
            }
        )

    @staticmethod
    def from_json(text: str) -> "Ground":
        facts = json.loads(text)
        kafka = KafkaSettings(bootstrap_servers=facts["bootstrap_servers"])
        return Ground.known(kafka, facts["mark"], facts["partitions"], facts["ids"])

    @property
    def reply_topics(self) -> ReplyTopics:
        return ReplyTopics(self.topics.requests, self.topics.responses)

    def settings(self, **changes: object) -> KafkaDoorSettings:
        base = KafkaDoorSettings(
            group_id=f"door-{self.mark}", session_timeout_s=6.0, stats_interval_s=0.05
        )
        return replace(base, **changes)  # type: ignore[arg-type]

    def write(self, records: Sequence[Outgoing]) -> None:
        publish(self.kafka, records)

    def ask(self, values: Sequence[bytes], key: bytes | None = None) -> None:
        self.write([Outgoing(self.topics.requests.name, value, key) for value in values])

    def messages(self, topic: Topic) -> list[Message]:
        return [message for found in read_to_end(self.kafka, topic.name) for message in found]

    def records(self, topic: Topic) -> list[Record]:
        schema_id = self.ids.id_of(topic)
        return [
            decode_confluent(topic.record, schema_id, message.value() or b"")
            for message in self.messages(topic)
        ]


@dataclass
class RunningDoor:
    """A door in a thread of this process."""

    stats: DoorStats = field(default_factory=DoorStats)
    states: list[str] = field(default_factory=list)

    def __call__(self, stats: DoorStats) -> None:
        self.stats = stats
        if not self.states or self.states[-1] != stats.state:
            self.states.append(stats.state)

    def wait_for(self, condition: Callable[[DoorStats], bool]) -> None:
        wait_until(lambda: condition(self.stats), lambda: self.stats)


def wait_until(condition: Callable[[], bool], facts: Callable[[], object]) -> None:
    """Look until it holds; after `PATIENCE_S` fail with the facts."""
    until_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until_s, facts()
        time.sleep(0.01)


@contextmanager
def running(
    ground: Ground,
    repository: ModelRepository | None = None,
    *,
    observer: ServingObserver | None = None,
    **changes: object,
) -> Iterator[RunningDoor]:
    """A door that runs while the block does; its errors come out of the block."""
    stop = threading.Event()
    door = RunningDoor()
    models = repository or repository_of(catalog_of(release("1")))
    parts = DoorParts(models.view(), observer or NoObserver(), ground.topics, ground.ids)
    failed: list[BaseException] = []

    def run() -> None:
        try:
            KafkaDoor(ground.settings(**changes), ground.kafka, parts, on_stats=door).run(stop)
        except BaseException as error:  # noqa: BLE001 - raised again by the test
            failed.append(error)

    thread = threading.Thread(target=run, name="door")
    thread.start()
    try:
        yield door
    finally:
        stop.set()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    if failed:
        raise failed[0]


def repository_of(catalog: Catalog) -> ModelRepository:
    repository = ModelRepository()
    assert repository.update(catalog) == []
    return repository
