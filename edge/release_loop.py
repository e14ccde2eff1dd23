"""The thread that follows `model.releases`: tries a model, keeps it on disk, hands it over."""

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
from schemas.topics import RELEASES
from scoring.bundle import Bundle, Manifest
from scoring.scorer import BatchScorer
from transport.releases import BrokenRelease, Release

POLL_S = 1.0
REFUSED_PAUSE_S = 10.0


class Follower(Protocol):
    """`transport.releases.ReleaseFollower`."""

    def poll(self, timeout_s: float) -> list[Release]:
        """New releases in order; raises SettingsError where Kafka refuses this client."""

    def close(self) -> None:
        """Drop the connection."""


class ReleaseLoop:
    """Takes models from Kafka to the disk and to the scorer.

    A model is first loaded and run here, away from the scoring thread; one that does not work is
    a dead letter, and the one in use goes on. What passes is on the disk before it scores.

    Args:
        settings: Of the gateway.
        follower: Where releases come from.
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
                    releases = self._follower.poll(POLL_S)
                except SettingsError as error:
                    self._health.announcer.warn("releases", f"no new models: {error}")
                    stop.wait(REFUSED_PAUSE_S)
                    continue
                self.take(releases)
        finally:
            self._follower.close()

    def take(self, releases: list[Release]) -> None:
        """Refuse the broken ones, in order of the log, and use the sound ones in theirs."""
        broken = [release for release in releases if isinstance(release, BrokenRelease)]
        for release in sorted(broken, key=lambda release: release.offset):
            self._refuse_broken(release)
        for bundle in releases:
            if isinstance(bundle, Bundle) and bundle.manifest != self._installed:
                self._install(bundle)

    def _install(self, bundle: Bundle) -> None:
        try:
            BatchScorer(bundle)
        except ContractError as error:
            letter = refused_bundle(
                bundle, error, gateway_id=self._settings.gateway_id, now_ms=self._now_ms()
            )
            self._refuse(letter, error, {})
            return
        try:
            self._models.install(bundle)
        except TransientError as error:
            # It scores all the same; the next start fetches it again.
            self._health.announcer.warn("model on disk", f"model not kept: {error}")
        self._installed = bundle.manifest
        self._offer(bundle)

    def _refuse_broken(self, release: BrokenRelease) -> None:
        if release.offset < self._spool.marks[Mark.RELEASE_REFUSED]:
            return
        letter = dead_letter(
            release.error,
            component_id=self._settings.gateway_id,
            failed_ms=self._now_ms(),
            topic=RELEASES.name,
            key=None if release.key is None else release.key.decode(errors="replace"),
            headers=release.headers,
            payload=release.payload,
            partition=0,
            offset=release.offset,
        )
        self._refuse(letter, release.error, {Mark.RELEASE_REFUSED: release.offset + 1})

    def _refuse(self, letter: Priority, error: ContractError, marks: dict[Mark, int]) -> None:
        self._health.dead_letters += 1
        self._health.announcer.warn("release refused", f"release refused: {error}")
        self._patience.until_done(
            "storing a dead letter", lambda: self._spool.store_priority([letter], marks)
        )
