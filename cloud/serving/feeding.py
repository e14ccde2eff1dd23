"""The thread that keeps a server's repository as the log has it, with or without Kafka."""

import logging
import random
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection

from cloud.dead_letters import Refused, Undertaker
from cloud.serving.model_folder import ModelFolder
from cloud.serving.repository import ModelRepository, Unusable
from schemas.errors import MotorcadeError, SettingsError, TransientError
from schemas.records import encode_confluent
from schemas.topics import DEAD_LETTERS, RELEASES
from scoring.catalog import Catalog
from transport.backoff import backoff_s
from transport.catalog import CatalogFollower, CatalogNews
from transport.kafka import SchemaIds, publish, register_schemas
from transport.release_records import PARTITION, BrokenRelease
from transport.releases import release_key
from transport.settings import KafkaSettings

POLL_S = 0.5
PAUSE_MIN_S, PAUSE_MAX_S = 1.0, 30.0
LETTERS_MAX = 256
"""Dead letters that wait for Kafka; beyond it the thread follows the log no further."""
LETTER_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 30.0

_log = logging.getLogger("motorcade.serve")


class CatalogFeed:
    """Feeds a repository from the log, or from a folder until the log is there.

    Kafka that is down, or that refuses this client, is said in the log and tried again for ever:
    the doors go on with the models that are there.

    Args:
        kafka: Where the log is.
        repository: Fed.
        names: Models to serve; None: all.
        folder: Keeps what the log says; None: nothing is kept.
        on_event: Told in a word what happened to a release: for logs and metrics.

    Attributes:
        caught_up: Set once the repository has all that the log said: from then on a model that is
            not there is unknown.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        repository: ModelRepository,
        *,
        names: Collection[str] | None = None,
        folder: ModelFolder | None = None,
        on_event: Callable[[str], None] = _log.info,
    ) -> None:
        self._kafka = kafka
        self._repository = repository
        self._names = names
        self._folder = folder
        self._say = on_event
        self._rng = random.Random()
        self._unburied: deque[BrokenRelease | Unusable] = deque()
        self._catalog = Catalog()
        self._failures = 0
        self._bury_at_s = 0.0
        self._ids: SchemaIds | None = None
        self._unkept = False
        self.caught_up = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="serve-catalog", daemon=True)

    def start(self) -> None:
        """Take what the folder has, then follow the log. Raises TransientError: no folder."""
        if self._folder is not None:
            kept = self._folder.load()
            for unusable in self._repository.update(kept):
                self._say(f"kept {_told(unusable)}")
        self._thread.start()

    def stop(self) -> None:
        """End the thread; dead letters that Kafka did not take are told by the next start."""
        self._stop.set()
        self._thread.join(STOP_TIMEOUT_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with CatalogFollower(self._kafka, self._names) as follower:
                    self._follow(follower)
            except SettingsError as error:
                _log.error("Kafka refuses this server, which goes on without: %s", error)
                self._stop.wait(PAUSE_MAX_S)

    def _follow(self, follower: CatalogFollower) -> None:
        said: MotorcadeError | None = None
        while not self._stop.is_set():
            if len(self._unburied) < LETTERS_MAX:
                news = follower.poll(POLL_S)
                self._take(news)
                if news.ready:
                    self.caught_up.set()
            else:
                self._stop.wait(POLL_S)
            self._keep()
            self._bury()
            if str(follower.last_error) != str(said):
                said = follower.last_error
                self._say(f"without Kafka: {said}" if said else "following the log")

    def _take(self, news: CatalogNews) -> None:
        for broken in news.broken:
            self._unburied.append(broken)
            self._report(broken)
        if not (news.ready and news.changed):
            return
        for unusable in self._repository.update(news.catalog):
            self._say(_told(unusable))
            self._unburied.append(unusable)
        shown = self._repository.catalog()
        champions = (f"{name} {shown.champion(name)}" for name in shown.names())
        self._say(f"serving {', '.join(champions) or 'no model yet'}")
        self._unkept = self._folder is not None
        self._catalog = news.catalog

    def _report(self, broken: BrokenRelease) -> None:
        name, _, version = (broken.key or b"").decode("utf-8", "replace").partition("/")
        if broken.topic == RELEASES.name:
            self._repository.report_broken(name, version, broken.error)

    def _keep(self) -> None:
        """Keep the catalog in the folder; a disk that refuses is asked again."""
        if not self._unkept or self._folder is None:
            return
        try:
            self._folder.keep(self._catalog)
            self._unkept = False
        except TransientError as error:
            _log.warning("%s", error)
            self._stop.wait(PAUSE_MIN_S)

    def _bury(self) -> None:
        """Write the dead letters that wait; Kafka that is away is asked again, ever later."""
        if not self._unburied or time.monotonic() < self._bury_at_s:
            return
        try:
            self._write()
            self._failures = 0
        except TransientError as error:
            pause_s = backoff_s(
                self._failures, minimum_s=PAUSE_MIN_S, maximum_s=PAUSE_MAX_S, rng=self._rng
            )
            self._failures += 1
            self._bury_at_s = time.monotonic() + pause_s
            _log.warning("%d dead letters wait: %s", len(self._unburied), error)

    def _write(self) -> None:
        ids = self._schema_ids()
        undertaker = Undertaker("server", socket.gethostname(), ids.id_of(DEAD_LETTERS))
        while self._unburied:
            found = self._unburied[0]
            refused = _refused(found) if isinstance(found, BrokenRelease) else _bundle(found, ids)
            now_ms = time.time_ns() // 1_000_000
            letter = undertaker.letter(refused, found.error, now_ms=now_ms, model_version=None)
            publish(self._kafka, [letter], timeout_s=LETTER_TIMEOUT_S)
            self._unburied.popleft()

    def _schema_ids(self) -> SchemaIds:
        if self._ids is None:
            self._ids = register_schemas(self._kafka, [DEAD_LETTERS, RELEASES])
        return self._ids


def _bundle(unusable: Unusable, ids: SchemaIds) -> Refused:
    """A release whose record was sound but whose model cannot be used."""
    manifest = unusable.bundle.manifest
    return Refused(
        topic=RELEASES.name,
        partition=PARTITION,
        offset=-1,
        key=release_key(manifest.name, manifest.version),
        headers=(),
        payload=encode_confluent(RELEASES.record, ids.id_of(RELEASES), unusable.bundle.to_record()),
    )


def _told(unusable: Unusable) -> str:
    manifest = unusable.bundle.manifest
    return f"release {manifest.name} {manifest.version} cannot be used: {unusable.error}"


def _refused(broken: BrokenRelease) -> Refused:
    return Refused(
        topic=broken.topic,
        partition=PARTITION,
        offset=broken.offset,
        key=broken.key,
        headers=broken.headers,
        payload=broken.payload,
    )
