"""Counters, gauges and histograms: numbers under labels, without any library.

Recording does nothing until `record` was called, which whoever exports them does. It is meant for
one call a poll, batch or request, never one a reading: a histogram takes an array of values, or
counts that were binned already. Safe from any thread.

Bounded: a metric keeps `SERIES_MAX` sets of label values; beyond it the one that was written
longest ago goes, so that versions which nobody runs any more do not pile up for ever.
"""

import math
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

SERIES_MAX = 1_000

LabelValues = tuple[str, ...]
T = TypeVar("T")


@dataclass(slots=True)
class _Recording:
    on: bool = False


_recording = _Recording()


def record(on: bool = True) -> None:
    """Begin to record in this process, or stop."""
    _recording.on = on


def is_recording() -> bool:
    """Whether anything that is recorded is kept; to save the work of finding it out."""
    return _recording.on


class Metric(Generic[T]):
    """What all kinds have in common: one value of type T for each set of label values.

    Args:
        name: As Prometheus knows it; ends in the unit.
        doc: One sentence.
        labels: Names of the labels, in order.
    """

    kind: ClassVar[str]

    def __init__(self, name: str, doc: str, labels: Sequence[str] = ()) -> None:
        self.name = name
        self.doc = doc
        self.labels = tuple(labels)
        self._lock = threading.Lock()
        self._series: dict[LabelValues, T] = {}

    def series(self) -> list[tuple[LabelValues, T]]:
        """All values, with those of their labels in order."""
        with self._lock:
            return list(self._series.items())

    def clear(self, **labels: str) -> None:
        """Forget the series whose labels have these values; without any, all."""
        wanted = [(self.labels.index(name), value) for name, value in labels.items()]
        with self._lock:
            self._series = {
                key: value
                for key, value in self._series.items()
                if not all(key[at] == text for at, text in wanted)
            }

    def _key(self, labels: dict[str, str]) -> LabelValues:
        """Raises KeyError for a label that is missing, TypeError for one too many."""
        if len(labels) != len(self.labels):
            raise TypeError(f"{self.name} has the labels {self.labels}, not {tuple(labels)}")
        return tuple(str(labels[name]) for name in self.labels)

    def _put(self, key: LabelValues, value: T) -> None:
        """Called with the lock held; the newest is the last."""
        self._series[key] = value
        if len(self._series) > SERIES_MAX:
            del self._series[next(iter(self._series))]


class Counter(Metric[float]):
    """A number that only rises, and begins at 0 with the process."""

    kind = "counter"

    def add(self, amount: float = 1, /, **labels: str) -> None:
        """So many more."""
        if _recording.on and amount:
            key = self._key(labels)
            with self._lock:
                self._put(key, self._series.pop(key, 0.0) + amount)

    def hold(self, total: float, /, **labels: str) -> None:
        """Take over a total that is counted elsewhere."""
        if _recording.on:
            key = self._key(labels)
            with self._lock:
                self._series.pop(key, None)
                self._put(key, float(total))


class Gauge(Metric[float]):
    """A number that rises and falls."""

    kind = "gauge"

    def set(self, value: float, /, **labels: str) -> None:
        """What it is now."""
        if _recording.on:
            key = self._key(labels)
            with self._lock:
                self._series.pop(key, None)
                self._put(key, float(value))


@dataclass(slots=True)
class Bins:
    """Counts of a histogram.

    Attributes:
        counts: Values in each bin: up to and with each edge, and one for what is above the last.
            Shape (edges + 1,).
        total: Sum of the values.
    """

    counts: NDArray[np.int64]
    total: float = 0.0


class Histogram(Metric[Bins]):
    """How values are distributed.

    Args:
        name: As of `Metric`.
        doc: As of `Metric`.
        labels: As of `Metric`.
        edges: Upper edges of the bins, ascending, each with its edge; above the last is one more.
    """

    kind = "histogram"

    def __init__(
        self, name: str, doc: str, labels: Sequence[str] = (), *, edges: Sequence[float]
    ) -> None:
        super().__init__(name, doc, labels)
        self.edges = np.array(edges, np.float64)
        self._edge_list = [float(edge) for edge in edges]

    def observe(self, values: ArrayLike, /, *, times: int = 1, **labels: str) -> None:
        """Count values, any shape, or one float; each as if it had come `times` times.

        Those that are not finite are left out.
        """
        if not _recording.on:
            return
        if isinstance(values, float):
            self._observe_one(values, times, self._key(labels))
            return
        array = np.asarray(values, np.float64).ravel()
        finite = array[np.isfinite(array)]
        at = np.searchsorted(self.edges, finite, side="left")
        counts = np.bincount(at, minlength=len(self.edges) + 1) * times
        self.add_binned(counts.astype(np.int64), float(finite.sum()) * times, **labels)

    def add_binned(self, counts: NDArray[np.int64], total: float, /, **labels: str) -> None:
        """Add counts in the bins of this histogram, shape (edges + 1,), and the values' sum."""
        if not _recording.on or not counts.any():
            return
        key = self._key(labels)
        with self._lock:
            bins = self._bins(key)
            bins.counts += counts
            bins.total += total

    def series(self) -> list[tuple[LabelValues, Bins]]:
        """As of `Metric`; copies, which stay as they are."""
        with self._lock:
            return [
                (key, Bins(bins.counts.copy(), bins.total)) for key, bins in self._series.items()
            ]

    def _observe_one(self, value: float, times: int, key: LabelValues) -> None:
        """One value without the cost of arrays, which is ten times that of counting it."""
        if not math.isfinite(value):
            return
        at = bisect_left(self._edge_list, value)
        with self._lock:
            bins = self._bins(key)
            bins.counts[at] += times
            bins.total += value * times

    def _bins(self, key: LabelValues) -> Bins:
        """Called with the lock held."""
        bins = self._series.pop(key, None)
        if bins is None:
            bins = Bins(np.zeros(len(self.edges) + 1, np.int64))
        self._put(key, bins)
        return bins


Fill = Callable[[], object]
_sources: list[Fill] = []


@contextmanager
def at_scrape(fill: Fill) -> Iterator[None]:
    """Have something set its gauges, and hold its counters, whenever metrics are asked for.

    For what keeps its own account anyway; costs nothing in between. `fill` runs on the thread of
    the exporter.
    """
    _sources.append(fill)
    try:
        yield
    finally:
        _sources.remove(fill)


def fill_all() -> None:
    """Let every source of `at_scrape` tell its numbers."""
    for fill in tuple(_sources):
        fill()
