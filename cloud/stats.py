"""Statistics of arms to `model.stats`, beside the scoring and never in its way.

    scorer's or server's threads ─► StatsBook ─► StatsWriter's own thread ─► model.stats

They are no part of the scorer's transaction: a poll that is done again after an abort counts
twice, and what a process had counted when it was killed is lost. Rates are decided from them,
which bear both; alerts and scores themselves are exact.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import numpy as np

from schemas.columns import TelemetryColumns
from schemas.errors import TransientError
from schemas.records import encode_confluent
from schemas.topics import MODEL_STATS
from scoring.bundle import Bundle
from scoring.lineup import Lane
from scoring.stats import ArmCounts, ArmKey, ArmWindow, Tally
from scoring.stream import Scored
from transport.kafka import KafkaSettings, Outgoing, SchemaIds, TellingProducer, register_schemas

FLUSH_S = 2.0
"""Length of a window."""

ARMS_MAX = 256
"""Arms that are counted at once; beyond it a new one is not counted in this window."""

CLOSE_S = 2.0
"""Longest wait for the last windows to be stored."""

_log = logging.getLogger("motorcade.stats")

_Name = tuple[str, str, str, str]
"""Deployment, model, version, arm."""


class StatsBook:
    """What one component counts; safe for use by many threads.

    Args:
        component: 'scorer' or 'server'.
        component_id: Which one; its own in the fleet of them.
    """

    def __init__(self, component: str, component_id: str) -> None:
        self._component = component
        self._component_id = component_id
        self._lock = threading.Lock()
        self._tallies: dict[_Name, tuple[Bundle, Tally]] = {}
        self._replaced: list[tuple[_Name, ArmCounts]] = []
        self._errors: dict[_Name, int] = {}
        self._since_ms = now_ms()

    @contextmanager
    def tally(self, deployment: str, bundle: Bundle, arm: str) -> Iterator[Tally]:
        """The counts of an arm, for as long as the block lasts; no other thread counts then."""
        name = (deployment, bundle.manifest.name, bundle.manifest.version, arm)
        with self._lock:
            held = self._tallies.get(name)
            if held is None or held[0] is not bundle:
                held = self._renewed(name, bundle, held)
            yield held[1]

    def failed(self, deployment: str, model: str) -> None:
        """A request was refused before any version was to score it."""
        name = (deployment, model, "", "")
        with self._lock:
            if name in self._errors or len(self._errors) < ARMS_MAX:
                self._errors[name] = self._errors.get(name, 0) + 1

    def close_window(self, now_ms: int) -> list[ArmWindow]:
        """What was counted since the last call; arms that counted nothing are let go."""
        with self._lock:
            counted = {
                name: tally.close() for name, (_, tally) in self._tallies.items() if tally.used
            }
            self._tallies = {name: self._tallies[name] for name in counted}
            replaced, self._replaced = self._replaced, []
            errors, self._errors = self._errors, {}
            since_ms, self._since_ms = self._since_ms, now_ms
        failed = [(name, ArmCounts(errors=number)) for name, number in errors.items()]
        return [
            ArmWindow(self._key(name), min(since_ms, now_ms), now_ms, counts)
            for name, counts in (*replaced, *counted.items(), *failed)
        ]

    def _renewed(
        self, name: _Name, bundle: Bundle, held: tuple[Bundle, Tally] | None
    ) -> tuple[Bundle, Tally]:
        """The tally of an arm not seen yet, or whose bundle is another object now."""
        if held is not None and held[0] == bundle:
            self._tallies[name] = (bundle, held[1])
            return self._tallies[name]
        if held is not None and held[1].used:
            # The same version was published anew: other bins, so a window of its own.
            self._replaced.append((name, held[1].close()))
        fresh = (bundle, Tally(bundle))
        if held is not None or len(self._tallies) < ARMS_MAX:
            self._tallies[name] = fresh
        return fresh

    def _key(self, name: _Name) -> ArmKey:
        return ArmKey(self._component, self._component_id, *name)


class ScorerWatch:
    """Counts what the cloud's scorer makes of its polls. Belongs to the scorer's thread.

    Args:
        book: Where to.
        deployment: Where the network runs: 'embedded', 'rpc' or 'kafka'.
    """

    def __init__(self, book: StatsBook, deployment: str) -> None:
        self._book = book
        self._deployment = deployment
        self._lap_s = 0.0

    def begin(self) -> None:
        """A poll is about to be scored; the time until the next call is its first arm's."""
        self._lap_s = time.perf_counter()

    def scored(self, lane: Lane, columns: TelemetryColumns, scored: Scored, now_ms: int) -> None:
        """A lane has scored its share of a poll; as of `scoring.arms.Watch`."""
        began_s, self._lap_s = self._lap_s, time.perf_counter()
        if not columns.vehicle_ids:
            return
        opened = sum(each.state == "OPEN" for each in scored.transitions)
        newest = columns.event_time_ms[columns.starts + columns.counts - 1]
        synced = columns.clock_synced
        ages_s = np.maximum(now_ms - newest[synced], 0) / 1000
        with self._book.tally(self._deployment, lane.bundle, lane.arm) as tally:
            tally.scores(scored.scores)
            for rows in scored.features:
                tally.features(rows, now_ms)
            for numbers in scored.vehicle_rows:
                tally.vehicles(numbers)
            tally.times("ages", ages_s, columns.counts[synced])
            tally.times("compute", [self._lap_s - began_s])
            tally.add(alerts_opened=opened, alerts_closed=len(scored.transitions) - opened)
        self._lap_s = time.perf_counter()

    def held(self, lane: Lane, openings: int) -> None:
        """As of `scoring.arms.Watch`."""
        with self._book.tally(self._deployment, lane.bundle, lane.arm) as tally:
            tally.add(alerts_opened=-openings, alerts_held=openings)


