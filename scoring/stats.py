"""What was seen of each arm of a model in a window of time: counts that add up. Pure.

Hot path: `Tally` costs a few array operations a poll; features are looked at in a sample.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ContractError, Reason
from scoring.bundle import Bundle
from scoring.reference import FeatureCounter
from scoring.sketch import SCORE_BINS, TIME_BINS, Counts, LogBins, added
from scoring.traffic import epoch_ms

SAMPLE_ROWS_PER_S = 500
"""Rows of an arm whose features are counted, on the mean."""

SAMPLE_ROWS_HELD = 4_096
"""Sampled rows held until they are counted; also the most that a pause saves up."""

_COUNT_ROWS = 512
_SEED = 20_261_124


@dataclass(frozen=True, slots=True, order=True)
class ArmKey:
    """What a window of counts is about.

    Attributes:
        component: 'scorer', 'server' or 'gateway'.
        component_id: Which one of them.
        deployment: 'embedded', 'rpc', 'kafka' or 'edge'.
        model: Name.
        version: Of the model.
        arm: Of the experiment; 'champion' without one.
    """

    component: str
    component_id: str
    deployment: str
    model: str
    version: str
    arm: str


@dataclass(frozen=True, slots=True)
class FeatureCounts:
    """Rows of the sample by the bins of a feature's reference, and those without it."""

    counts: Counts
    absent: int


def _empty(bins: LogBins) -> Counts:
    return np.zeros(len(bins), np.int64)


@dataclass(frozen=True, slots=True)
class ArmCounts:
    """Counts of a window. The attributes are those of the record `ModelStats`.

    `vehicles` adds up over components, each of which has vehicles of its own, and not over time.
    """

    readings: int = 0
    unscored: int = 0
    exceeding: int = 0
    alerts_opened: int = 0
    alerts_closed: int = 0
    alerts_held: int = 0
    vehicles: int = 0
    errors: int = 0
    sampled: int = 0
    scores: Counts = field(default_factory=lambda: _empty(SCORE_BINS))
    ages: Counts = field(default_factory=lambda: _empty(TIME_BINS))
    queue: Counts = field(default_factory=lambda: _empty(TIME_BINS))
    compute: Counts = field(default_factory=lambda: _empty(TIME_BINS))
    features: Mapping[str, FeatureCounts] = field(default_factory=dict)

    def plus(self, more: "ArmCounts") -> "ArmCounts":
        """The sum of both; of vehicles, too.

        Raises:
            ValueError: They were counted with different bins.
        """
        total: dict[str, Any] = {n: getattr(self, n) + getattr(more, n) for n in _NUMBERS}
        total |= {n: added(getattr(self, n), getattr(more, n)) for n in _HISTOGRAMS}
        return ArmCounts(**total, features=_added(self.features, more.features))


_NUMBERS = (
    "readings",
    "unscored",
    "exceeding",
    "alerts_opened",
    "alerts_closed",
    "alerts_held",
    "vehicles",
    "errors",
    "sampled",
)
_HISTOGRAMS = {"scores": SCORE_BINS, "ages": TIME_BINS, "queue": TIME_BINS, "compute": TIME_BINS}
_FIELDS = {"scores": "score", "ages": "age", "queue": "queue", "compute": "compute"}


def _added(
    these: Mapping[str, FeatureCounts], more: Mapping[str, FeatureCounts]
) -> dict[str, FeatureCounts]:
    total = dict(these)
    for name, counted in more.items():
        held = total.get(name)
        if held is not None:
            counted = FeatureCounts(
                added(held.counts, counted.counts), held.absent + counted.absent
            )
        total[name] = counted
    return total


@dataclass(frozen=True, slots=True)
class ArmWindow:
    """What one component saw of one arm from `start_ms` to `end_ms`."""

    key: ArmKey
    start_ms: int
    end_ms: int
    counts: ArmCounts

    def to_record(self) -> dict[str, Any]:
        """The `ModelStats` record."""
        key, counts = self.key, self.counts
        return {
            "component": key.component,
            "component_id": key.component_id,
            "deployment": key.deployment,
            "model_name": key.model,
            "model_version": key.version,
            "arm": key.arm,
            "window_start": self.start_ms,
            "window_end": self.end_ms,
            **{name: getattr(counts, name) for name in _NUMBERS},
            **{f"{_FIELDS[name]}_counts": getattr(counts, name).tolist() for name in _HISTOGRAMS},
            "features": [
                {"name": name, "absent": each.absent, "counts": each.counts.tolist()}
                for name, each in counts.features.items()
            ],
        }

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> "ArmWindow":
        """Read a `ModelStats` record.

        Raises:
            ContractError: MALFORMED: a count below zero, or bins that are not ours.
        """
        key = ArmKey(
            record["component"],
            record["component_id"],
            record["deployment"],
            record["model_name"],
            record["model_version"],
            record["arm"],
        )
        counted: dict[str, Any] = {name: _count(record[name], name) for name in _NUMBERS}
        counted |= {
            name: _histogram(record[f"{_FIELDS[name]}_counts"], bins)
            for name, bins in _HISTOGRAMS.items()
        }
        features = {each["name"]: _feature_counts(each) for each in record["features"]}
        counts = ArmCounts(**counted, features=features)
        start_ms, end_ms = epoch_ms(record["window_start"]), epoch_ms(record["window_end"])
        if end_ms < start_ms:
            raise ContractError(Reason.MALFORMED, f"a window from {start_ms} to {end_ms}")
        return ArmWindow(key, start_ms, end_ms, counts)


