"""The cloud scorer: consume, score, produce, exactly once.

One transaction holds the scores, alerts and dead letters of a poll and the offsets behind it.
What does not count never was: after an abort, an assignment, or a model that needs other
features, the vehicles' state is dropped and rebuilt from the log up to the committed offsets, and
scoring goes on there. The assignment is eager (all partitions are given back and taken anew), so
there is one way into this state and not three. A stable transactional id settles what the process
before left open. Membership is not static: a lone broker that is restarted twice comes to take a
static member for another one and fences it for good.

What cannot be reached is waited for, without end and with growing pauses; nothing is skipped.
"""

import random
import threading

from cloud.catalog_watch import CatalogWatch
from cloud.scorer_parts import KnownModels, ModelSource, OnCatalog, Role, ScorerParts
from cloud.scorer_stats import OnStats, ScorerStats, StatsBoard
from cloud.scoring_loop import ScoringLoop
from cloud.scoring_step import ScorerTopics
from cloud.settings import ScorerSettings
from cloud.shadow_keeper import shadow_keeper
from cloud.stats import ScorerWatch, StatsBook, StatsWriter
from schemas.errors import SettingsError, TransientError
from transport.backoff import backoff_s
from transport.kafka import KafkaSettings, partition_counts, register_schemas

__all__ = [
    "ModelSource",
    "ScorerParts",
    "ScorerSettings",
    "ScorerStats",
    "ScorerTopics",
    "run",
    "run_with",
]

BACKOFF_MIN_S = 0.2


def run(
    settings: ScorerSettings,
    kafka: KafkaSettings,
    *,
    stop: threading.Event,
    on_stats: OnStats = lambda _: None,
) -> ScorerStats:
    """Score the fleet's telemetry with the released models until told to stop.

    Args:
        settings: How.
        kafka: Where Kafka and the registry are.
        stop: Ends it, after the transaction under way.
        on_stats: Told every `stats_interval_s`, and each change of state.

    Returns:
        The last statistics.

    Raises:
        FencedError: Another process has this member's transactional id.
        SettingsError: Kafka or the registry refuses this client, or topics do not fit together.
    """
    ref = settings.deployment.ref
    book = StatsBook("scorer", settings.member_id)
    with (
        CatalogWatch(kafka, [ref.name]) as models,
        StatsWriter(kafka, book),
        shadow_keeper(settings, kafka, ref) as shadows,
    ):
        board = StatsBoard(on_stats, settings.stats_interval_s, deployment=settings.deployment.kind)
        watch = ScorerWatch(book, settings.deployment.kind)
        lives = _Lives(settings, kafka, models, board, watch=watch, on_catalog=shadows.follow)
        return lives.run(stop)


def run_as(
    role: Role,
    settings: ScorerSettings,
    kafka: KafkaSettings,
    models: ModelSource,
    board: StatsBoard,
    *,
    stop: threading.Event,
) -> ScorerStats:
    """As `run`, in another role, with models of the caller's, and without shadows."""
    book = StatsBook("scorer", settings.member_id)
    with StatsWriter(kafka, book):
        watch = ScorerWatch(book, settings.deployment.kind)
        return _Lives(settings, kafka, models, board, role=role, watch=watch).run(stop)


def run_with(
    settings: ScorerSettings,
    kafka: KafkaSettings,
    parts: ScorerParts,
    *,
    stop: threading.Event,
    on_stats: OnStats = lambda _: None,
) -> ScorerStats:
    """As `run`, with models, schema ids and topics of the caller's."""
    board = StatsBoard(on_stats, settings.stats_interval_s, deployment=settings.deployment.kind)
    return _Lives(settings, kafka, parts.models, board, parts=parts).run(stop)


class _Lives:
    """One connection after the other, until stopped."""

    def __init__(
        self,
        settings: ScorerSettings,
        kafka: KafkaSettings,
        models: ModelSource,
        board: StatsBoard,
        *,
        role: Role | None = None,
        parts: ScorerParts | None = None,
        watch: ScorerWatch | None = None,
        on_catalog: OnCatalog = lambda _: None,
    ) -> None:
        self._settings = settings
        self._kafka = kafka
        self._models = models
        self._role = role or Role()
        self._known = KnownModels(
            models,
            settings.deployment.ref,
            shadow=parts.shadow if parts else self._role.shadow,
            on_catalog=on_catalog,
        )
        self._board = board
        self._parts = parts
        self._watch = watch

    def run(self, stop: threading.Event) -> ScorerStats:
        """Live until stopped; after a fault of the world, live again."""
        rng = random.Random()
        failures = 0
        while not stop.is_set():
            done = self._board.stats.batches
            try:
                self._live(stop)
            except TransientError as error:
                self._board.state(f"waiting: {error}")
                failures = 0 if self._board.stats.batches > done else failures + 1
                maximum_s = self._settings.backoff_max_s
                stop.wait(
                    backoff_s(failures, minimum_s=BACKOFF_MIN_S, maximum_s=maximum_s, rng=rng)
                )
        self._board.state("stopped")
        return self._board.stats

    def _live(self, stop: threading.Event) -> None:
        if self._parts is None:
            ids, role = register_schemas(self._kafka), self._role
            self._parts = ScorerParts(
                ids, self._models, role.topics, shadow=role.shadow, watch=self._watch
            )
        check_topics(self._kafka, self._parts.topics)
        loop = ScoringLoop(
            self._settings, self._kafka, self._parts, self._known, self._board, stop=stop
        )
        loop.run()


def check_topics(kafka: KafkaSettings, topics: ScorerTopics) -> None:
    """See to it that the topics are there and fit together.

    Raises:
        TransientError: One is not there yet, or Kafka did not answer.
        SettingsError: One has fewer partitions than telemetry, whose numbers it must mirror.
    """
    mirrored = [topic.name for topic in topics.co_partitioned()]
    names = [topics.telemetry.name, *mirrored, topics.dead_letters.name, topics.events.name]
    counts = partition_counts(kafka, names)
    missing = [name for name in names if counts[name] == 0]
    if missing:
        raise TransientError(f"no such topic yet: {', '.join(missing)}")
    wanted = counts[topics.telemetry.name]
    for name in mirrored:
        if counts[name] < wanted:
            raise SettingsError(
                f"topic {name} has {counts[name]} partitions and {topics.telemetry.name} has "
                f"{wanted}; it needs at least as many"
            )
