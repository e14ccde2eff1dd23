"""Late labels joined with alerts, against a computation that knows no shortcuts."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.monitoring.joining import (
    GAP_MS,
    GRACE_MS,
    MISSED_AFTER_MS,
    PENDING_MS,
    Case,
    Joiner,
    Outcome,
    Quality,
)
from cloud.monitoring.roster import ArmRef

ARMS = (ArmRef("m", "1", "champion"), ArmRef("m", "2", "canary"))
S = 1_000
HOUR_MS = 3_600 * S
GRID_S = 2_000


def alert(
    alert_id: str, state: str, time_ms: int, *, vehicle: str = "car", arm: ArmRef = ARMS[0]
) -> dict[str, Any]:
    return {
        "alert_id": alert_id,
        "state": state,
        "origin": "CLOUD",
        "event_time": time_ms,
        "vehicle_id": vehicle,
        "model_name": arm.model,
        "model_version": arm.version,
        "arm": arm.arm,
    }


def label(
    start_ms: int, end_ms: int | None, *, vehicle: str = "car", code: str = "flat"
) -> dict[str, Any]:
    return {"vehicle_id": vehicle, "label": code, "start_time": start_ms, "end_time": end_ms}


def arm_of(vehicle: str) -> ArmRef:
    return ARMS[int(vehicle[-1]) % 2] if vehicle[-1].isdigit() else ARMS[0]


def joiner(horizon_ms: int = HOUR_MS, entries_max: int = 100_000) -> Joiner:
    return Joiner(
        horizon_ms=horizon_ms,
        entries_max=entries_max,
        responsible=lambda vehicle, _: [arm_of(vehicle)],
    )


def quality(outcomes: Sequence[Outcome]) -> dict[ArmRef, tuple[int, int, int, int]]:
    found: dict[ArmRef, Quality] = {}
    for outcome in outcomes:
        found.setdefault(outcome.arm, Quality()).add(outcome)
    return {a: (q.alarms, q.confirmed, q.faults, q.found) for a, q in found.items()}


@dataclass
class Course:
    """What truly happened to some vehicles, in seconds: alarms and faults, perhaps without end."""

    alarms: dict[str, list[tuple[int, int | None]]] = field(default_factory=dict)
    faults: dict[str, list[tuple[str, int, int | None]]] = field(default_factory=dict)

    def records(self, rng: random.Random) -> list[dict[str, Any]]:
        """Alerts and labels in an order in which they may come: late, repeated, ends apart."""
        streams = []
        for vehicle, alarms in self.alarms.items():
            stream = []
            for number, (start, end) in enumerate(alarms):
                name = f"{vehicle}/{number}"
                stream.append(alert(name, "OPEN", start * S, vehicle=vehicle, arm=arm_of(vehicle)))
                if end is not None:
                    stream.append(alert(name, "CLOSED", end * S, vehicle=vehicle))
            streams.append(stream)
        for vehicle, faults in self.faults.items():
            for code, start, end in faults:
                known = label(
                    start * S, None if end is None else end * S, vehicle=vehicle, code=code
                )
                if rng.random() < 0.5:
                    begun = known | {"end_time": None}
                    streams.append([begun, known] + [begun] * rng.randint(0, 1))
                else:
                    streams.append([known] * rng.randint(1, 2))
        return shuffled_together(streams, rng)

    def brute_force(self) -> dict[ArmRef, tuple[int, int, int, int]]:
        """On a grid of seconds."""
        counts: dict[ArmRef, list[int]] = {}
        for vehicle in self.alarms.keys() | self.faults.keys():
            runs = alarm_runs(self.alarms.get(vehicle, []))
            faults = {(c, s): e for c, s, e in self.faults.get(vehicle, [])}
            near = [False] * (2 * GRID_S)
            for (_, start), end in faults.items():
                for second in range(
                    start, min((2 * GRID_S if end is None else end + 61), 2 * GRID_S)
                ):
                    near[second] = True
            row = counts.setdefault(arm_of(vehicle), [0, 0, 0, 0])
            for first, last in runs:
                row[0] += 1
                row[1] += any(near[first : last + 1])
            for (_, start), end in faults.items():
                row[2] += 1
                until = 2 * GRID_S if end is None else end + 60
                row[3] += any(start <= first <= until for first, _ in runs)
        return {arm: tuple(row) for arm, row in counts.items() if any(row)}  # type: ignore[misc]


def alarm_runs(alarms: Sequence[tuple[int, int | None]]) -> list[tuple[int, int]]:
    """First and last second of each alarm, those less than 60 s apart filled in."""
    on = [False] * (2 * GRID_S)
    for start, end in alarms:
        for second in range(start, 2 * GRID_S if end is None else end + 1):
            on[second] = True
    runs: list[tuple[int, int]] = []
    for second in (i for i, is_on in enumerate(on) if is_on):
        if runs and second - runs[-1][1] < 60:
            runs[-1] = (runs[-1][0], second)
        else:
            runs.append((second, second))
    return runs


def shuffled_together(streams: list[list[Any]], rng: random.Random) -> list[Any]:
    """One list that keeps the order within each."""
    order = [number for number, stream in enumerate(streams) for _ in stream]
    rng.shuffle(order)
    left = [iter(stream) for stream in streams]
    return [next(left[number]) for number in order]


@st.composite
def courses(draw: st.DrawFn) -> Course:
    course = Course()
    for vehicle in (f"car-{i}" for i in range(draw(st.integers(1, 3)))):
        cuts = draw(st.lists(st.integers(0, GRID_S - 200), unique=True, max_size=8))
        times: list[int] = sorted(cuts)
        alarms: list[tuple[int, int | None]] = list(zip(times[::2], times[1::2], strict=False))
        if len(times) % 2:
            alarms.append((times[-1], None))
        course.alarms[vehicle] = alarms
        faults = draw(
            st.lists(
                st.tuples(
                    st.sampled_from(["flat", "hot", "dead"]),
                    st.integers(0, GRID_S - 200),
                    st.one_of(st.none(), st.integers(0, 150)),
                ),
                max_size=4,
            )
        )
        course.faults[vehicle] = [
            (code, start, None if lasts is None else start + lasts)
            for code, start, lasts in {(c, s): (c, s, last) for c, s, last in faults}.values()
        ]
    return course


def take(target: Joiner, records: Sequence[dict[str, Any]]) -> None:
    for each in records:
        if "alert_id" in each:
            target.take_alert(each)
        else:
            target.take_label(each)


@settings(deadline=None)
@given(course=courses(), seed=st.integers(0, 1 << 16))
def test_it_equals_a_computation_on_a_grid_of_seconds(course: Course, seed: int) -> None:
    """In whatever order records came, and however often it was asked in between."""
    rng = random.Random(seed)
    expected = course.brute_force()
    records = course.records(rng)
    target = joiner()
    settled: list[Outcome] = []
    for at in range(0, len(records), 3):
        take(target, records[at : at + 3])
        list(target.provisional(GRID_S * S))
        settled += target.settle(HOUR_MS - 1)  # the horizon of nothing is over
    assert settled == []
    long_after_ms = 10 * HOUR_MS
    assert quality(list(target.provisional(long_after_ms))) == expected
    settled = target.settle(long_after_ms)
    assert quality(settled) == expected
    assert settled == sorted(settled, key=lambda each: each.time_ms)
    assert target.settle(20 * HOUR_MS) == []
    assert target.late == 0


def ended(course: Course) -> Course:
    """The same, with all that lasts ended when the grid ends."""
    return Course(
        {v: [(a, b or GRID_S) for a, b in alarms] for v, alarms in course.alarms.items()},
        {v: [(c, a, b or GRID_S) for c, a, b in faults] for v, faults in course.faults.items()},
    )


def moved(each: dict[str, Any], by_ms: int) -> dict[str, Any]:
    times = {
        key: each[key] + by_ms
        for key in ("event_time", "start_time", "end_time")
        if each.get(key) is not None
    }
    name = {"alert_id": f"{each['alert_id']}+{by_ms}"} if "alert_id" in each else {}
    return each | times | name


@settings(deadline=None)
@given(course=courses(), seed=st.integers(0, 1 << 16))
def test_settling_as_time_goes_on_gives_the_same(course: Course, seed: int) -> None:
    """The same course driven three times; what is settled is let go of in between."""
    course = ended(course)
    rng = random.Random(seed)
    target = joiner(2 * GRID_S * S)
    settled: list[Outcome] = []
    for round_ in range(3):
        records = [moved(each, round_ * 10 * GRID_S * S) for each in course.records(rng)]
        for each in records:
            take(target, [each])
            settled += target.settle((round_ * 10 + 2) * GRID_S * S - 1)
        settled += target.settle((round_ * 10 + 8) * GRID_S * S)
        assert target._entries == 0
    once = course.brute_force()
    assert quality(settled) == {arm: tuple(3 * n for n in row) for arm, row in once.items()}
    assert target.late == 0


def test_memory_is_let_go_of_when_all_is_over() -> None:
    target = joiner(60 * S)
    for number in range(100):
        at = number * 1_000 * S
        take(target, [alert(f"a{number}", "OPEN", at), label(at, None)])
        take(target, [alert(f"a{number}", "CLOSED", at + S), label(at, at + 5 * S)])
        target.settle(at + 500 * S)
    target.settle(1 << 50)
    assert target._vehicles == {} and target._open == {} and target._entries == 0


def test_a_label_hours_late_confirms_and_one_beyond_the_horizon_does_not() -> None:
    target = joiner(2 * HOUR_MS)
    take(target, [alert("a", "OPEN", 0), alert("a", "CLOSED", 10 * S)])
    assert [o.good for o in target.provisional(PENDING_MS)] == [False]
    take(target, [label(0, 5 * S)])
    settled = target.settle(2 * HOUR_MS)
    assert [(o.case, o.good) for o in settled] == [(Case.ALARM, True), (Case.FAULT, True)]
    take(target, [alert("b", "OPEN", 5 * HOUR_MS)])
    assert [o.good for o in target.settle(7 * HOUR_MS)] == [False]
    take(target, [label(5 * HOUR_MS, None)])
    assert target.settle(99 * HOUR_MS) == []
    assert target.late == 1


def test_what_is_too_early_to_judge_is_not_judged() -> None:
    target = joiner()
    take(target, [alert("a", "OPEN", 0, vehicle="car-1", arm=ARMS[1]), label(0, None)])
    assert list(target.provisional(PENDING_MS - 1)) == []
    ripe = list(target.provisional(PENDING_MS))
    assert [(o.case, o.arm, o.good) for o in ripe] == [(Case.ALARM, ARMS[1], False)]
    assert len(list(target.provisional(MISSED_AFTER_MS))) == 2
    take(target, [label(0, 5 * S)])
    assert len(list(target.provisional(5 * S + GRACE_MS))) == 1
    assert len(list(target.provisional(5 * S + GRACE_MS + 1))) == 2


def test_alarms_on_before_a_fault_detect_nothing_and_are_yet_not_false() -> None:
    target = joiner()
    take(target, [alert("a", "OPEN", 0), label(500 * S, 600 * S)])
    assert quality(target.settle(9 * HOUR_MS)) == {ARMS[0]: (1, 1, 1, 0)}


@pytest.mark.parametrize(("gap_ms", "alarms"), [(GAP_MS - 1, 1), (GAP_MS, 2)])
def test_alarms_close_together_are_one(gap_ms: int, alarms: int) -> None:
    target = joiner()
    take(target, [alert("a", "OPEN", 0), alert("a", "CLOSED", 5 * S)])
    take(target, [alert("b", "OPEN", 5 * S + gap_ms), alert("b", "CLOSED", 900 * S)])
    assert quality(target.settle(9 * HOUR_MS))[ARMS[0]][0] == alarms


def test_gateways_alerts_and_closings_of_the_unknown_pass_by() -> None:
    target = joiner()
    take(target, [alert("a", "OPEN", 0) | {"origin": "EDGE"}, alert("b", "CLOSED", 5)])
    assert target.settle(9 * HOUR_MS) == []


def test_too_many_entries_settle_the_oldest_early_and_count_them() -> None:
    target = joiner(entries_max=1_000)
    outcomes: list[Outcome] = []
    for number in range(5_000):
        vehicle = f"car-{number % 50}"
        take(target, [alert(f"a{number}", "OPEN", number * 100 * S, vehicle=vehicle)])
        if number % 2:
            take(target, [label(number * 100 * S, None, vehicle=vehicle)])
        outcomes += target.settle(0)
        assert target._entries <= 1_001
        assert len(target._open) <= 1_001
    outcomes += target.settle(1 << 50)
    assert target.hurried > 3_000
    cases = Counter(outcome.case for outcome in outcomes)
    assert cases[Case.FAULT] + target.late >= 2_500
    assert replace(outcomes[0], good=True).good
