"""The thread that follows the champion: tries a model, keeps it on disk, hands it over."""

import threading
from collections.abc import Callable
from typing import Protocol

from edge.dead_letters import dead_letter, refused_bundle
from edge.health import Health
from edge.marks import Mark
from edge.models import ModelStore
from edge.patience import Patience
from edge.rows import Priority
from edge.settings import GatewaySettings
from edge.spool import Spool
from schemas.errors import ContractError, SettingsError, TransientError
from schemas.topics import RELEASES, TRAFFIC
from scoring.bundle import Bundle, Manifest
from scoring.catalog import Catalog
from scoring.scorer import BatchScorer
from transport.catalog import CatalogNews
from transport.release_records import PARTITION, BrokenRelease

POLL_S = 1.0
REFUSED_PAUSE_S = 10.0

_MARKS = {RELEASES.name: Mark.RELEASE_REFUSED, TRAFFIC.name: Mark.TRAFFIC_REFUSED}


class Follower(Protocol):
    """`transport.catalog.CatalogFollower`."""

    def poll(self, timeout_s: float) -> CatalogNews:
        """The catalog now; raises SettingsError where Kafka refuses this client."""

    def close(self) -> None:
        """Drop the connection."""


class ReleaseLoop:
    """Takes the champion from Kafka to the disk and to the scorer, also after a rollback.

    A model is first loaded and run here, away from the scoring thread; one that does not work is
    a dead letter, and the one in use goes on. What passes is on the disk before it scores.

    Args:
        settings: Of the gateway.
        follower: Where models come from.
        models: The disk.
        spool: Takes dead letters.
        offer: Hands a model to the scoring thread.
        patience: Waits for a disk that refuses.
        health: For counts and the log.
        now_ms: Wall time.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        follower: Follower,
        models: ModelStore,
        spool: Spool,
        *,
        offer: Callable[[Bundle], object],
        patience: Patience,
        health: Health,
        now_ms: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._follower = follower
        self._models = models
        self._spool = spool
        self._offer = offer
        self._patience = patience
        self._health = health
        self._now_ms = now_ms
        self._installed: Manifest | None = None
        self._refused: Manifest | None = None

    def start_from_disk(self) -> None:
        """Use the model of the last run, so that an offline start scores.

        Raises:
            TransientError: The models' directory cannot be used.
        """
        bundle, refused = self._models.load()
        for file in refused:
            self._health.announcer.warn(
                "model on disk", f"{file.error}; its file is now {file.path}"
            )
        if bundle is not None and bundle.manifest.name == self._settings.model_name:
            self._installed = bundle.manifest
            self._offer(bundle)

    def run(self, stop: threading.Event) -> None:
        """Follow until stopped."""
        try:
            while not stop.is_set():
                try:
                    news = self._follower.poll(POLL_S)
                except SettingsError as error:
                    self._health.announcer.warn("releases", f"no new models: {error}")
                    stop.wait(REFUSED_PAUSE_S)
                    continue
                self.take(news)
        finally:
            self._follower.close()

    def take(self, news: CatalogNews) -> None:
        """Refuse what is broken, in order of the log, and use the champion if it is another one."""
        for record in news.broken:
            self._refuse_broken(record)
        if not news.changed:
            return
        bundle = self._champion(news.catalog)
        if bundle is not None and bundle.manifest not in (self._installed, self._refused):
            self._install(bundle)

    def _champion(self, catalog: Catalog) -> Bundle | None:
        """The champion's release; None where there is none, and what is in use goes on."""
        name = self._settings.model_name
        version = catalog.champion(name)
        named = catalog.traffic(name).champion
        if version is None and named is not None:
            self._health.announcer.warn(
                "champion", f"no champion: {name} {named} was named, but cannot be had"
            )
        return None if version is None else catalog.bundle(name, version)

    def _install(self, bundle: Bundle) -> None:
        try:
            BatchScorer(bundle)
        except ContractError as error:
            letter = refused_bundle(
                bundle, error, gateway_id=self._settings.gateway_id, now_ms=self._now_ms()
            )
            self._refused = bundle.manifest
            self._refuse(letter, error, {})
            return
        try:
            self._models.install(bundle)
        except TransientError as error:
            # It scores all the same; the next start fetches it again.
            self._health.announcer.warn("model on disk", f"model not kept: {error}")
        self._installed, self._refused = bundle.manifest, None
        self._offer(bundle)

    def _refuse_broken(self, record: BrokenRelease) -> None:
        mark = _MARKS[record.topic]
        if record.offset < self._spool.marks[mark]:
            # A dead letter of an earlier life has it, or one that stands behind it in the log.
            self._health.announcer.warn("release refused", f"still refused: {record.error}")
            return
        letter = dead_letter(
            record.error,
            component_id=self._settings.gateway_id,
            failed_ms=self._now_ms(),
            topic=record.topic,
            key=None if record.key is None else record.key.decode(errors="replace"),
            headers=record.headers,
            payload=record.payload,
            partition=PARTITION,
            offset=record.offset,
        )
        self._refuse(letter, record.error, {mark: record.offset + 1})

    def _refuse(self, letter: Priority, error: ContractError, marks: dict[Mark, int]) -> None:
        self._health.dead_letters += 1
        self._health.announcer.warn("release refused", f"release refused: {error}")
        self._patience.until_done(
            "storing a dead letter", lambda: self._spool.store_priority([letter], marks)
        )
