"""Follows the log of releases and traffic, and makes an immutable catalog of it.

    model.releases ─┐
    model.chunks   ─┼─► CatalogFollower ─► Catalog ─► whoever scores, serves or shows
    model.traffic  ─┘

`model.chunks` is not followed: of what may be many gigabytes only the pieces of those versions
are read that are held.
"""

import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from schemas.errors import ContractError, Reason, TransientError
from schemas.topics import CHUNKS, RELEASES, TRAFFIC
from scoring.bundle import Bundle
from scoring.catalog import Catalog
from transport.catalog.breakages import Breakages
from transport.catalog.builder import CatalogBuilder
from transport.catalog.shelf import Entry, Limits
from transport.chunks import chunks_end, read_chunks
from transport.kafka import (
    LogConsumer,
    Message,
    SchemaIds,
    Span,
    make_consumer,
    partition_counts,
    read_range,
    register_schemas,
    spans,
)
from transport.release_records import PARTITION, BrokenRelease, Head, broken, read_head
from transport.settings import KafkaSettings

ANSWER_TIMEOUT_S = 5.0
"""Longest wait for each answer of Kafka."""
RETRY_S = 1.0
"""Pause after Kafka or the registry could not be reached."""
PROBE_S = 5.0
"""Time without a record after which Kafka is asked whether it is there."""
PROBE_TIMEOUT_S = 2.0
BATCH_MAX = 16


@dataclass(frozen=True, slots=True)
class CatalogNews:
    """What a poll found.

    Attributes:
        catalog: The models and their traffic now; empty before `ready`.
        changed: Whether it is another one than that of the poll before.
        broken: Records that cannot be used, each once, in order of the log.
        ready: Whether the log was read to its end once: from then on what is not in the catalog
            is not there.
    """

    catalog: Catalog
    changed: bool
    broken: list[BrokenRelease]
    ready: bool


