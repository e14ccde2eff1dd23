"""Labels that come late, joined with alerts in event time: what was found, missed, and false. Pure.

The rules are those that detection is judged by:

- Alarms of a vehicle less than 60 s apart are one.
- An alarm that overlaps no fault, nor the 60 s after one, is false.
- A fault is found by an alarm that starts while it lasts, or up to 60 s after. An alarm that was
  on before is no detection.

A label may come later than its alert, be repeated, be open-ended and get its end later. What an
alarm or a fault comes to is settled `horizon_ms` after its start, in order of these times; what is
known by then counts, what comes later changes nothing. Until then it is provisional.

Bounded: at `entries_max` the oldest are settled early and let go, and counted in `hurried`.
"""

import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from cloud.monitoring.roster import ArmRef
from schemas.records import Record

GAP_MS = 60_000
"""Alarms closer than this are one."""

GRACE_MS = 60_000
"""So long after a fault an alarm may still be about it."""

PENDING_MS = 60_000
"""An alarm without a label is not called false before this."""

MISSED_AFTER_MS = 600_000
"""A fault that lasts and was not found is called missed after this."""

_SHED_SHARE = 0.1
_FOREVER_MS = 1 << 62


class Case(StrEnum):
    """What an outcome is about."""

    ALARM = "alarm"
    """Good: a label confirms it."""
    FAULT = "fault"
    """Good: an alarm found it."""


@dataclass(frozen=True, slots=True, order=True)
class Outcome:
    """What came of an alarm or of a fault.

    Attributes:
        time_ms: When it started, by event time.
        vehicle_id: Whose.
        case: Which of both.
        arm: Whose alarm, or who should have found the fault.
        good: Confirmed, or found.
    """

    time_ms: int
    vehicle_id: str
    case: Case
    arm: ArmRef
    good: bool


@dataclass(slots=True)
class Quality:
    """Counts of outcomes.

    Attributes:
        alarms: True and false ones.
        confirmed: Of these, true ones.
        faults: Found and missed ones.
        found: Of these, found ones.
    """

    alarms: int = 0
    confirmed: int = 0
    faults: int = 0
    found: int = 0

    def add(self, outcome: Outcome) -> None:
        """Count one."""
        if outcome.case is Case.ALARM:
            self.alarms += 1
            self.confirmed += outcome.good
        else:
            self.faults += 1
            self.found += outcome.good

    @property
    def precision(self) -> float | None:
        """Share of the alarms that labels confirm; None of none."""
        return self.confirmed / self.alarms if self.alarms else None

    @property
    def recall(self) -> float | None:
        """Share of the faults that were found; None of none."""
        return self.found / self.faults if self.faults else None


@dataclass(slots=True, eq=False)
class _Alarm:
    arm: ArmRef
    start_ms: int
    end_ms: int = _FOREVER_MS
    settled: bool = False


@dataclass(slots=True, eq=False)
class _Fault:
    start_ms: int
    end_ms: int = _FOREVER_MS
    settled: bool = False


@dataclass(slots=True)
class _Vehicle:
    """What is known of a vehicle: alarms by arm, faults by code and start."""

    alarms: dict[ArmRef, list[_Alarm]] = field(default_factory=dict)
    faults: dict[tuple[str, int], _Fault] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.faults) + sum(map(len, self.alarms.values()))


@dataclass(slots=True)
class _Group:
    """Alarms that count as one."""

    start_ms: int
    end_ms: int
    members: list[_Alarm]


Responsible = Callable[[str, int], Sequence[ArmRef]]
"""Who scored a vehicle at a time."""


