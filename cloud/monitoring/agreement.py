"""Whether gateways and the cloud give the same readings the same scores. Pure.

A gateway writes a sample of its scores to `vehicle.scores.edge`. Each waits here for the cloud's
score of the same batch; the two are compared where the same model made them and the cloud did not
take the batch for late: one that is scored out of order is scored without memory. What differs by
more than the tolerance is told as an event, at most once in EVENT_EVERY_MS for each version and
gateway; all of it is counted.

Bounded: a score waits for `agreement_window_s`, then it counts as not found; of more than
ENTRIES_MAX the oldest goes first.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from cloud.monitoring.settings import MonitorSettings
from schemas.records import Record
from scoring.events import EventKind, ModelEvent, Severity

ENTRIES_MAX = 100_000
GATEWAYS_MAX = 10_000
EVENT_EVERY_MS = 600_000

FLOOR_SHARE = 0.01
"""Scores are compared relative to the greater of the two, and at least to so much of the threshold:
where both are next to nothing, rounding is most of what there is."""

BY = "monitor"


class Identity(NamedTuple):
    """Of a batch."""

    vehicle_id: str
    boot_id: int
    seq: int


class Outcome(StrEnum):
    """What became of a gateway's score."""

    AGREED = "agreed"
    DISAGREED = "disagreed"
    NOT_FOUND = "not-found"
    """The cloud's score did not come in time."""
    LATE = "late"
    """The cloud took the batch for late."""
    OTHER_MODEL = "other-model"
    """The cloud scored it with another version, as in an experiment or about a promotion."""


class Source(NamedTuple):
    """Who made a gateway's score."""

    model: str
    version: str
    gateway_id: str


@dataclass(frozen=True, slots=True)
class EdgeScore:
    """A gateway's score that waits for the cloud's.

    Attributes:
        source: Who made it.
        sha256: Of the model.
        threshold: Of the model.
        scores: One a reading.
        since_ms: When it began to wait.
    """

    source: Source
    sha256: bytes
    threshold: float
    scores: tuple[float, ...]
    since_ms: int


@dataclass(frozen=True, slots=True)
class Difference:
    """The reading at which two scores of a batch differ most."""

    reading: int
    edge: float
    cloud: float


class Agreement:
    """Joins the two sides and counts.

    Args:
        settings: Of the monitor.
    """

    def __init__(self, settings: MonitorSettings) -> None:
        self._tolerance = settings.agreement_tolerance
        self._window_ms = round(settings.agreement_window_s * 1000)
        self._waiting: dict[Identity, list[EdgeScore]] = {}
        self._entries = 0
        self._vehicles: Counter[str] = Counter()
        self._told_ms: dict[Source, int] = {}
        self.counts: dict[Source, Counter[Outcome]] = {}

    def take_edge(self, record: Record, *, gateway_id: str, now_ms: int) -> None:
        """A record of `vehicle.scores.edge`."""
        identity = Identity(record["vehicle_id"], record["boot_id"], record["seq"])
        source = Source(record["model_name"], record["model_version"], gateway_id)
        held = self._waiting.setdefault(identity, [])
        if any(each.source == source for each in held):
            return
        score = EdgeScore(
            source, record["model_sha256"], record["threshold"], tuple(record["scores"]), now_ms
        )
        held.append(score)
        self._entries += 1
        self._vehicles[identity.vehicle_id] += 1
        while self._entries > ENTRIES_MAX:
            self._give_up(next(iter(self._waiting)))

    def waits_for_vehicle(self, vehicle_id: str) -> bool:
        """Whether any batch of a vehicle is waited for; quick."""
        return vehicle_id in self._vehicles

    def waits_for(self, identity: Identity) -> bool:
        """Whether a batch is."""
        return identity in self._waiting

    def take_cloud(self, record: Record, *, now_ms: int) -> list[ModelEvent]:
        """A record of `vehicle.scores`; what there is to tell."""
        identity = Identity(record["vehicle_id"], record["boot_id"], record["seq"])
        events = []
        for score in self._pop(identity):
            outcome, difference = self._compared(score, record)
            counts = self._count(score.source, outcome)
            if difference is not None and self._may_tell(score.source, now_ms):
                events.append(_event(identity, score.source, difference, counts, now_ms))
        return events

    def expire(self, now_ms: int) -> None:
        """Give up what has waited for too long."""
        due_ms = now_ms - self._window_ms
        while self._waiting:
            identity, held = next(iter(self._waiting.items()))
            if held[0].since_ms > due_ms:
                return
            self._give_up(identity)

    def told_before(self, records: Iterable[Record]) -> None:
        """Records of `model.events`: what earlier monitors told is not told again at once."""
        for record in records:
            if record["kind"] == EventKind.EDGE_DISAGREEMENT:
                gateway_id = _gateway_of(record["detail"])
                source = Source(record["model_name"], record["model_version"] or "", gateway_id)
                self._tell_at(source, max(record["time"], self._told_ms.get(source, 0)))

    def totals(self) -> Mapping[Outcome, int]:
        """Counts of all gateways."""
        return sum(self.counts.values(), Counter[Outcome]())

    def _compared(self, score: EdgeScore, record: Record) -> tuple[Outcome, Difference | None]:
        if record["model_sha256"] != score.sha256:
            return Outcome.OTHER_MODEL, None
        if record["late"]:
            return Outcome.LATE, None
        difference = worst_difference(
            score.scores, record["scores"], tolerance=self._tolerance, threshold=score.threshold
        )
        return (Outcome.AGREED if difference is None else Outcome.DISAGREED), difference

    def _may_tell(self, source: Source, now_ms: int) -> bool:
        told_ms = self._told_ms.get(source)
        if told_ms is not None and now_ms - told_ms < EVENT_EVERY_MS:
            return False
        self._tell_at(source, now_ms)
        return True

    def _tell_at(self, source: Source, time_ms: int) -> None:
        self._told_ms.pop(source, None)
        self._told_ms[source] = time_ms
        if len(self._told_ms) > GATEWAYS_MAX:
            del self._told_ms[next(iter(self._told_ms))]

    def _give_up(self, identity: Identity) -> None:
        for score in self._pop(identity):
            self._count(score.source, Outcome.NOT_FOUND)

    def _pop(self, identity: Identity) -> Sequence[EdgeScore]:
        held = self._waiting.pop(identity, ())
        self._entries -= len(held)
        if held:
            self._vehicles[identity.vehicle_id] -= len(held)
            if not self._vehicles[identity.vehicle_id]:
                del self._vehicles[identity.vehicle_id]
        return held

    def _count(self, source: Source, outcome: Outcome) -> Counter[Outcome]:
        counts = self.counts.setdefault(source, Counter())
        counts[outcome] += 1
        if len(self.counts) > GATEWAYS_MAX:
            del self.counts[next(iter(self.counts))]
        return counts


