"""The thread that brings models: the champion of the log when online, files of an inbox always."""

import threading
import time
from collections.abc import Callable
from typing import Protocol

from edge.dead_letters import dead_letter
from edge.health import Health
from edge.marks import Mark
from edge.model_files import Inbox
from edge.patience import Patience
from edge.settings import GatewaySettings
from edge.spool import Spool
from edge.updates import ModelUpdates
from schemas.errors import SettingsError, TransientError
from schemas.topics import RELEASES, TRAFFIC
from scoring.bundle import Bundle
from scoring.catalog import Catalog
from transport.catalog import CatalogNews
from transport.release_records import PARTITION, BrokenRelease

POLL_S = 1.0
REFUSED_PAUSE_S = 10.0
AGAIN_S = 10.0
"""Until a champion is looked at again that could not be tried, or that settings may mend."""

INBOX_S = 2.0

_MARKS = {RELEASES.name: Mark.RELEASE_REFUSED, TRAFFIC.name: Mark.TRAFFIC_REFUSED}


class Follower(Protocol):
    """`transport.catalog.CatalogFollower`."""

    def poll(self, timeout_s: float) -> CatalogNews:
        """The catalog now; raises SettingsError where Kafka refuses this client."""

    def close(self) -> None:
        """Drop the connection."""


class ReleaseLoop:
    """Takes releases to `ModelUpdates`: the champion, also after a rollback, and files.

    Args:
        settings: Of the gateway.
        follower: Where models come from.
        updates: Decides of them.
        spool: Takes dead letters.
        patience: Waits for a disk that refuses.
        health: For counts and the log.
        now_ms: Wall time.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        follower: Follower,
        updates: ModelUpdates,
        spool: Spool,
        *,
        patience: Patience,
        health: Health,
        now_ms: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._follower = follower
        self._updates = updates
        self._spool = spool
        self._patience = patience
        self._health = health
        self._now_ms = now_ms
        self._inbox = None if settings.models_inbox is None else Inbox(settings.models_inbox)
        self._open_question: tuple[Bundle, int] | None = None
        self._again_s = self._inbox_s = 0.0

    def run(self, stop: threading.Event) -> None:
        """Follow until stopped."""
        refused_until_s = 0.0
        try:
            while not stop.is_set():
                self.look_again()
                if time.monotonic() < refused_until_s:
                    stop.wait(POLL_S)
                    continue
                try:
                    news = self._follower.poll(POLL_S)
                except SettingsError as error:
                    self._health.announcer.warn("releases", f"no new models: {error}")
                    refused_until_s = time.monotonic() + REFUSED_PAUSE_S
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
        if bundle is not None:
            self._consider(bundle, news.catalog.traffic(bundle.manifest.name).generation)

    def look_again(self) -> None:
        """Look into the inbox, and at a champion that was put off, when it is time."""
        now_s = time.monotonic()
        if self._inbox is not None and now_s >= self._inbox_s:
            self._inbox_s = now_s + INBOX_S
            self._empty(self._inbox)
        if self._open_question is not None and now_s >= self._again_s:
            self._consider(*self._open_question)

    def _consider(self, bundle: Bundle, generation: int) -> None:
        self._open_question, self._again_s = (bundle, generation), time.monotonic() + AGAIN_S
        try:
            outcome = self._updates.champion(bundle, generation=generation)
        except (TransientError, SettingsError) as error:
            self._health.announcer.warn("model put off", f"model put off: {error}")
            return
        if not outcome.mendable:
            self._open_question = None

    def _empty(self, inbox: Inbox) -> None:
        try:
            self._updates.from_inbox(inbox.look())
        except (TransientError, SettingsError) as error:
            inbox.forget()
            self._health.announcer.warn("models_inbox", f"models_inbox: put off: {error}")

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
        self._health.dead_letters += 1
        self._health.announcer.warn("release refused", f"release refused: {record.error}")
        self._patience.until_done(
            "storing a dead letter",
            lambda: self._spool.store_priority([letter], {mark: record.offset + 1}),
        )
