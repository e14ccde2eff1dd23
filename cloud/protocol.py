"""How detection is judged: alarms against labelled events. Pure.

Alarms of a vehicle less than `MERGE_S` apart are one. An alarm that overlaps no event, with
`GRACE_S` after each, is false. An event is detected by an alarm that opens during it or its
grace; one that is already open at the event's onset does not count. Times are milliseconds of one
clock, that of the vehicles' event time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

MERGE_S = 60.0
GRACE_S = 60.0


@dataclass(frozen=True, slots=True, order=True)
class Alarm:
    """A vehicle was in alarm from `open_ms` to `close_ms`, both included."""

    vehicle_id: str
    open_ms: int
    close_ms: int


@dataclass(frozen=True, slots=True, order=True)
class Event:
    """Something was truly the matter with a vehicle from `start_ms` to `end_ms`."""

    vehicle_id: str
    start_ms: int
    end_ms: int
    fault: str = ""


@dataclass(frozen=True, slots=True)
class EventOutcome:
    """What became of one event; `delay_ms` is None where it was missed."""

    event: Event
    delay_ms: int | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """How alarms did against events.

    Attributes:
        outcomes: One per event, in order of vehicle and start.
        alarms: Alarms after merging.
        false_alarms: Of these, those that overlap no event.
        clean_hours: Vehicle-hours outside events and their grace.
    """

    outcomes: tuple[EventOutcome, ...]
    alarms: int
    false_alarms: int
    clean_hours: float

    @property
    def detected(self) -> int:
        """Events with a delay."""
        return sum(outcome.delay_ms is not None for outcome in self.outcomes)

    @property
    def missed(self) -> int:
        """Events without one."""
        return len(self.outcomes) - self.detected

    @property
    def delays_s(self) -> tuple[float, ...]:
        """Onset to alarm of each detected event, ascending."""
        found = (o.delay_ms for o in self.outcomes if o.delay_ms is not None)
        return tuple(sorted(delay / 1000 for delay in found))

    @property
    def false_alarms_per_hour(self) -> float:
        """Per vehicle-hour of clean driving; 0 where there was none."""
        return self.false_alarms / self.clean_hours if self.clean_hours > 0 else 0.0

    @property
    def precision(self) -> float | None:
        """Share of the alarms that overlap an event; None without alarms."""
        return 1 - self.false_alarms / self.alarms if self.alarms else None


def merge(alarms: Iterable[Alarm], *, merge_s: float = MERGE_S) -> list[Alarm]:
    """Alarms of a vehicle less than `merge_s` apart become one; sorted by vehicle and time."""
    merged: list[Alarm] = []
    for alarm in sorted(alarms):
        last = merged[-1] if merged else None
        if last and _adjoins(last, alarm, merge_s):
            merged[-1] = Alarm(last.vehicle_id, last.open_ms, max(last.close_ms, alarm.close_ms))
        else:
            merged.append(alarm)
    return merged


def _adjoins(last: Alarm, alarm: Alarm, merge_s: float) -> bool:
    return last.vehicle_id == alarm.vehicle_id and alarm.open_ms - last.close_ms < merge_s * 1000


def _overlaps(alarm: Alarm, event: Event, grace_s: float) -> bool:
    return alarm.open_ms <= event.end_ms + grace_s * 1000 and alarm.close_ms >= event.start_ms


def _delay_ms(event: Event, alarms: Sequence[Alarm], grace_s: float) -> int | None:
    """Onset to the first alarm that opens in the event; None if none, or if one was on."""
    touching = [alarm for alarm in alarms if _overlaps(alarm, event, grace_s)]
    if not touching or touching[0].open_ms < event.start_ms:
        return None
    return touching[0].open_ms - event.start_ms


def _by_vehicle(items: Iterable[Alarm]) -> dict[str, list[Alarm]]:
    grouped = groupby(sorted(items), key=lambda item: item.vehicle_id)
    return {vehicle_id: list(group) for vehicle_id, group in grouped}


def judge(
    alarms: Iterable[Alarm],
    events: Iterable[Event],
    *,
    observed: dict[str, tuple[int, int]],
    merge_s: float = MERGE_S,
    grace_s: float = GRACE_S,
) -> Judgement:
    """Judge alarms against events.

    Args:
        alarms: In any order, of any origin; an alarm still open closes where the vehicle's
            observation ends.
        events: The labelled events.
        observed: First and last event time (ms) of each vehicle: the driving that false alarms
            are counted against.
        merge_s: Alarms of a vehicle less far apart are one.
        grace_s: How long after an event an alarm still belongs to it.

    Returns:
        The judgement. An event of a vehicle outside `observed` is missed, not left out.
    """
    merged = merge(alarms, merge_s=merge_s)
    by_vehicle = _by_vehicle(merged)
    ordered = sorted(events)
    outcomes = tuple(
        EventOutcome(event, _delay_ms(event, by_vehicle.get(event.vehicle_id, []), grace_s))
        for event in ordered
    )
    false = sum(not _belongs(alarm, ordered, grace_s) for alarm in merged)
    return Judgement(outcomes, len(merged), false, _clean_hours(ordered, observed, grace_s))


def _belongs(alarm: Alarm, events: Sequence[Event], grace_s: float) -> bool:
    return any(
        event.vehicle_id == alarm.vehicle_id and _overlaps(alarm, event, grace_s)
        for event in events
    )


def _clean_hours(
    events: Sequence[Event], observed: dict[str, tuple[int, int]], grace_s: float
) -> float:
    total = sum(max(last - first, 0) for first, last in observed.values())
    grace_ms = int(grace_s * 1000)
    spoiled = merge(
        (Alarm(e.vehicle_id, e.start_ms, e.end_ms + grace_ms) for e in events), merge_s=0
    )
    for span in spoiled:
        first, last = observed.get(span.vehicle_id, (0, 0))
        total -= max(min(span.close_ms, last) - max(span.open_ms, first), 0)
    return total / 3_600_000