class Joiner:
    """Joins alerts with labels.

    Args:
        horizon_ms: When outcomes settle.
        entries_max: Alarms and faults held.
        responsible: Who should have found a fault.

    Attributes:
        late: Alarms and faults that came after what they could change was settled.
        hurried: Those that were settled early for want of room.
    """

    def __init__(self, *, horizon_ms: int, entries_max: int, responsible: Responsible) -> None:
        self._horizon_ms = horizon_ms
        self._entries_max = entries_max
        self._responsible = responsible
        self._vehicles: dict[str, _Vehicle] = {}
        self._open: dict[str, _Alarm] = {}
        self._waiting: list[tuple[int, str, str, int, _Alarm | _Fault]] = []
        self._number = itertools.count()
        self._settled_to_ms = -_FOREVER_MS
        self._hurried: list[Outcome] = []
        self._entries = 0
        self.late = 0
        self.hurried = 0

    def take_alert(self, alert: Record) -> None:
        """A record of `vehicle.alerts`; those of gateways, and closings of the unknown, pass by."""
        if alert["origin"] != "CLOUD":
            return
        time_ms = alert["event_time"]
        if alert["state"] == "CLOSED":
            alarm = self._open.pop(alert["alert_id"], None)
            if alarm is not None:
                alarm.end_ms = max(time_ms, alarm.start_ms)
        elif time_ms <= self._settled_to_ms:
            self.late += 1
        elif alert["alert_id"] not in self._open:
            arm = ArmRef(alert["model_name"], alert["model_version"], alert["arm"])
            opened = _Alarm(arm, time_ms)
            self._open[alert["alert_id"]] = opened
            self._vehicle(alert["vehicle_id"]).alarms.setdefault(arm, []).append(opened)
            self._wait(time_ms, alert["vehicle_id"], alert["alert_id"], opened)

    def take_label(self, label: Record) -> None:
        """A record of `vehicle.labels`: a fault, or the end of one that is known."""
        vehicle_id, start_ms, end_ms = label["vehicle_id"], label["start_time"], label["end_time"]
        vehicle = self._vehicle(vehicle_id)
        identity = (label["label"], start_ms)
        fault = vehicle.faults.get(identity)
        if fault is None:
            fault = vehicle.faults[identity] = _Fault(start_ms)
            if start_ms <= self._settled_to_ms:
                # Too late to be found or missed; it may still confirm an alarm that is not settled.
                fault.settled = True
                self.late += 1
                self._make_room()
            else:
                self._wait(start_ms, vehicle_id, label["label"], fault)
        if end_ms is not None:
            fault.end_ms = max(end_ms, start_ms)

    def settle(self, now_ms: int) -> list[Outcome]:
        """Outcomes that are final by now and were not given before, in order of their times."""
        self._settled_to_ms = max(self._settled_to_ms, now_ms - self._horizon_ms)
        settled, self._hurried = self._hurried, []
        touched = set()
        while self._waiting and self._waiting[0][0] <= self._settled_to_ms:
            _, vehicle_id, _, _, entry = heapq.heappop(self._waiting)
            settled += self._judged(vehicle_id, entry)
            entry.settled = True
            touched.add(vehicle_id)
        for vehicle_id in touched:
            self._prune(vehicle_id, self._settled_to_ms)
        return settled

    def provisional(self, now_ms: int) -> Iterator[Outcome]:
        """What would be settled if nothing more came; without what it is too early to judge."""
        for time_ms, vehicle_id, _, _, entry in self._waiting:
            for outcome in self._judged(vehicle_id, entry):
                if outcome.good or self._is_ripe(entry, now_ms - time_ms, now_ms):
                    yield outcome

    def _is_ripe(self, entry: _Alarm | _Fault, age_ms: int, now_ms: int) -> bool:
        if isinstance(entry, _Alarm):
            return age_ms >= PENDING_MS
        return age_ms >= MISSED_AFTER_MS or entry.end_ms + GRACE_MS < now_ms

    def _judged(self, vehicle_id: str, entry: _Alarm | _Fault) -> Iterator[Outcome]:
        vehicle = self._vehicles[vehicle_id]
        if isinstance(entry, _Alarm):
            groups = _groups(vehicle.alarms[entry.arm])
            group = next(each for each in groups if entry in each.members)
            if entry is group.members[0]:  # Those behind are a part of it.
                good = any(
                    fault.start_ms <= group.end_ms and fault.end_ms + GRACE_MS >= group.start_ms
                    for fault in vehicle.faults.values()
                )
                yield Outcome(group.start_ms, vehicle_id, Case.ALARM, entry.arm, good)
            return
        last_ms = entry.end_ms + GRACE_MS
        for arm in self._responsible(vehicle_id, entry.start_ms):
            found = any(
                entry.start_ms <= group.start_ms <= last_ms
                for group in _groups(vehicle.alarms.get(arm, ()))
            )
            yield Outcome(entry.start_ms, vehicle_id, Case.FAULT, arm, found)

    def _vehicle(self, vehicle_id: str) -> _Vehicle:
        return self._vehicles.setdefault(vehicle_id, _Vehicle())

    def _wait(self, time_ms: int, vehicle_id: str, name: str, entry: _Alarm | _Fault) -> None:
        # By content, not by arrival: two monitors settle in the same order.
        item = (time_ms, vehicle_id, name, next(self._number), entry)
        heapq.heappush(self._waiting, item)
        self._make_room()

    def _make_room(self) -> None:
        """Count one more; where there are too many settle the oldest, and let go of what lasts."""
        self._entries += 1
        if self._entries <= self._entries_max:
            return
        oldest = heapq.nsmallest(int(len(self._waiting) * _SHED_SHARE) + 1, self._waiting)
        to_ms = max((item[0] for item in oldest), default=self._settled_to_ms)
        self.hurried += len(oldest)
        self._hurried += self.settle(to_ms + self._horizon_ms)
        for vehicle_id in list(self._vehicles):
            self._prune(vehicle_id, to_ms, lasting=True)
        self._open = {name: alarm for name, alarm in self._open.items() if not alarm.settled}

    def _prune(self, vehicle_id: str, to_ms: int, *, lasting: bool = False) -> None:
        """Let go of what can no longer touch anything; `lasting`: also of what has not ended."""
        vehicle = self._vehicles[vehicle_id]
        before = len(vehicle)
        for identity, fault in list(vehicle.faults.items()):
            if fault.settled and (fault.end_ms + GRACE_MS < to_ms or lasting):
                del vehicle.faults[identity]
        for arm, alarms in list(vehicle.alarms.items()):
            kept = [
                group
                for group in _groups(alarms)
                if not all(each.settled for each in group.members)
                or not (group.end_ms + GAP_MS < to_ms or lasting)
            ]
            vehicle.alarms[arm] = [each for group in kept for each in group.members]
            if not kept:
                del vehicle.alarms[arm]
        self._entries -= before - len(vehicle)
        if not len(vehicle):
            del self._vehicles[vehicle_id]


def _groups(alarms: Sequence[_Alarm]) -> list[_Group]:
    """Alarms of one arm and vehicle, those less than `GAP_MS` apart together, by start."""
    groups: list[_Group] = []
    for alarm in sorted(alarms, key=lambda each: (each.start_ms, each.end_ms)):
        if groups and alarm.start_ms - groups[-1].end_ms < GAP_MS:
            groups[-1].members.append(alarm)
            groups[-1].end_ms = max(groups[-1].end_ms, alarm.end_ms)
        else:
            groups.append(_Group(alarm.start_ms, alarm.end_ms, [alarm]))
    return groups
