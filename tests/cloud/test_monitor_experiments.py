"""Guards, the sequential test and what follows from them; all given counts and the time."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from monitor_parts import NAME, NOW_MS, catalog_of, fleet_rows, record, referenced, window

from cloud.monitoring.experiments import Decision, Trial
from cloud.monitoring.guards import Exposure, poisson_at_least, tripped
from cloud.monitoring.joining import Case, Outcome
from cloud.monitoring.report import reported
from cloud.monitoring.roster import ArmRef, Roster
from cloud.monitoring.settings import MonitorSettings
from cloud.monitoring.state import MonitorState
from scoring.bundle import Bundle
from scoring.catalog import Catalog
from scoring.events import EventKind, ModelEvent, Severity
from scoring.sketch import TIME_BINS
from scoring.traffic import CHAMPION, Arm, Experiment, Guards, Mode, Splitter, Traffic

SETTINGS = MonitorSettings(label_horizon_s=600.0)
OLD, NEW = referenced("old"), referenced("new")
S = 1_000


def experiment(
    mode: Mode = Mode.CANARY, *, weight: float = 0.2, started_ms: int = NOW_MS, **changes: Any
) -> Experiment:
    arms = [Arm("canary", "new", weight)]
    if mode is not Mode.SHADOW:
        arms.insert(0, Arm(CHAMPION, "old", 1 - weight))
    return Experiment(
        id="try", mode=mode, salt="s", started_time_ms=started_ms, arms=tuple(arms), **changes
    )


def catalog(running: Experiment | None) -> Catalog:
    traffic = Traffic(
        NAME, generation=1, aliases={CHAMPION: "old"}, experiment=running, changed_time_ms=NOW_MS
    )
    return catalog_of(OLD, NEW).with_traffic(traffic)


def state_of(running: Experiment | None) -> MonitorState:
    state = MonitorState(SETTINGS, since_ms=NOW_MS)
    state.take_catalog(catalog(running))
    return state


def counted(
    state: MonitorState,
    bundle: Bundle,
    arm: str,
    *,
    seconds: int = 20,
    vehicles: int = 50,
    **numbers: Any,
) -> None:
    """So many seconds of an arm, in windows of two; numbers are of each window."""
    rows = fleet_rows(np.random.default_rng(1), vehicles, 2)
    for end_s in range(2, seconds + 2, 2):
        made = window(
            bundle, rows, end_ms=NOW_MS + end_s * S, vehicles=vehicles, arm=arm, **numbers
        )
        state.take_stats([record(made)])


def trialled(decisions: list[Decision]) -> list[Decision]:
    """Without drift."""
    return [each for each in decisions if each.events[0].experiment is not None]


def kinds(decision: Decision) -> list[EventKind]:
    return [event.kind for event in decision.events]


def test_a_canary_that_storms_is_rolled_back_once() -> None:
    state = state_of(experiment())
    counted(state, OLD, CHAMPION, vehicles=200)
    counted(state, NEW, "canary", alerts_opened=3, alerts_held=2)
    [decision] = trialled(state.decide(NOW_MS + 21 * S))
    assert kinds(decision) == [EventKind.GUARD_TRIPPED, EventKind.ROLLED_BACK]
    assert {event.severity for event in decision.events} == {Severity.CRITICAL}
    assert decision.events[0].values["alert_ratio_max"] > 3
    assert trialled(state.decide(NOW_MS + 22 * S)) == []
    before = catalog(experiment()).traffic(NAME)
    assert decision.change is not None
    after = decision.change(catalog(experiment()), before)
    assert after.experiment is None and after.champion == "old"
    assert [e.kind for e in decision.told(before, after)][-1] is EventKind.EXPERIMENT_STOPPED


def test_a_change_that_somebody_else_made_changes_nothing() -> None:
    state = state_of(experiment())
    counted(state, OLD, CHAMPION)
    counted(state, NEW, "canary", alerts_opened=30)
    [decision] = trialled(state.decide(NOW_MS + 21 * S))
    assert decision.change is not None
    others = (
        None,
        replace(experiment(), id="another"),
        experiment(started_ms=NOW_MS + 5),
        experiment(weight=0.0),
    )
    for other in others:
        traffic = catalog(other).traffic(NAME)
        assert decision.change(catalog(other), traffic) == traffic


def test_of_several_arms_only_the_bad_one_goes() -> None:
    arms = (Arm(CHAMPION, "old", 0.5), Arm("a", "new", 0.25), Arm("b", "new", 0.25))
    running = replace(experiment(Mode.AB), arms=arms)
    state = state_of(running)
    counted(state, OLD, CHAMPION)
    counted(state, NEW, "a")
    counted(state, NEW, "b", alerts_opened=30)
    [decision] = trialled(state.decide(NOW_MS + 21 * S))
    assert decision.change is not None
    after = decision.change(catalog(running), catalog(running).traffic(NAME)).experiment
    assert after is not None
    assert {arm.name: arm.weight for arm in after.arms} == {CHAMPION: 0.75, "a": 0.25, "b": 0.0}


def test_a_quiet_canary_is_left_alone_and_so_is_one_as_loud_as_the_champion() -> None:
    for alerts in (0, 1):
        state = state_of(experiment())
        counted(state, OLD, CHAMPION, seconds=300, vehicles=80, alerts_opened=alerts)
        counted(state, NEW, "canary", seconds=300, vehicles=80, alerts_opened=alerts)
        loud = Guards(alerts_per_vehicle_hour_max=1_000)
        trial = state.trials.of(NAME)
        assert trial is not None
        trial.experiment = replace(trial.experiment, guards=loud)
        assert trialled(state.decide(NOW_MS + 301 * S)) == []


def test_what_a_scorer_told_of_a_storm_is_enough() -> None:
    state = state_of(experiment())
    told = ModelEvent(
        EventKind.GUARD_TRIPPED, NAME, "storm", "scorer-1", NOW_MS + S, "new", "canary", "try"
    )
    state.take_events([told.to_record()])
    [decision] = trialled(state.decide(NOW_MS + 2 * S))
    assert kinds(decision) == [EventKind.ROLLED_BACK]
    for other in (replace(told, time_ms=NOW_MS - 1), replace(told, experiment="before")):
        fresh = state_of(experiment())
        fresh.take_events([other.to_record()])
        assert trialled(fresh.decide(NOW_MS + 2 * S)) == []


def test_the_same_arm_for_all_errs_seldom() -> None:
    """Guards under no difference: so many looks, so many canaries, hardly a rollback."""
    rng = np.random.default_rng(5)
    rolled_back = 0
    for _ in range(200):
        arm = champion = Exposure()
        for _ in range(150):
            part = Exposure(60, 0, int(rng.poisson(0.02)), 0.03)
            rest = Exposure(540, 0, int(rng.poisson(0.18)), 0.3)
            arm, champion = arm.plus(part), champion.plus(rest)
            if tripped(Guards(), arm, champion):
                rolled_back += 1
                break
    assert rolled_back <= 2


@pytest.mark.parametrize(
    ("arm", "champion", "guard"),
    [
        (Exposure(1_000, 200, 0, 1.0), Exposure(9_000, 10, 0, 9.0), "unscored_share_max"),
        (Exposure(1_000, 0, 60, 1.0), Exposure(1_000, 0, 60, 1.0), "alerts_per_vehicle_hour_max"),
        (Exposure(100, 0, 6, 1.0), Exposure(900, 0, 0, 9.0), "alert_ratio_max"),
    ],
)
def test_each_guard_trips_by_itself(arm: Exposure, champion: Exposure, guard: str) -> None:
    assert [trip.guard for trip in tripped(Guards(), arm, champion)] == [guard]


def test_a_slow_arm_trips_only_where_it_is_slow_to_anybody() -> None:
    def polls(seconds: float) -> Exposure:
        return Exposure(10_000, compute=TIME_BINS.count(np.full(200, seconds)))

    assert [t.guard for t in tripped(Guards(), polls(0.1), polls(0.01))] == ["latency_ratio_max"]
    assert tripped(Guards(), polls(0.01), polls(0.001)) == []
    few = replace(polls(0.1), compute=TIME_BINS.count(np.full(50, 0.1)))
    assert tripped(Guards(), few, polls(0.01)) == []


def test_the_poisson_tail() -> None:
    exact = 1 - sum(math.exp(-3) * 3**k / math.factorial(k) for k in range(8))
    assert poisson_at_least(8, 3.0) == pytest.approx(exact)
    assert (poisson_at_least(2, 3.0), poisson_at_least(1, 0.0)) == (1.0, 0.0)


def outcomes(arm: str, version: str, good: list[bool], case: Case = Case.FAULT) -> list[Outcome]:
    ref = ArmRef(NAME, version, arm)
    return [Outcome(NOW_MS + i * S, f"{arm}-{i}", case, ref, g) for i, g in enumerate(good)]


def judged(running: Experiment, champion: list[bool], canary: list[bool]) -> list[Decision]:
    state = state_of(running)
    state.trials.take_outcomes(
        outcomes(CHAMPION, "old", champion) + outcomes("canary", "new", canary)
    )
    return trialled(state.decide(NOW_MS + 60 * S))


def test_the_winner_is_promoted_where_the_experiment_asks_for_it() -> None:
    running = experiment(Mode.AB, weight=0.5, auto_promote=True)
    [decision] = judged(running, [False] * 40, [True] * 40)
    assert kinds(decision) == [EventKind.EXPERIMENT_DECIDED, EventKind.PROMOTED]
    assert decision.change is not None
    after = decision.change(catalog(running), catalog(running).traffic(NAME))
    assert (after.champion, after.previous, after.experiment) == ("new", ("old",), None)


def test_a_loser_goes_back_and_without_auto_promote_people_are_told_only() -> None:
    running = experiment(Mode.AB, weight=0.5, auto_promote=True)
    [decision] = judged(running, [True] * 40, [False] * 40)
    assert kinds(decision) == [EventKind.EXPERIMENT_DECIDED, EventKind.ROLLED_BACK]
    [decision] = judged(replace(running, auto_promote=False), [True] * 40, [False] * 40)
    assert kinds(decision) == [EventKind.EXPERIMENT_DECIDED]
    assert decision.change is None
    assert judged(running, [True, False] * 20, [False, True] * 20) == []


def test_false_alarms_count_against_an_arm_and_confirmed_ones_are_their_faults_case() -> None:
    trial = Trial(NAME, experiment(Mode.AB, weight=0.5))
    trial.take_outcomes(
        outcomes("canary", "new", [True, False], Case.ALARM)
        + outcomes("canary", "new", [True], Case.FAULT)
        + outcomes("canary", "old", [True] * 9)  # another version had the arm then
        + outcomes("stranger", "new", [True] * 9)
        + [replace(outcomes("canary", "new", [True])[0], time_ms=NOW_MS - 1)]
    )
    test = trial.tests["canary"]
    assert getattr(test, "waiting_b", None) == (False, True)
    quality = trial.arms["canary"].quality
    assert (quality.alarms, quality.confirmed, quality.faults, quality.found) == (2, 1, 1, 1)


def test_a_shadow_is_compared_case_by_case_and_never_changes_traffic() -> None:
    running = experiment(Mode.SHADOW, weight=0.5)
    trial = Trial(NAME, running)
    splitter = Splitter(running)
    for number in range(200):
        vehicle = f"car-{number}"
        ours = splitter.choose([vehicle.encode()])[0] >= 0
        cases = [
            Outcome(NOW_MS + number, vehicle, Case.FAULT, ArmRef(NAME, "old", CHAMPION), False),
            Outcome(NOW_MS + number, vehicle, Case.FAULT, ArmRef(NAME, "new", "canary"), True),
        ]
        trial.take_outcomes(cases if ours else cases[:1])
    test = trial.tests["canary"]
    assert 60 < getattr(test, "wins", 0) < 140
    [decision] = list(trial.decide(NOW_MS + 60 * S, SETTINGS))
    assert kinds(decision) == [EventKind.EXPERIMENT_DECIDED]
    state = state_of(running)
    counted(state, OLD, CHAMPION)
    counted(state, NEW, "canary", alerts_opened=30)
    [decision] = trialled(state.decide(NOW_MS + 21 * S))
    assert kinds(decision) == [EventKind.GUARD_TRIPPED]
    assert decision.change is None


def test_a_monitor_that_starts_anew_does_not_decide_again() -> None:
    running = experiment(Mode.AB, weight=0.5)
    [decision] = judged(running, [True] * 40, [False] * 40)
    state = state_of(running)
    state.take_history_of_events(event.to_record() for event in decision.events)
    state.trials.take_outcomes(
        outcomes(CHAMPION, "old", [True] * 40) + outcomes("canary", "new", [False] * 40)
    )
    assert trialled(state.decide(NOW_MS + 60 * S)) == []


def alert(vehicle: str, arm: str, version: str, time_ms: int, **more: Any) -> Mapping[str, Any]:
    return {
        "alert_id": f"{vehicle}/{arm}/{time_ms}",
        "state": "OPEN",
        "origin": "CLOUD",
        "event_time": time_ms,
        "vehicle_id": vehicle,
        "model_name": NAME,
        "model_version": version,
        "arm": arm,
        **more,
    }


def test_labels_reach_the_arm_that_scored_the_vehicle_and_decide() -> None:
    """From records alone: statistics, alerts, labels, traffic."""
    running = experiment(Mode.AB, weight=0.5, auto_promote=True)
    state = state_of(running)
    splitter = Splitter(running)
    counted(state, OLD, CHAMPION, seconds=400)
    counted(state, NEW, "canary", seconds=400)
    for number in range(200):
        vehicle, at = f"car-{number}", NOW_MS + (10 + number) * S
        arm = splitter.arms[int(splitter.choose([vehicle.encode()])[0])]
        state.take_labels(
            [{"vehicle_id": vehicle, "label": "hot", "start_time": at, "end_time": at + 5 * S}]
        )
        if arm.name == "canary":  # The champion finds nothing.
            state.take_alerts([dict(alert(vehicle, "canary", "new", at + S))])
    live = state.quality(NOW_MS + 500 * S)
    canary, champion = live[ArmRef(NAME, "new", "canary")], live[ArmRef(NAME, "old", CHAMPION)]
    assert (canary.precision, canary.recall, champion.precision, champion.recall) == (1, 1, None, 0)
    assert canary.faults + champion.faults == 200
    assert trialled(state.decide(NOW_MS + 500 * S)) == []  # nothing is settled yet
    [decision] = trialled(state.decide(NOW_MS + 900 * S))
    assert kinds(decision)[-1] is EventKind.PROMOTED
    assert state.quality(NOW_MS + 900 * S) == live


def test_nobody_missed_a_fault_while_no_scorer_was_at_work() -> None:
    state = state_of(None)
    counted(state, OLD, CHAMPION, seconds=20)
    for at in (NOW_MS + 10 * S, NOW_MS + 600 * S):
        state.take_labels(
            [{"vehicle_id": "car", "label": "hot", "start_time": at, "end_time": at + S}]
        )
    assert {arm: q.faults for arm, q in state.quality(NOW_MS + 900 * S).items()} == {
        ArmRef(NAME, "old", CHAMPION): 1
    }


def test_who_scored_when_follows_traffic_and_versions() -> None:
    roster = Roster()
    rows = fleet_rows(np.random.default_rng(1), 5, 2)
    for second in range(0, 400, 2):
        for bundle, arm in ((OLD, CHAMPION), (NEW, "canary")):
            end_ms = NOW_MS + second * S
            if arm == CHAMPION or second > 100:
                roster.take_window(window(bundle, rows, end_ms=end_ms, vehicles=5, arm=arm))
    running = experiment(weight=0.5)
    before = Traffic(NAME, generation=1, changed_time_ms=NOW_MS - 999 * S)
    roster.take_traffic(before)
    roster.take_traffic(
        replace(before, generation=2, experiment=running, changed_time_ms=NOW_MS + 100 * S)
    )
    roster.take_traffic(replace(before, generation=3, changed_time_ms=NOW_MS + 300 * S))
    splitter = Splitter(running)
    for vehicle in ("car-1", "car-2", "car-3", "car-4"):
        chosen = splitter.arms[int(splitter.choose([vehicle.encode()])[0])]
        champion = [ArmRef(NAME, "old", CHAMPION)]
        assert roster.responsible(vehicle, NOW_MS + 50 * S) == champion
        assert roster.responsible(vehicle, NOW_MS + 200 * S) == [
            ArmRef(NAME, chosen.version, chosen.name)
        ]
        assert roster.responsible(vehicle, NOW_MS + 350 * S) == champion
        assert roster.responsible(vehicle, NOW_MS + 900 * S) == []


def test_a_report_tells_all_that_decides() -> None:
    running = experiment(Mode.AB, weight=0.5)
    state = state_of(running)
    counted(state, OLD, CHAMPION, vehicles=200, alerts_opened=1)
    counted(state, NEW, "canary", alerts_opened=2, alerts_held=1)
    state.trials.take_outcomes(
        outcomes(CHAMPION, "old", [True] * 40) + outcomes("canary", "new", [False] * 40)
    )
    report = reported(state, NAME, NOW_MS + 30 * S)
    assert report is not None
    champion, canary = report.arms
    assert (champion.arm, champion.version, champion.vehicles) == (CHAMPION, "old", 200)
    assert (canary.version, canary.alerts_opened, canary.alerts_held) == ("new", 20, 10)
    assert canary.vehicle_hours == pytest.approx(50 * 20 / 3600)
    assert canary.alerts_per_vehicle_hour == pytest.approx(30 / canary.vehicle_hours)
    assert canary.score_ks is not None and canary.score_ks_limit is not None
    assert canary.score_ks < canary.score_ks_limit
    assert (canary.decided, champion.decided) == ("worse", "")
    assert canary.p_value is not None and canary.p_value < 0.05
    assert json.loads(json.dumps(report.to_json()))["arms"][1]["arm"] == "canary"
    assert reported(state_of(None), NAME, NOW_MS) is None
    beside = reported(state_of(experiment(Mode.SHADOW)), NAME, NOW_MS)
    assert beside is not None and beside.arms[0].version == "old"