class StatsWriter:
    """A thread that closes a window every `FLUSH_S` and writes it to `model.stats`.

    With Kafka or the registry away windows are lost, said once, and counted; nobody waits.

    Args:
        kafka: Where Kafka and the registry are.
        book: Whose windows.
        interval_s: Length of a window.
        before_close: Called before each window is closed, to count what was put aside.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        book: StatsBook,
        *,
        interval_s: float = FLUSH_S,
        before_close: Callable[[], None] = lambda: None,
    ) -> None:
        self._kafka = kafka
        self._book = book
        self._interval_s = interval_s
        self._before_close = before_close
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="model-stats", daemon=True)
        self._ids: SchemaIds | None = None
        self.lost = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write the last window; waits for about `CLOSE_S` at most."""
        self._stop.set()
        self._thread.join(2 * CLOSE_S)

    def _run(self) -> None:
        producer = TellingProducer(self._kafka)
        producer.start()
        while not self._stop.wait(self._interval_s):
            self._write(producer)
        self._write(producer)
        producer.close(CLOSE_S)

    def _write(self, producer: TellingProducer) -> None:
        self._before_close()
        windows = self._book.close_window(now_ms())
        if not windows:
            return
        try:
            schema_id = self._schema_id()
        except TransientError as error:
            self._say_once(error)
            self.lost += len(windows)
            return
        for window in windows:
            value = encode_confluent(MODEL_STATS.record, schema_id, window.to_record())
            producer.tell(Outgoing(MODEL_STATS.name, value, window.key.model.encode()))

    def _schema_id(self) -> int:
        if self._ids is None:
            self._ids = register_schemas(self._kafka, [MODEL_STATS])
        return self._ids.id_of(MODEL_STATS)

    def _say_once(self, error: TransientError) -> None:
        if not self.lost:
            _log.warning("statistics are not written: %s", error)


def now_ms() -> int:
    """Since the epoch."""
    return time.time_ns() // 1_000_000
