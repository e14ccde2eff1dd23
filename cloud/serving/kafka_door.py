"""The Kafka door of the model server: `model.requests` in, `model.responses` out.

A consumer group takes whole polls of requests, scores each as one matrix per model version, and
answers where each request asks to be answered. A row's score depends on the row alone, so a
request that is answered twice is answered alike. At least once by default: offsets follow the
stored responses. Exactly once on request: responses and offsets are one transaction.

What cannot be reached is waited for, without end and with growing pauses. Other doors of the
server do not notice.
"""

import logging
import random
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from cloud.dead_letters import Undertaker
from cloud.serving.kafka_loop import DoorLoop
from cloud.serving.kafka_settings import DoorTopics, KafkaDoorSettings
from cloud.serving.kafka_sinks import AcknowledgedSink, Sink, TransactionSink
from cloud.serving.kafka_stats import DoorBoard, DoorStats, OnDoorStats
from cloud.serving.kafka_step import RequestStep
from cloud.serving.meter import MeteredObserver
from cloud.serving.observer import NoObserver, ServingObserver
from cloud.serving.repository import RepositoryView
from schemas.errors import MotorcadeError, TransientError
from transport.backoff import backoff_s
from transport.kafka import (
    KafkaSettings,
    LogConsumer,
    SchemaIds,
    TopicDirectory,
    make_consumer,
    partition_counts,
    register_schemas,
)

__all__ = [
    "DoorParts",
    "DoorStats",
    "DoorThread",
    "DoorTopics",
    "KafkaDoor",
    "KafkaDoorSettings",
]

_log = logging.getLogger("motorcade.serve")

BACKOFF_MIN_S = 0.2
LOOK_S = 0.1
COMPONENT = "server"


@dataclass(frozen=True, slots=True)
class DoorParts:
    """What a door works with besides its settings.

    Attributes:
        view: Of the models, for the thread that runs the door.
        observer: Told of what was scored and refused.
        topics: Where to read and write.
        ids: Schema ids of the topics; None: ask the registry.
        models_known: Set once the view has all models that the log has: before that a request for
            one of them would be refused. None: it has.
    """

    view: RepositoryView
    observer: ServingObserver = field(default_factory=NoObserver)
    topics: DoorTopics = field(default_factory=DoorTopics)
    ids: SchemaIds | None = None
    models_known: threading.Event | None = None


class KafkaDoor:
    """Answers requests until told to stop.

    Args:
        settings: How.
        kafka: Where Kafka and the registry are.
        parts: What it works with.
        on_stats: Told every `stats_interval_s`, and each change of state.
    """

    def __init__(
        self,
        settings: KafkaDoorSettings,
        kafka: KafkaSettings,
        parts: DoorParts,
        *,
        on_stats: OnDoorStats = lambda _: None,
    ) -> None:
        self._settings = settings
        self._kafka = kafka
        self._parts = parts
        self._ids = parts.ids
        self._board = DoorBoard(on_stats, settings.stats_interval_s)

    def run(self, stop: threading.Event) -> DoorStats:
        """Live until stopped; after a fault of the world, live again.

        Returns:
            The last statistics.

        Raises:
            FencedError: Another process has this replica's transactional id.
            SettingsError: Kafka or the registry refuses this client.
        """
        rng = random.Random()
        failures = 0
        self._await_models(stop)
        while not stop.is_set():
            done = self._board.stats.polls
            try:
                self._live(stop)
            except TransientError as error:
                self._board.state(f"waiting: {error}")
                failures = 0 if self._board.stats.polls > done else failures + 1
                maximum_s = self._settings.backoff_max_s
                stop.wait(
                    backoff_s(failures, minimum_s=BACKOFF_MIN_S, maximum_s=maximum_s, rng=rng)
                )
        self._board.state("stopped")
        return self._board.stats

    def _await_models(self, stop: threading.Event) -> None:
        known = self._parts.models_known
        if known is None:
            return
        self._board.state("waiting: the models of the log are not read yet")
        while not known.wait(LOOK_S) and not stop.is_set():
            pass

    def _live(self, stop: threading.Event) -> None:
        topics = self._parts.topics
        every = [topics.requests, topics.responses, topics.dead_letters]
        if self._ids is None:
            self._ids = register_schemas(self._kafka, every)
        counts = partition_counts(self._kafka, [topic.name for topic in every])
        missing = [name for name, count in counts.items() if count == 0]
        if missing:
            raise TransientError(f"no such topic yet: {', '.join(missing)}")
        undertaker = Undertaker(
            COMPONENT,
            self._settings.member_id,
            self._ids.id_of(topics.dead_letters),
            topics.dead_letters.name,
        )
        step = RequestStep(
            view=self._parts.view,
            ids=self._ids,
            directory=TopicDirectory(self._kafka),
            reply_topics=re.compile(self._settings.reply_topics),
            undertaker=undertaker,
            observer=MeteredObserver(self._parts.observer),
            topics=topics,
        )
        consumer = self._consumer()
        sink = self._sink(consumer, undertaker)
        loop = DoorLoop(
            self._settings, topics, consumer=consumer, sink=sink, step=step, board=self._board
        )
        loop.run(stop)

    def _consumer(self) -> LogConsumer:
        settings = self._settings
        return make_consumer(
            self._kafka,
            settings.group_id,
            session_timeout_ms=int(settings.session_timeout_s * 1000),
            partition_assignment_strategy="range",
            queued_min_messages=2 * settings.poll_messages,
            queued_max_messages_kbytes=max(1_000, 2 * settings.poll_bytes // 1000),
            socket_nagle_disable=True,
        )

    def _sink(self, consumer: LogConsumer, undertaker: Undertaker) -> Sink:
        stored = self._board.stored
        if self._settings.exactly_once:
            return TransactionSink(self._settings, self._kafka, on_stored=stored)
        return AcknowledgedSink(self._settings, self._kafka, consumer, undertaker, on_stored=stored)


class DoorThread:
    """A Kafka door beside other doors, on a thread of its own.

    Where it cannot go on it says so and ends; the others serve all the same.

    Args:
        make: Makes the door, on its thread.
    """

    def __init__(self, make: Callable[[], KafkaDoor]) -> None:
        self._make = make
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kafka-door")
        self._error: MotorcadeError | None = None

    def start(self) -> None:
        """Begin to answer; does not wait for Kafka."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what is under way, and end.

        Raises:
            FencedError, SettingsError: It had ended before, for that.
        """
        self._stop.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._make().run(self._stop)
        except MotorcadeError as error:
            _log.error("the Kafka door has closed: %s", error)
            self._error = error


class StateLog:
    """Logs what a door is doing when that changes."""

    def __init__(self) -> None:
        self._said = ""

    def __call__(self, stats: DoorStats) -> None:
        if stats.state != self._said:
            self._said = stats.state
            _log.info("Kafka door: %s", stats.state)
