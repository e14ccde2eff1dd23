"""What two models make of the same stretch of the log, compared. Pure.

An alert is *common* where both models opened one for the same vehicle within a tolerance. A
labelled event is *found* where an alert of its vehicle was open at some time between its start and
its end, the tolerance added; an alert is *false* where it touches no labelled event.

Bounded: of each model `ALARMS_MAX` alerts are remembered; those beyond are counted only.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from schemas.columns import TelemetryColumns
from schemas.records import Record
from scoring.alerts import Transition
from scoring.manifest import Manifest
from scoring.sketch import LogBins
from scoring.stream import Scored

ALARMS_MAX = 200_000
VEHICLES_MAX = 1_000_000
"""Vehicles whose hours are counted; those beyond are not."""

RATIO_BINS = LogBins(-16, 12, 5)
"""Of score / threshold, to 3 %."""

QUANTILES = (0.5, 0.9, 0.99, 0.999)

GAP_MS_MAX = 60_000
"""A vehicle that is silent for longer was not observed meanwhile."""

FOREVER_MS = 1 << 62


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alert that a model would have raised.

    Attributes:
        vehicle_id: Whose.
        opened_ms: Event time of the reading that opened it.
        closed_ms: Of the one that closed it; None: open at the end.
        signal: Most to blame; empty where none is.
    """

    vehicle_id: str
    opened_ms: int
    closed_ms: int | None = None
    signal: str = ""

    def touches(self, start_ms: int, end_ms: int) -> bool:
        """Whether it was open at some time of that stretch."""
        closed_ms = FOREVER_MS if self.closed_ms is None else self.closed_ms
        return self.opened_ms <= end_ms and closed_ms >= start_ms


@dataclass(frozen=True, slots=True)
class Side:
    """What one model made of the stretch.

    Attributes:
        version: Of the model.
        threshold: Of the model.
        readings: Scored or not.
        unscored: Readings without a score.
        exceeding: Scores above the threshold.
        quantiles: Of score / threshold, by name: 'p50', ...
        alarms: Alerts, in order of the log.
        left_out: Alerts beyond `ALARMS_MAX`.
    """

    version: str
    threshold: float
    readings: int
    unscored: int
    exceeding: int
    quantiles: Mapping[str, float]
    alarms: tuple[Alarm, ...]
    left_out: int = 0

    @property
    def opened(self) -> int:
        """All alerts."""
        return len(self.alarms) + self.left_out


