"""The server's side of `motorcade bench requests`, in a process of its own.

`python -m cloud.bench_requests_child` reads what to do as one line of JSON, says `ready` once it
has partitions, tells its processor time for each further line, and ends when its input does.
"""

import json
import sys
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cloud.serving.kafka_door import DoorParts, DoorStats, DoorTopics, KafkaDoor, KafkaDoorSettings
from cloud.serving.repository import ModelRepository
from schemas.topics import DEAD_LETTERS, REQUESTS, RESPONSES
from scoring.bundle import Bundle
from scoring.catalog import Catalog
from transport.kafka import (
    Delivery,
    KafkaSettings,
    LogConsumer,
    Message,
    Partition,
    PipelinedProducer,
    SchemaIds,
    TransactionalProducer,
    make_consumer,
)

READY = "ready"
POLL_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Task:
    """What a child does.

    Attributes:
        kind: 'door', or 'bare': a loop that writes each request back as it is.
        exactly_once: In transactions.
        bootstrap_servers: Where Kafka is.
        mark: Behind the names of the topics.
        ids: Topic name to schema id.
        reply_partition: Where a bare loop writes to.
        bundle: File of the model.
    """

    kind: str
    exactly_once: bool
    bootstrap_servers: str
    mark: str
    ids: dict[str, int]
    reply_partition: int
    bundle: str

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @property
    def kafka(self) -> KafkaSettings:
        """Where Kafka is; the registry is not needed."""
        return KafkaSettings(bootstrap_servers=self.bootstrap_servers)

    @property
    def group_id(self) -> str:
        """Each task has a group of its own."""
        return f"bench-{self.kind}-{self.exactly_once}-{self.mark}"


def topics_of(mark: str) -> DoorTopics:
    """The benchmark's own topics."""
    every = (REQUESTS, RESPONSES, DEAD_LETTERS)
    return DoorTopics(*(replace(topic, name=f"{topic.name}.bench-{mark}") for topic in every))


def run(task: Task, stop: threading.Event) -> None:
    """Do it until stopped."""
    if task.kind == "door":
        _door(task, stop)
    elif task.exactly_once:
        _bare_transactional(task, stop)
    else:
        _bare(task, stop)


def _door(task: Task, stop: threading.Event) -> None:
    repository = ModelRepository()
    repository.update(Catalog().with_release(Bundle.load(Path(task.bundle))))
    settings = KafkaDoorSettings(
        group_id=task.group_id,
        transactional_id=task.group_id,
        exactly_once=task.exactly_once,
        stats_interval_s=0.1,
    )
    parts = DoorParts(repository.view(), topics=topics_of(task.mark), ids=SchemaIds(task.ids))
    KafkaDoor(settings, task.kafka, parts, on_stats=_Ready()).run(stop)


class _Ready:
    """Says once that the door has partitions."""

    def __init__(self) -> None:
        self._said = False

    def __call__(self, stats: DoorStats) -> None:
        if stats.rejoins and not self._said:
            self._said = True
            say_ready()


def say_ready() -> None:
    """Tell the parent."""
    print(READY, flush=True)


def _bare(task: Task, stop: threading.Event) -> None:
    producer, delivery = PipelinedProducer(task.kafka), Delivery()
    producer.start()
    topic = topics_of(task.mark).responses.name
    with _member(task) as consumer:
        _join(consumer, task)
        while not stop.is_set():
            records = _records(_take(consumer))
            if records:
                producer.produce_batch(topic, records, delivery, partition=task.reply_partition)
            producer.poll()
    producer.close()


def _bare_transactional(task: Task, stop: threading.Event) -> None:
    producer = TransactionalProducer(task.kafka, task.group_id, linger_ms=0.0)
    producer.start()
    topic = topics_of(task.mark).responses.name
    with _member(task) as consumer:
        _join(consumer, task)
        while not stop.is_set():
            messages = _take(consumer)
            if not messages:
                continue
            with producer.transaction():
                producer.produce_batch(topic, _records(messages), partition=task.reply_partition)
                producer.send_offsets(_behind(messages), consumer.group_metadata())
    producer.close()


def _member(task: Task) -> LogConsumer:
    return make_consumer(
        task.kafka, task.group_id, queued_min_messages=2 * POLL_MAX, socket_nagle_disable=True
    )


def _join(consumer: LogConsumer, task: Task) -> None:
    def assigned(_: list[Partition]) -> dict[Partition, int]:
        say_ready()
        return {}

    consumer.subscribe(
        [topics_of(task.mark).requests.name],
        on_assign=assigned,
        on_revoke=lambda _: None,
        on_lost=lambda _: None,
    )


def _take(consumer: LogConsumer) -> list[Message]:
    messages = consumer.consume(1, 0.005)
    return messages + consumer.consume(POLL_MAX - 1, 0.0) if messages else messages


def _records(messages: list[Message]) -> list[dict[str, Any]]:
    return [{"value": message.value(), "key": message.key()} for message in messages]


def _behind(messages: list[Message]) -> dict[Partition, int]:
    return {
        (message.topic() or "", message.partition() or 0): (message.offset() or 0) + 1
        for message in messages
    }


def main() -> None:
    """Run one task."""
    task = Task(**json.loads(sys.stdin.readline()))
    stop = threading.Event()

    def answer_lines() -> None:
        for _ in sys.stdin:
            print(time.process_time(), flush=True)
        stop.set()

    threading.Thread(target=answer_lines, daemon=True).start()
    run(task, stop)


if __name__ == "__main__":
    main()
