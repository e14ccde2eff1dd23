"""Scorers with a switch, each on a thread, over one topic, with outputs of their own."""

import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import door_ground
from scorer_fleet import Ground, Models
from serving_models import catalog_of

from cloud.scorer import ScorerParts, ScorerSettings, ScorerStats, run_with
from cloud.serving.kafka_door import DoorTopics
from cloud.serving.repository import ModelRepository
from schemas.records import Record
from scoring.bundle import Bundle
from transport.kafka import KafkaSettings, SchemaIds, ensure_topics, register_schemas

ROOT = Path(__file__).parents[2]

PATIENCE_S = 120.0
"""Longest wait; a server that was away is found again within seconds."""


class Switched:
    """A scorer on a thread of its own."""

    def __init__(
        self, ground: Ground, models: Models, model: str, member: str = "one", **settings: Any
    ) -> None:
        self.stats = ScorerStats()
        self.states: list[str] = []
        self.stop_event = threading.Event()
        self.error: BaseException | None = None
        self._settings = replace(
            ScorerSettings(
                group_id=f"scorer-{ground.mark}",
                transactional_id=f"{member}-{ground.mark}",
                model=model,
                poll_messages=200,
                session_timeout_s=6.0,
                stats_interval_s=0.0,
                max_vehicles=1000,
                backoff_max_s=1.0,
            ),
            **settings,
        )
        self._ground = ground
        self._parts = ScorerParts(ground.ids, models, ground.topics)
        self._thread = threading.Thread(target=self._body)
        self._thread.start()

    def _body(self) -> None:
        try:
            run_with(
                self._settings,
                self._ground.kafka,
                self._parts,
                stop=self.stop_event,
                on_stats=self._on_stats,
            )
        except Exception as error:  # noqa: BLE001 - shown by the test
            self.error = error

    def _on_stats(self, stats: ScorerStats) -> None:
        self.stats = stats
        if self.states[-1:] != [stats.state]:
            self.states.append(stats.state)

    def wait_for(self, condition: Callable[[ScorerStats], bool]) -> None:
        until_s = time.monotonic() + PATIENCE_S
        while self.error is None and not condition(self.stats):
            assert time.monotonic() < until_s, (self.stats, self.states[-5:])
            time.sleep(0.01)
        if self.error is not None:
            raise self.error

    def wait_for_state(self, text: str) -> None:
        self.wait_for(lambda _: any(text in state for state in self.states))

    def stop(self) -> None:
        self.stop_event.set()
        self._thread.join()


@contextmanager
def switched(*arguments: Any, **settings: Any) -> Iterator[Switched]:
    scorer = Switched(*arguments, **settings)
    try:
        yield scorer
    finally:
        scorer.stop()


def beside(ground: Ground) -> Ground:
    """The same telemetry, and topics of its own for what is made of it."""
    other = Ground.new(ground.kafka, ground.partitions)
    topics = replace(other.topics, telemetry=ground.topics.telemetry)
    ids = SchemaIds(ground.ids.by_topic | other.ids.by_topic)
    return Ground(ground.kafka, topics, ids, other.mark)


@dataclass(frozen=True)
class Made:
    """What a scorer wrote, without the time at which it did."""

    scores: list[Record]
    alerts: list[Record]
    held: set[str]


def made(ground: Ground) -> Made:
    """All score and alert records, in an order of their own."""
    scores = [r for _, _, r in ground.records(ground.topics.scores) if r]
    alerts = [r for _, _, r in ground.records(ground.topics.alerts) if r]
    return Made(_plain(scores), _plain(alerts), ground.held_alerts())


def _plain(records: list[Record]) -> list[Record]:
    plain = ({k: v for k, v in record.items() if k != "score_time"} for record in records)
    return sorted(plain, key=repr)


def kafka_of(stack: Any) -> KafkaSettings:
    ends = stack.endpoints
    return KafkaSettings(ends.kafka_bootstrap, ends.registry_url)


@contextmanager
def kafka_door(kafka: KafkaSettings, *bundles: Bundle) -> Iterator[None]:
    """A door on the topics that everyone uses, in a group of its own."""
    topics = DoorTopics()
    every = [topics.requests, topics.responses, topics.dead_letters]
    ensure_topics(kafka, every)
    mark = uuid.uuid4().hex[:8]
    ground = door_ground.Ground(kafka, topics, register_schemas(kafka, every), mark)
    repository = ModelRepository()
    assert repository.update(catalog_of(*bundles)) == []
    with door_ground.running(ground, repository):
        yield


@contextmanager
def tfserving_of(bundle: Path) -> Iterator[str]:
    """Where a stand-in for TensorFlow Serving listens, with the network of a bundle."""
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("tfserving_child.py")), str(bundle)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield f"127.0.0.1:{int(process.stdout.readline())}"
        process.stdin.write("\n")