class SideTally:
    """Counts what a model makes of a stretch, poll by poll.

    Args:
        manifest: Of the model.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._ratios = np.zeros(len(RATIO_BINS), np.int64)
        self._readings = self._exceeding = self._left_out = 0
        self._alarms: list[Alarm] = []
        self._open: dict[bytes, int] = {}

    def add(self, scored: Scored) -> None:
        """Take a poll in."""
        threshold = np.float32(self._manifest.threshold)
        self._ratios += RATIO_BINS.count(scored.scores / threshold)
        self._readings += len(scored.scores)
        with np.errstate(invalid="ignore"):
            self._exceeding += int(np.count_nonzero(scored.scores > threshold))
        for transition in scored.transitions:
            self._take(transition)

    def side(self) -> Side:
        """All of it."""
        known = int(self._ratios.sum())
        return Side(
            version=self._manifest.version,
            threshold=self._manifest.threshold,
            readings=self._readings,
            unscored=self._readings - known,
            exceeding=self._exceeding,
            quantiles={
                f"p{100 * q:g}": RATIO_BINS.quantile(self._ratios, q) for q in QUANTILES if known
            },
            alarms=tuple(self._alarms),
            left_out=self._left_out,
        )

    def _take(self, transition: Transition) -> None:
        vehicle_id = transition.vehicle_id
        if transition.state == "CLOSED":
            number = self._open.pop(vehicle_id, None)
            if number is not None:
                alarm = self._alarms[number]
                self._alarms[number] = replace(alarm, closed_ms=transition.event_time_ms)
        elif len(self._alarms) >= ALARMS_MAX:
            self._left_out += 1
        else:
            self._open[vehicle_id] = len(self._alarms)
            signal = transition.signals[0].name if transition.signals else ""
            self._alarms.append(Alarm(vehicle_id.decode(), transition.event_time_ms, None, signal))


@dataclass(slots=True)
class Hours:
    """Time for which vehicles were observed, and the event times of the stretch."""

    first_ms: int = FOREVER_MS
    last_ms: int = -FOREVER_MS
    observed_ms: int = 0
    messages: int = 0
    rejected: int = 0
    _seen_ms: dict[bytes, int] = field(default_factory=dict)

    def add(self, columns: TelemetryColumns) -> None:
        """Take a poll in."""
        self.messages += len(columns.vehicle_ids) + len(columns.rejected)
        self.rejected += len(columns.rejected)
        if not len(columns.event_time_ms):
            return
        self.first_ms = min(self.first_ms, int(columns.event_time_ms.min()))
        self.last_ms = max(self.last_ms, int(columns.event_time_ms.max()))
        last_ms = columns.event_time_ms[columns.starts + columns.counts - 1].tolist()
        for vehicle_id, now_ms in zip(columns.vehicle_ids, last_ms, strict=True):
            before_ms = self._seen_ms.get(vehicle_id)
            if before_ms is None and len(self._seen_ms) >= VEHICLES_MAX:
                continue
            passed_ms = 0 if before_ms is None else now_ms - before_ms
            self._seen_ms[vehicle_id] = now_ms - min(passed_ms, 0)
            if 0 < passed_ms <= GAP_MS_MAX:
                self.observed_ms += passed_ms

    @property
    def vehicles(self) -> int:
        """Vehicles seen."""
        return len(self._seen_ms)

    @property
    def vehicle_hours(self) -> float:
        """All vehicles together."""
        return self.observed_ms / 3_600_000


@dataclass(frozen=True, slots=True)
class Overlap:
    """Alerts of two models, matched.

    Attributes:
        common: Of the new one that the old one has too.
        only_old: Would no longer be raised.
        only_new: Would be raised in addition.
    """

    common: tuple[Alarm, ...]
    only_old: tuple[Alarm, ...]
    only_new: tuple[Alarm, ...]


def overlap(old: Sequence[Alarm], new: Sequence[Alarm], *, tolerance_ms: int) -> Overlap:
    """Match alerts of the same vehicle that open within the tolerance, each at most once.

    Example:
        >>> found = overlap([Alarm("a", 0)], [Alarm("a", 50), Alarm("b", 0)], tolerance_ms=60)
        >>> len(found.common), len(found.only_old), len(found.only_new)
        (1, 0, 1)
    """
    waiting = _by_vehicle(old)
    common, only_new = [], []
    only_old: list[Alarm] = []
    for alarm in sorted(new, key=lambda each: each.opened_ms):
        queue = waiting.get(alarm.vehicle_id, [])
        while queue and queue[0].opened_ms < alarm.opened_ms - tolerance_ms:
            only_old.append(queue.pop(0))
        if queue and queue[0].opened_ms <= alarm.opened_ms + tolerance_ms:
            queue.pop(0)
            common.append(alarm)
        else:
            only_new.append(alarm)
    only_old += [alarm for queue in waiting.values() for alarm in queue]
    return Overlap(tuple(common), tuple(only_old), tuple(only_new))


@dataclass(frozen=True, slots=True)
class Event:
    """A fault that a label tells of."""

    vehicle_id: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """A model's alerts against labels.

    Attributes:
        found: Labelled events with an alert.
        missed: Without.
        false_alerts: Alerts without a labelled event.
    """

    found: int
    missed: int
    false_alerts: int


def events_of(labels: Iterable[Record], *, first_ms: int, last_ms: int) -> list[Event]:
    """The labelled events that touch a stretch of event time; a repeated label counts once.

    Args:
        labels: Records `VehicleLabel`, times as integers of milliseconds. A later record of the
            same vehicle, fault and start replaces the earlier: a fault gets its end later.
        first_ms: Event time.
        last_ms: Event time.
    """
    newest: dict[tuple[str, str, int], Event] = {}
    for label in labels:
        end_ms = FOREVER_MS if label["end_time"] is None else label["end_time"]
        event = Event(label["vehicle_id"], label["start_time"], end_ms)
        newest[event.vehicle_id, label["label"], event.start_ms] = event
    return [
        each for each in newest.values() if each.start_ms <= last_ms and each.end_ms >= first_ms
    ]


def verdict(alarms: Iterable[Alarm], events: Sequence[Event], *, tolerance_ms: int) -> Verdict:
    """Hold alerts against labelled events."""
    raised = _by_vehicle(alarms)
    touched: set[int] = set()
    found = 0
    for event in events:
        mine = raised.get(event.vehicle_id, [])
        hits = [id(a) for a in mine if a.touches(event.start_ms, event.end_ms + tolerance_ms)]
        found += bool(hits)
        touched.update(hits)
    alerts = sum(map(len, raised.values()))
    return Verdict(found, len(events) - found, alerts - len(touched))


def _by_vehicle(alarms: Iterable[Alarm]) -> dict[str, list[Alarm]]:
    found: dict[str, list[Alarm]] = {}
    for alarm in sorted(alarms, key=lambda each: each.opened_ms):
        found.setdefault(alarm.vehicle_id, []).append(alarm)
    return found


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What would have changed.

    Attributes:
        model: Its name.
        old: Made by what it is compared with.
        new: Made by the candidate.
        hours: What was read.
        overlap: Of their alerts.
        events: Labelled events in the stretch; 0: nothing is said of found and missed ones.
        old_verdict: Against the labels.
        new_verdict: Against the labels.
    """

    model: str
    old: Side
    new: Side
    hours: Hours
    overlap: Overlap
    events: int
    old_verdict: Verdict
    new_verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        """For programs; alerts that are not common go along, those of `ALARMS_SHOWN` at most."""
        return {
            "model": self.model,
            "stretch": {
                "messages": self.hours.messages,
                "rejected": self.hours.rejected,
                "vehicles": self.hours.vehicles,
                "vehicle_hours": self.hours.vehicle_hours,
            },
            "old": self._side(self.old, self.old_verdict),
            "new": self._side(self.new, self.new_verdict),
            "alerts": {
                "common": len(self.overlap.common),
                "only_old": len(self.overlap.only_old),
                "only_new": len(self.overlap.only_new),
            },
            "only_old": [_alarm(alarm) for alarm in self.overlap.only_old[:ALARMS_SHOWN]],
            "only_new": [_alarm(alarm) for alarm in self.overlap.only_new[:ALARMS_SHOWN]],
            "labelled_events": self.events,
        }

    def rate(self, side: Side) -> float | None:
        """Alerts a vehicle-hour; None where no time was observed."""
        hours = self.hours.vehicle_hours
        return side.opened / hours if hours else None

    def _side(self, side: Side, against: Verdict) -> dict[str, Any]:
        said = {
            "version": side.version,
            "threshold": side.threshold,
            "readings": side.readings,
            "unscored": side.unscored,
            "exceeding": side.exceeding,
            "score_over_threshold": dict(side.quantiles),
            "alerts": side.opened,
            "alerts_not_compared": side.left_out,
            "alerts_per_vehicle_hour": self.rate(side),
        }
        if not self.events:
            return said
        return said | {
            "events_found": against.found,
            "events_missed": against.missed,
            "false_alerts": against.false_alerts,
        }


ALARMS_SHOWN = 100


def _alarm(alarm: Alarm) -> dict[str, Any]:
    return {
        "vehicle_id": alarm.vehicle_id,
        "opened_ms": alarm.opened_ms,
        "closed_ms": alarm.closed_ms,
        "signal": alarm.signal,
    }
