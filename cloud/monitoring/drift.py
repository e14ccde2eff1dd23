"""Does what comes in, and what comes out, still look like the training data? Pure.

Windows of counts are compared with the reference in the manifest; a signal drifts when its index
or its distance is over the limit for some windows in a row, and no longer when both are clear of
it for some. What is over a limit only because there is little data is not over it: the limits
grow as the number of vehicles falls (`scoring.sketch`).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from cloud.monitoring.settings import MonitorSettings
from scoring.bundle import Manifest
from scoring.events import EventKind, ModelEvent, Severity
from scoring.reference import FeatureReference, Reference
from scoring.sketch import Counts, Sizes, ks_distance, ks_limit, psi, psi_limit
from scoring.stats import ArmCounts, ArmWindow, FeatureCounts

SCORE = "score"
"""What the score is called among the signals."""

CLEAR_SHARE = 0.8
"""Below this share of its limits a signal is clear of drift."""

ROWS_A_VEHICLE = 30
"""A server knows no vehicles: so many rows count as one."""

LATE_S = 5.0
"""How long after its end a window is waited for."""

WINDOWS_MAX = 64
"""Windows under way at once; beyond it the oldest is judged as it is."""

VersionKey = tuple[str, str]
"""Model and version."""


@dataclass(frozen=True, slots=True)
class Distance:
    """How far a signal is from its reference.

    Attributes:
        psi: Population stability index; absent values of a signal are a bin of their own.
        psi_limit: What it must exceed.
        ks: Kolmogorov-Smirnov distance of the values that are there.
        ks_limit: What it must exceed.
    """

    psi: float
    psi_limit: float
    ks: float
    ks_limit: float

    @property
    def is_over(self) -> bool:
        """Whether either is over its limit."""
        return self.psi > self.psi_limit or self.ks > self.ks_limit

    @property
    def is_clear(self) -> bool:
        """Whether both are well below."""
        return self.psi <= CLEAR_SHARE * self.psi_limit and self.ks <= CLEAR_SHARE * self.ks_limit


def distances(
    manifest: Manifest, counts: ArmCounts, settings: MonitorSettings
) -> dict[str, Distance]:
    """Of each feature, and of `SCORE`, that both the window and the reference have."""
    reference = manifest.reference
    if reference is None:
        return {}
    found = {}
    for spec, feature in zip(manifest.features, reference.features, strict=True):
        counted = counts.features.get(spec.name)
        if counted is not None and len(counted.counts) == len(feature.counts):
            # A feature with memory is absent until it is warm: that tells of the trip's start.
            tail = 0 if spec.has_memory else 1
            pair = _with_absent(feature, counted, tail)
            sizes = _sizes(reference, counts, counts.sampled)
            found[spec.name] = _distance(*pair, sizes=sizes, settings=settings, tail=tail)
    scores = np.array(reference.scores, np.int64)
    sizes = _sizes(reference, counts, counts.readings)
    found[SCORE] = _distance(scores, counts.scores, sizes=sizes, settings=settings)
    return {name: distance for name, distance in found.items() if distance is not None}


def _with_absent(
    feature: FeatureReference, counted: FeatureCounts, tail: int
) -> tuple[Counts, Counts]:
    """Both histograms, with a bin of the absent at the end where `tail` is 1."""
    reference = np.array(feature.counts, np.int64)
    if not tail:
        return reference, counted.counts
    return np.append(reference, feature.absent), np.append(counted.counts, counted.absent)


def _sizes(reference: Reference, counts: ArmCounts, rows: int) -> Sizes:
    vehicles = counts.vehicles or rows / ROWS_A_VEHICLE
    return Sizes(reference.vehicles, max(vehicles, 1e-9))


def _distance(
    reference: Counts,
    current: Counts,
    *,
    sizes: Sizes,
    settings: MonitorSettings,
    tail: int = 0,
) -> Distance | None:
    """None where one side has nothing. The last `tail` bins have no place on a line."""
    if not reference.sum() or not current.sum():
        return None
    alpha = settings.drift_alpha
    ordered = slice(0, len(reference) - tail)
    both = bool(reference[ordered].sum() and current[ordered].sum())
    return Distance(
        psi=psi(reference, current, sizes),
        psi_limit=max(settings.psi_min, psi_limit(reference, current, sizes, alpha=alpha)),
        ks=ks_distance(reference[ordered], current[ordered]) if both else 0.0,
        ks_limit=max(settings.ks_min, ks_limit(sizes, alpha=alpha)),
    )


@dataclass(slots=True)
class Window:
    """What was seen of a version in one window: sums, and vehicles by who saw them."""

    counts: ArmCounts = field(default_factory=ArmCounts)
    vehicles: dict[tuple[str, ...], int] = field(default_factory=dict)

    def add(self, window: ArmWindow) -> None:
        """Add what one component counted; vehicles of one are the same from record to record."""
        self.counts = self.counts.plus(window.counts)
        key = window.key
        seen = (key.component_id, key.arm)
        self.vehicles[seen] = max(self.vehicles.get(seen, 0), window.counts.vehicles)

    def total(self) -> ArmCounts:
        """The sums, with the number of vehicles that were seen at all."""
        return replace(self.counts, vehicles=sum(self.vehicles.values()))


@dataclass(slots=True)
class _Streak:
    """Windows in a row that were over, or clear, and whether drift was told."""

    over: int = 0
    clear: int = 0
    is_open: bool = False


class DriftWatch:
    """Follows the drift of every version. Pure: it is given statistics and the time.

    Bounded: versions that are not seen for `WINDOWS_MAX` windows are forgotten.

    Args:
        settings: Windows and limits.

    Attributes:
        latest: Distances of each version in its last window, for metrics and reports.
    """

    def __init__(self, settings: MonitorSettings) -> None:
        self._settings = settings
        self._length_ms = round(settings.drift_window_s * 1000)
        self._windows: dict[tuple[int, VersionKey, str], Window] = {}
        self._streaks: dict[VersionKey, dict[str, _Streak]] = {}
        self._seen: dict[VersionKey, int] = {}
        self.latest: dict[VersionKey, dict[str, Distance]] = {}

    def add(self, window: ArmWindow) -> None:
        """Take in a record of `model.stats`."""
        key = window.key
        number = window.end_ms // self._length_ms
        place = (number, (key.model, key.version), key.component)
        self._windows.setdefault(place, Window()).add(window)

    def opened_before(self, event: ModelEvent) -> None:
        """Take in an event of the log: what was told is not told again."""
        over = _OVER.get(event.kind)
        if over is None or event.model_version is None:
            return
        streaks = self._streaks.setdefault((event.model_name, event.model_version), {})
        for name in named_in(event):
            streaks.setdefault(name, _Streak()).is_open = not over

    def judge(self, manifests: Mapping[VersionKey, Manifest], now_ms: int) -> list[ModelEvent]:
        """Judge the windows that are over by now.

        Args:
            manifests: Of the versions that there are; others are passed over.
            now_ms: Since the epoch.
        """
        events: list[ModelEvent] = []
        for number, version in self._due(now_ms):
            counts = self._take(number, version)
            manifest = manifests.get(version)
            if manifest is not None:
                found = distances(manifest, counts, self._settings)
                self.latest[version] = found
                self._seen[version] = number
                events += self._turns(version, found, now_ms)
        self._forget(now_ms // self._length_ms)
        return events

    def open_signals(self, version: VersionKey) -> tuple[str, ...]:
        """What drifts now."""
        streaks = self._streaks.get(version, {})
        return tuple(name for name, streak in streaks.items() if streak.is_open)

    def _due(self, now_ms: int) -> list[tuple[int, VersionKey]]:
        last = (now_ms - round(LATE_S * 1000)) // self._length_ms
        numbers = sorted({number for number, _, _ in self._windows})
        too_many = set(numbers[: max(len(numbers) - WINDOWS_MAX, 0)])
        due = {(n, v) for n, v, _ in self._windows if n < last or n in too_many}
        return sorted(due)

    def _take(self, number: int, version: VersionKey) -> ArmCounts:
        """What the scorers saw; a server sees the same rows again and counts where it is alone."""
        places = [place for place in self._windows if place[:2] == (number, version)]
        by_component = {place[2]: self._windows.pop(place).total() for place in places}
        return by_component.get("scorer") or next(iter(by_component.values()))

    def _turns(
        self, version: VersionKey, found: Mapping[str, Distance], now_ms: int
    ) -> Iterator[ModelEvent]:
        streaks = self._streaks.setdefault(version, {})
        opened, closed = [], []
        for name, distance in found.items():
            streak = streaks.setdefault(name, _Streak())
            streak.over = streak.over + 1 if distance.is_over else 0
            streak.clear = streak.clear + 1 if distance.is_clear else 0
            if not streak.is_open and streak.over >= self._settings.drift_open_windows:
                streak.is_open = True
                opened.append(name)
            elif streak.is_open and streak.clear >= self._settings.drift_close_windows:
                streak.is_open = False
                closed.append(name)
        for names, over in ((opened, False), (closed, True)):
            yield from _events(version, names, found, over=over, now_ms=now_ms)

    def _forget(self, number: int) -> None:
        for version in [v for v, seen in self._seen.items() if number - seen > WINDOWS_MAX]:
            for held in (self._seen, self._streaks, self.latest):
                held.pop(version, None)


_OVER = {
    EventKind.INPUT_DRIFT: False,
    EventKind.SCORE_DRIFT: False,
    EventKind.INPUT_DRIFT_OVER: True,
    EventKind.SCORE_DRIFT_OVER: True,
}


def named_in(event: ModelEvent) -> tuple[str, ...]:
    """Signals that a drift event is about."""
    return tuple(name.removeprefix("psi:") for name in event.values if name.startswith("psi:"))


def _events(
    version: VersionKey,
    names: Iterable[str],
    found: Mapping[str, Distance],
    *,
    over: bool,
    now_ms: int,
) -> Iterator[ModelEvent]:
    signals = [name for name in names if name != SCORE]
    kinds = (
        (EventKind.INPUT_DRIFT_OVER if over else EventKind.INPUT_DRIFT, signals),
        (
            EventKind.SCORE_DRIFT_OVER if over else EventKind.SCORE_DRIFT,
            [name for name in names if name == SCORE],
        ),
    )
    for kind, concerned in kinds:
        if concerned:
            yield _event(kind, version, concerned, found, over=over, now_ms=now_ms)


def _event(
    kind: EventKind,
    version: VersionKey,
    names: list[str],
    found: Mapping[str, Distance],
    *,
    over: bool,
    now_ms: int,
) -> ModelEvent:
    ranked = sorted(names, key=lambda name: -found[name].psi)
    worst = found[ranked[0]]
    state = "like the training data again" if over else "unlike the training data"
    values: dict[str, float] = {}
    for name in ranked:
        values |= {f"psi:{name}": found[name].psi, f"ks:{name}": found[name].ks}
    return ModelEvent(
        kind=kind,
        model_name=version[0],
        model_version=version[1],
        detail=f"{', '.join(ranked)}: {state}; PSI {worst.psi:.2g} (limit {worst.psi_limit:.2g}), "
        f"KS {worst.ks:.2g} (limit {worst.ks_limit:.2g})",
        by="monitor",
        time_ms=now_ms,
        severity=Severity.INFO if over else Severity.WARNING,
        values=values,
    )
