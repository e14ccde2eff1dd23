"""Follows the catalog on a thread of its own, so that no look at it ever waits for Kafka."""

import threading
from collections import deque
from collections.abc import Collection
from types import TracebackType
from typing import Self

from scoring.catalog import Catalog
from transport.catalog import CatalogFollower, CatalogNews
from transport.release_records import BrokenRelease
from transport.settings import KafkaSettings

POLL_S = 0.25
"""Longest wait of the thread for something new; bounds how long closing takes."""

BROKEN_MAX = 1_000
"""Broken records that wait to be taken; beyond it the thread follows no further."""


class CatalogWatch:
    """The newest catalog, as a source of models whose `poll` takes only what is there.

    Args:
        kafka: Where Kafka and the registry are.
        names: Models to follow.
    """

    def __init__(self, kafka: KafkaSettings, names: Collection[str]) -> None:
        self._kafka = kafka
        self._names = names
        self._thread = threading.Thread(target=self._follow, name="catalog", daemon=True)
        self._stop = threading.Event()
        self._news = threading.Condition()
        self._catalog = Catalog()
        self._changed = False
        self._ready = False
        self._broken: deque[BrokenRelease] = deque()
        self._error: Exception | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the thread; what it reads at the moment, it reads to the end."""
        self._stop.set()
        self._thread.join()

    def poll(self, timeout_s: float) -> CatalogNews:
        """What is new since the last call, after at most `timeout_s`.

        Raises:
            SettingsError: Kafka or the registry refuses this client.
        """
        with self._news:
            self._news.wait_for(self._is_there_news, timeout_s)
            if self._error is not None:
                raise self._error
            news = CatalogNews(self._catalog, self._changed, list(self._broken), self._ready)
            self._changed = False
            self._broken.clear()
            return news

    def _is_there_news(self) -> bool:
        return self._changed or bool(self._broken) or self._error is not None

    def _follow(self) -> None:
        try:
            with CatalogFollower(self._kafka, self._names) as follower:
                while not self._stop.is_set():
                    if len(self._broken) >= BROKEN_MAX:
                        self._stop.wait(POLL_S)
                    else:
                        self._tell(follower.poll(POLL_S))
        except Exception as error:  # noqa: BLE001 - raised again by `poll`
            with self._news:
                self._error = error
                self._news.notify()

    def _tell(self, news: CatalogNews) -> None:
        with self._news:
            self._catalog, self._ready = news.catalog, news.ready
            self._changed |= news.changed
            self._broken.extend(news.broken)
            self._news.notify()
