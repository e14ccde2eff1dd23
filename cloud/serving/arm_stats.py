"""What the model server counts of each arm, for `model.stats`.

Hot path: a request of one row may be all that is scored at once, so a batch is put aside with a
few copies, and counted with the others when there are enough of them or the window ends.
"""

import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cloud.serving.observer import ServingObserver
from cloud.serving.repository import Served
from cloud.stats import StatsBook, StatsWriter, now_ms
from schemas.errors import MotorcadeError
from scoring.bundle import Bundle
from transport.kafka import KafkaSettings

HELD_ROWS_MAX = 4_096
"""Rows of an arm that are put aside before they are counted."""

HELD_BATCHES_MAX = 512
"""Batches of an arm that are put aside before they are counted."""

SAMPLED_ROWS_MAX = 64
"""First rows of a batch whose features are put aside; of what is held a sample is counted."""


@dataclass(slots=True)
class _Held:
    """Batches of one arm that are not counted yet."""

    bundle: Bundle
    features: list[NDArray[np.float32]] = field(default_factory=list)
    scores: list[NDArray[np.float32]] = field(default_factory=list)
    queue_us: list[int] = field(default_factory=list)
    compute_us: list[int] = field(default_factory=list)
    rows: int = 0


class ArmCounter:
    """A `ServingObserver` that counts into a book.

    Args:
        book: Where to; `drain` is to be called before its windows are closed.
    """

    def __init__(self, book: StatsBook) -> None:
        self._book = book
        self._lock = threading.Lock()
        self._held: dict[tuple[str, str, str, str], _Held] = {}

    def observed(
        self,
        served: Served,
        features: NDArray[np.float32],
        scores: NDArray[np.float32],
        *,
        queue_us: Sequence[int],
        compute_us: int,
        deployment: str,
    ) -> None:
        """As of `ServingObserver`."""
        manifest = served.bundle.manifest
        key = (deployment, manifest.name, manifest.version, served.arm)
        full: _Held | None = None
        with self._lock:
            held = self._held.get(key)
            if held is None or held.bundle is not served.bundle:
                full, held = held, _Held(served.bundle)
                self._held[key] = held
            # Of a window the newest reading: the others were counted when they were that.
            newest = features[:SAMPLED_ROWS_MAX, -len(manifest.features) :]
            held.features.append(newest.copy())
            held.scores.append(scores.copy())
            held.queue_us.extend(queue_us)
            held.compute_us.append(compute_us)
            held.rows += len(scores)
            if held.rows >= HELD_ROWS_MAX or len(held.scores) >= HELD_BATCHES_MAX:
                full = self._held.pop(key)
        if full is not None:
            self._count(deployment, served.arm, full)

    def failed(self, model: str, error: MotorcadeError, *, deployment: str) -> None:
        """As of `ServingObserver`."""
        self._book.failed(deployment, model)

    def drain(self) -> None:
        """Count what was put aside."""
        with self._lock:
            held, self._held = self._held, {}
        for (deployment, _, _, arm), each in held.items():
            self._count(deployment, arm, each)

    def _count(self, deployment: str, arm: str, held: _Held) -> None:
        with self._book.tally(deployment, held.bundle, arm) as tally:
            tally.scores(np.concatenate(held.scores))
            tally.features(np.concatenate(held.features), now_ms())
            tally.times("queue", np.array(held.queue_us) / 1e6)
            tally.times("compute", np.array(held.compute_us) / 1e6)


@contextmanager
def counted(kafka: KafkaSettings) -> Iterator[ServingObserver]:
    """An observer whose counts go to `model.stats` for as long as the block lasts."""
    book = StatsBook("server", f"{socket.gethostname()}-{os.getpid()}")
    counter = ArmCounter(book)
    with StatsWriter(kafka, book, before_close=counter.drain):
        yield counter