def worst_difference(
    edge: Sequence[float], cloud: Sequence[float], *, tolerance: float, threshold: float
) -> Difference | None:
    """Where two scores of a batch differ most; None where all are within the tolerance.

    Args:
        edge: A gateway's, one a reading.
        cloud: The cloud's.
        tolerance: Relative to the greater one, and at least to FLOOR_SHARE of the threshold.
        threshold: Of the model.

    Example:
        >>> worst_difference([1.0, 2.0], [1.0, 2.001], tolerance=1e-3, threshold=4.0) is None
        True
        >>> worst_difference([1.0, 2.0], [1.0, 3.0], tolerance=1e-3, threshold=4.0)
        Difference(reading=1, edge=2.0, cloud=3.0)
    """
    if len(edge) != len(cloud):
        return Difference(min(len(edge), len(cloud)), math.nan, math.nan)
    worst, found = tolerance, None
    for reading, (a, b) in enumerate(zip(edge, cloud, strict=True)):
        difference = _relative(a, b, floor=FLOOR_SHARE * threshold)
        if difference > worst:
            worst, found = difference, Difference(reading, a, b)
    return found


def _relative(a: float, b: float, *, floor: float) -> float:
    if math.isnan(a) or math.isnan(b):
        return 0.0 if math.isnan(a) and math.isnan(b) else math.inf
    return abs(a - b) / max(abs(a), abs(b), floor, 1e-30)


def _event(
    identity: Identity,
    source: Source,
    difference: Difference,
    counts: Mapping[Outcome, int],
    now_ms: int,
) -> ModelEvent:
    disagreed = counts[Outcome.DISAGREED]
    compared = disagreed + counts[Outcome.AGREED]
    return ModelEvent(
        kind=EventKind.EDGE_DISAGREEMENT,
        model_name=source.model,
        model_version=source.version,
        severity=Severity.WARNING,
        detail=(
            f"{_GATEWAY}{source.gateway_id} scored {difference.edge:.6g} where the cloud scored "
            f"{difference.cloud:.6g}: vehicle {identity.vehicle_id}, boot {identity.boot_id}, "
            f"batch {identity.seq}, reading {difference.reading}; {disagreed} of {compared} "
            "compared differ"
        ),
        values={
            "edge_score": difference.edge,
            "cloud_score": difference.cloud,
            "boot_id": identity.boot_id,
            "seq": identity.seq,
            "reading": difference.reading,
            "compared": compared,
            "disagreed": disagreed,
        },
        by=BY,
        time_ms=now_ms,
    )


_GATEWAY = "gateway "


def _gateway_of(detail: str) -> str:
    """The gateway in an event's sentence."""
    return detail.removeprefix(_GATEWAY).split(" scored ", 1)[0]