class Tally:
    """Counts one arm until the window is closed. Not for use by two threads at once.

    Args:
        bundle: The arm's model.

    Attributes:
        used: Whether anything was counted since the last `close`.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._threshold = np.float32(bundle.manifest.threshold)
        self._names = bundle.manifest.feature_names
        reference = bundle.manifest.reference
        self._counter = None if reference is None else FeatureCounter(reference)
        # Of a fixed seed: what is sampled depends on what came in alone.
        self._rng = np.random.default_rng(_SEED)
        self._may_sample = float(_COUNT_ROWS)
        self._sampled_ms: int | None = None
        self._sample: list[NDArray[np.float32]] = []
        self._held = 0
        self._seen = np.zeros(0, np.bool_)
        self._numbers = dict.fromkeys(_NUMBERS, 0)
        self._histograms = {name: _empty(bins) for name, bins in _HISTOGRAMS.items()}
        self.used = False

    def scores(self, scores: NDArray[np.float32]) -> None:
        """Count the scores of some rows. Shape (R,), NaN where there is none."""
        ratio = scores / self._threshold
        self.add(
            readings=len(scores),
            unscored=int(np.count_nonzero(np.isnan(scores))),
            exceeding=int(np.count_nonzero(ratio > 1)),
        )
        self._histograms["scores"] += SCORE_BINS.count(ratio)

    def features(self, features: NDArray[np.float32], now_ms: int) -> None:
        """Sample some rows' features.

        Args:
            features: Shape (R, F); rows are copied.
            now_ms: The sample grows by `SAMPLE_ROWS_PER_S`; what is over is passed by.
        """
        if self._counter is None or not len(features):
            return
        rows = self._rows_to_take(len(features), now_ms)
        if rows:
            chosen = self._rng.integers(0, len(features), rows)
            self._sample.append(features[chosen])
            self._held += rows
            if self._held >= _COUNT_ROWS:
                self._count_sample()

    def vehicles(self, numbers: NDArray[np.int64]) -> None:
        """Note vehicles that were seen, by numbers that tell them apart; each counts once.

        A set of their ids would be the dearest of all that is counted here.
        """
        if len(numbers):
            missing = int(numbers.max()) + 1 - len(self._seen)
            if missing > 0:
                self._seen = np.append(self._seen, np.zeros(missing, np.bool_))
            self._seen[numbers] = True

    def times(
        self,
        name: str,
        seconds: NDArray[Any] | Sequence[float],
        weights: NDArray[Any] | None = None,
    ) -> None:
        """Count durations: `name` is 'ages', 'queue' or 'compute'."""
        self._histograms[name] += TIME_BINS.count(np.asarray(seconds, np.float64), weights)

    def add(self, **numbers: int) -> None:
        """Add to numbers of `ArmCounts`."""
        self.used = True
        for name, number in numbers.items():
            self._numbers[name] += number

    def close(self) -> ArmCounts:
        """What was counted; the next window begins."""
        self._count_sample()
        counter = self._counter
        features = {}
        if counter is not None and counter.rows:
            self._numbers["sampled"] = counter.rows
            features = {
                name: FeatureCounts(counts, int(absent))
                for name, counts, absent in zip(
                    self._names, counter.counts, counter.absent, strict=True
                )
            }
            counter.clear()
        self._numbers["vehicles"] = int(np.count_nonzero(self._seen))
        counted: dict[str, Any] = {**self._numbers, **self._histograms}
        counts = ArmCounts(**counted, features=features)
        self._seen[:] = False
        self._numbers = dict.fromkeys(_NUMBERS, 0)
        self._histograms = {name: _empty(bins) for name, bins in _HISTOGRAMS.items()}
        self.used = False
        return counts

    def _rows_to_take(self, available: int, now_ms: int) -> int:
        since_ms = self._sampled_ms
        self._sampled_ms = now_ms
        if since_ms is not None:
            self._may_sample += max(now_ms - since_ms, 0) * SAMPLE_ROWS_PER_S / 1000
            self._may_sample = min(self._may_sample, float(SAMPLE_ROWS_HELD))
        rows = min(available, int(self._may_sample))
        self._may_sample -= rows
        return rows

    def _count_sample(self) -> None:
        if self._sample and self._counter is not None:
            self._counter.add(np.concatenate(self._sample))
        self._sample, self._held = [], 0


def _feature_counts(record: Mapping[str, Any]) -> FeatureCounts:
    return FeatureCounts(_counts(record["counts"]), _count(record["absent"], "absent"))


def _count(value: int, what: str) -> int:
    if value < 0:
        raise ContractError(Reason.MALFORMED, f"{what} is {value}")
    return value


def _histogram(values: Sequence[int], bins: LogBins) -> Counts:
    if not values:
        return _empty(bins)
    if len(values) != len(bins):
        raise ContractError(Reason.MALFORMED, f"{len(values)} bins, not {len(bins)}")
    return _counts(values)


def _counts(values: Sequence[int]) -> Counts:
    counts = np.array(values, np.int64)
    if (counts < 0).any():
        raise ContractError(Reason.MALFORMED, "a count below zero")
    return counts