class CatalogFollower:
    """Gives the catalog as it changes, from the log's beginning.

    Belongs to one thread, best one of its own: a `poll` may take seconds longer than asked, while
    it catches up, reads a large model, or Kafka does not answer. It joins no group; every follower
    sees every record. Kafka or the registry being down, or the topics not being there yet, is no
    error here: the catalog stays as it is until they are.

    A version that an alias or an experiment names is in the catalog together with the traffic that
    names it, if the log has it. A broken record is reported once, and what it would have replaced
    goes on; a release whose chunks are missing is looked at again when chunks arrive.

    Args:
        settings: Where Kafka and the registry are.
        names: Models to follow; None: all.
        limits: How much is held.

    Attributes:
        last_error: Why Kafka cannot be reached now; None: it can, as far as is known.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        names: Collection[str] | None = None,
        *,
        limits: Limits | None = None,
    ) -> None:
        self._settings = settings
        self._names = None if names is None else frozenset(names)
        self._limits = limits or Limits()
        self._ids: SchemaIds | None = None
        self._consumer: LogConsumer | None = None
        self._builder: CatalogBuilder | None = None
        self._breakages = Breakages()
        self._has_traffic_topic = False
        self._chunks_end = 0
        self._retry_at_s = 0.0
        self._probe_at_s = 0.0
        self._catalog = Catalog()
        self._told = self._catalog
        self._ready = False
        self.last_error: TransientError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connection; a later `poll` reads the log from its beginning again."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()

    def poll(self, timeout_s: float) -> CatalogNews:
        """The catalog now, after waiting for something new.

        Args:
            timeout_s: Longest wait for something new.

        Raises:
            SettingsError: Kafka or the registry refuses this client.
        """
        pause_s = self._retry_at_s - time.monotonic()
        if pause_s > 0:
            time.sleep(min(timeout_s, pause_s))
            return self._news()
        try:
            self._follow(timeout_s)
            self.last_error = None
        except TransientError as error:
            self.last_error = error
            self._retry_at_s = time.monotonic() + RETRY_S
        return self._news()

    def read_to_end(self, timeout_s: float) -> Catalog:
        """The catalog once the log was read to the end that it has now, for one-off questions.

        Args:
            timeout_s: Longest wait.

        Raises:
            TransientError: Kafka or the registry did not answer in time.
            SettingsError: They refuse this client.
        """
        until_s = time.monotonic() + timeout_s
        self.close()
        self._ready = False
        while not self.poll(RETRY_S).ready:
            if time.monotonic() > until_s:
                raise self.last_error or TransientError(f"no catalog within {timeout_s:g} s")
        return self._catalog

    def holds(self, name: str, version: str) -> bool:
        """Whether the log has a sound release, be it beyond the limits of what is held."""
        return self._builder is not None and self._builder.holds((name, version))

    def entries(self) -> list[Entry]:
        """All versions in the log, oldest first, also those beyond the limits or without chunks."""
        return [] if self._builder is None else self._builder.entries()

    def fetch(self, name: str, version: str) -> Bundle:
        """A release that the log had at the last poll, also one beyond the limits.

        Raises:
            ContractError: UNKNOWN_MODEL: there is none; or what is wrong with it.
            TransientError: Kafka did not answer in time.
        """
        held = self._catalog.bundle(name, version)
        if held is not None:
            return held
        found = [entry for entry in self.entries() if entry.key == (name, version)]
        record = self._record_of(found[0]) if found else None
        if record is None or self._ids is None:
            raise ContractError(Reason.UNKNOWN_MODEL, f"model {name} has no version {version!r}")
        return self._whole(read_head(record, self._ids), self._ids)

    def _news(self) -> CatalogNews:
        changed = self._catalog is not self._told
        self._told = self._catalog
        # While the log is read again, what waits to be told may yet turn out to be history.
        settled = self._ready and self._consumer is not None
        broken_now = self._breakages.take() if settled else []
        return CatalogNews(self._catalog, changed, broken_now, self._ready)

    def _follow(self, timeout_s: float) -> None:
        if self._ids is None:
            self._ids = register_schemas(self._settings, [RELEASES, CHUNKS, TRAFFIC])
        if self._consumer is None or self._builder is None:
            self._start(self._ids)
            return
        for message in self._consume(self._consumer, timeout_s):
            self._builder.take(message)
        self._probe(self._consumer, self._builder)
        self._settle(self._builder, self._ids)

    def _consume(self, consumer: LogConsumer, timeout_s: float) -> list[Message]:
        """What came. After an error the log is read again: it may have taken records with it."""
        try:
            return consumer.consume(BATCH_MAX, timeout_s)
        except TransientError:
            self.close()
            raise

    def _start(self, ids: SchemaIds) -> None:
        """Read the log so far; traffic first, so that what it refers to does not fall out."""
        counts = partition_counts(
            self._settings, [RELEASES.name, TRAFFIC.name], timeout_s=ANSWER_TIMEOUT_S
        )
        if not counts[RELEASES.name]:
            raise TransientError(f"no topic {RELEASES.name} yet")
        self._has_traffic_topic = bool(counts[TRAFFIC.name])
        builder = CatalogBuilder(ids, self._names, self._limits, self._breakages)
        topics = ([TRAFFIC.name] if self._has_traffic_topic else []) + [RELEASES.name]
        for topic in topics:
            self._read_on(builder, topic)
        self._builder = builder
        self._settle(builder, ids, at_start=True)
        self._consumer = self._consumer_at({name: builder.next_offset[name] for name in topics})

    def _consumer_at(self, offsets: dict[str, int]) -> LogConsumer:
        consumer = make_consumer(self._settings, f"{self._settings.client_id}-catalog")
        consumer.start()
        consumer.assign({(topic, PARTITION): offset for topic, offset in offsets.items()})
        self._probe_at_s = time.monotonic() + PROBE_S
        return consumer

    def _read_on(self, builder: CatalogBuilder, topic: str) -> None:
        """Take what a topic holds now and the builder does not have."""
        span = spans(self._settings, topic, timeout_s=ANSWER_TIMEOUT_S)[PARTITION]
        start = max(span.start, builder.next_offset[topic])
        for message in self._read(topic, Span(start, span.end)):
            builder.take(message)

    def _read(self, topic: str, span: Span) -> Iterator[Message]:
        batches = read_range(
            self._settings,
            topic,
            {PARTITION: span},
            batch_messages=BATCH_MAX,
            stall_timeout_s=ANSWER_TIMEOUT_S,
        )
        for batch in batches:
            yield from batch

    def _settle(self, builder: CatalogBuilder, ids: SchemaIds, *, at_start: bool = False) -> None:
        """Make the catalog anew where there is news, once all that it needs is here."""
        if not builder.dirty:
            return
        if builder.dangling():
            self._read_on(builder, RELEASES.name)
            builder.read_all_releases()
        entries = builder.to_load()
        if entries:
            self._chunks_end = chunks_end(self._settings)
        for entry in entries:
            self._load(builder, ids, entry)
        if at_start:
            builder.pass_over_history()
        self._catalog = builder.catalog()
        self._ready = True

    def _load(self, builder: CatalogBuilder, ids: SchemaIds, entry: Entry) -> None:
        record = self._record_of(entry)
        if record is None:
            builder.refused(entry.key, None)
            return
        try:
            builder.loaded(self._whole(read_head(record, ids), ids))
        except ContractError as error:
            builder.refused(entry.key, broken(record, error))

    def _record_of(self, entry: Entry) -> Message | None:
        """The record of a version; None where another one has taken its place."""
        return next(self._read(RELEASES.name, Span(entry.offset, entry.offset + 1)), None)

    def _whole(self, release: Bundle | Head, ids: SchemaIds) -> Bundle:
        if isinstance(release, Bundle):
            return release
        sha256 = release.manifest.model_sha256
        return release.with_model(read_chunks(self._settings, ids, sha256, release.chunks_from))

    def _probe(self, consumer: LogConsumer, builder: CatalogBuilder) -> None:
        """Now and then: is Kafka there, did chunks arrive that were missing, is there traffic?

        Raises:
            TransientError: Kafka does not answer; the client itself would wait in silence.
        """
        if time.monotonic() < self._probe_at_s:
            return
        self._probe_at_s = time.monotonic() + PROBE_S
        consumer.watermarks((RELEASES.name, PARTITION), PROBE_TIMEOUT_S)
        if builder.has_failed and chunks_end(self._settings) > self._chunks_end:
            builder.try_again()
        if not self._has_traffic_topic and self._traffic_topic_appeared():
            self.close()

    def _traffic_topic_appeared(self) -> bool:
        counts = partition_counts(self._settings, [TRAFFIC.name], timeout_s=ANSWER_TIMEOUT_S)
        return bool(counts[TRAFFIC.name])
