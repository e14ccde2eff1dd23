"""A scorer on a thread of the test's own."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from scorer_fleet import Ground, Models, wait_until

from cloud.scorer import ScorerParts, ScorerSettings, ScorerStats, run_with


class Running:
    """A scorer on a thread of its own."""

    def __init__(self, ground: Ground, models: Models, member: str) -> None:
        self.stats = ScorerStats()
        self.states: list[str] = []
        self._stop = threading.Event()
        self._error: BaseException | None = None
        settings = ScorerSettings(
            group_id=f"scorer-{ground.mark}",
            transactional_id=f"{member}-{ground.mark}",
            model="embedded:small",
            poll_messages=500,
            session_timeout_s=6.0,
            stats_interval_s=0.0,
            max_vehicles=1000,
            backoff_max_s=1.0,
        )
        parts = ScorerParts(ground.ids, models, ground.topics)

        def body() -> None:
            try:
                run_with(settings, ground.kafka, parts, stop=self._stop, on_stats=self._on_stats)
            except Exception as error:  # noqa: BLE001 - shown by the test
                self._error = error

        self._thread = threading.Thread(target=body)
        self._thread.start()

    def _on_stats(self, stats: ScorerStats) -> None:
        self.stats = stats
        if self.states[-1:] != [stats.state]:
            self.states.append(stats.state)

    def wait_for(self, condition: Callable[[ScorerStats], bool]) -> None:
        wait_until(lambda: self._error is not None or condition(self.stats), lambda: self.stats)
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


@contextmanager
def running(ground: Ground, models: Models, member: str = "one") -> Iterator[Running]:
    scorer = Running(ground, models, member)
    try:
        yield scorer
    finally:
        scorer.stop()
