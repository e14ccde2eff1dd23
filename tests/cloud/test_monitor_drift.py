from collections.abc import Mapping

import numpy as np
import pytest
from monitor_parts import NAME, NOW_MS, catalog_of, fleet_rows, record, referenced, window

from cloud.monitoring.drift import SCORE, named_in
from cloud.monitoring.settings import MonitorSettings
from cloud.monitoring.state import MonitorState
from schemas.errors import SettingsError
from scoring.bundle import Bundle
from scoring.events import EventKind, ModelEvent

SETTINGS = MonitorSettings(drift_window_s=60)
MINUTE_MS = 60_000


def monitored(
    bundle: Bundle,
    minutes: int,
    *,
    vehicles: int,
    seed: int,
    state: MonitorState | None = None,
    shift: Mapping[int, Mapping[str, float]] | None = None,
    start_ms: int = NOW_MS,
) -> list[ModelEvent]:
    """Events of so many minutes with 30 records of statistics each; `shift` by minute."""
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    state = state or MonitorState(SETTINGS, since_ms=start_ms)
    state.take_catalog(catalog_of(bundle))
    events = []
    for minute in range(minutes):
        shifted = (shift or {}).get(minute)
        rows = fleet_rows(rng, vehicles, 30, shifted)
        for part in range(30):
            end_ms = start_ms + minute * MINUTE_MS + 2_000 * part + 1_000
            share = rows[part::30]
            state.take_stats([record(window(bundle, share, end_ms=end_ms, vehicles=vehicles))])
            events += told(state, end_ms)
    return events + told(state, start_ms + (minutes + 1) * MINUTE_MS)


def told(state: MonitorState, now_ms: int) -> list[ModelEvent]:
    return [event for decision in state.decide(now_ms) for event in decision.events]


@pytest.mark.parametrize("vehicles", [3, 20, 300])
def test_no_drift_is_told_of_the_same_distribution(vehicles: int) -> None:
    assert monitored(referenced("1"), 40, vehicles=vehicles, seed=vehicles) == []


def test_drift_of_one_signal_is_found_named_told_once_and_ends() -> None:
    drifted = {minute: {"coolant_temperature": 3.0} for minute in range(3, 9)}
    events = monitored(referenced("1"), 14, vehicles=100, seed=5, shift=drifted)
    inputs = [event for event in events if named_in(event) != (SCORE,)]
    assert [(event.kind, named_in(event)) for event in inputs] == [
        (EventKind.INPUT_DRIFT, ("coolant_temperature",)),
        (EventKind.INPUT_DRIFT_OVER, ("coolant_temperature",)),
    ]
    assert inputs[0].model_version == "1"
    assert inputs[0].time_ms <= NOW_MS + 6 * MINUTE_MS
    assert "coolant_temperature" in inputs[0].detail
    assert inputs[0].values["ks:coolant_temperature"] > 0.5


def test_a_shift_of_all_scores_is_score_drift() -> None:
    drifted = {minute: dict.fromkeys(("speed", "maf"), 6.0) for minute in range(3, 9)}
    events = monitored(referenced("1"), 10, vehicles=100, seed=6, shift=drifted)
    assert EventKind.SCORE_DRIFT in {event.kind for event in events}


def test_a_signal_that_vanishes_is_drift() -> None:
    drifted = {minute: {"maf": float("nan")} for minute in range(2, 9)}
    events = monitored(referenced("1"), 6, vehicles=100, seed=7, shift=drifted)
    assert ("maf",) in {named_in(event) for event in events}


def test_a_feature_with_memory_that_is_not_warm_is_no_drift() -> None:
    cold = {minute: {"coolant_temperature:lag:60s": float("nan")} for minute in range(2, 9)}
    assert monitored(referenced("1"), 6, vehicles=100, seed=7, shift=cold) == []
    rows = fleet_rows(np.random.default_rng(1), 100, 30)
    column = list(referenced("1").manifest.feature_names).index("speed:mean:10s")
    rows[::3, column] = np.nan
    bundle = referenced("1")
    state = MonitorState(SETTINGS, since_ms=0)
    state.take_catalog(catalog_of(bundle))
    for minute in range(6):
        end_ms = NOW_MS + minute * MINUTE_MS
        state.take_stats([record(window(bundle, rows, end_ms=end_ms, vehicles=100))])
    assert told(state, NOW_MS + 10 * MINUTE_MS) == []


def test_a_few_vehicles_that_are_all_far_off_are_enough() -> None:
    drifted = {minute: {"speed": 9.0} for minute in range(10)}
    events = monitored(referenced("1"), 5, vehicles=8, seed=8, shift=drifted)
    assert ("speed",) in {named_in(event) for event in events}


def test_a_monitor_that_starts_anew_repeats_nothing() -> None:
    drifted = {minute: {"speed": 4.0} for minute in range(10)}
    bundle = referenced("1")
    events = monitored(bundle, 4, vehicles=100, seed=9, shift=drifted)
    assert len(events) == len({event.kind for event in events}) > 0
    later_ms = NOW_MS + 10 * MINUTE_MS
    state = MonitorState(SETTINGS, since_ms=later_ms)
    state.take_history_of_events(event.to_record() for event in events)
    again = monitored(
        bundle, 4, vehicles=100, seed=9, shift=drifted, state=state, start_ms=later_ms
    )
    assert again == []
    assert "speed" in state.drift.open_signals((NAME, "1"))


def test_what_a_server_counts_again_is_not_counted_twice() -> None:
    bundle = referenced("1")
    state = MonitorState(SETTINGS, since_ms=0)
    state.take_catalog(catalog_of(bundle))
    rows = fleet_rows(np.random.default_rng(1), 50, 4)
    far = fleet_rows(np.random.default_rng(1), 50, 4, {"speed": 9.0})
    for minute in range(6):
        at = {"end_ms": NOW_MS + minute * MINUTE_MS, "vehicles": 50}
        state.take_stats([record(window(bundle, rows, **at))])  # type: ignore[arg-type]
        state.take_stats(
            [record(window(bundle, far, component="server", **at))]  # type: ignore[arg-type]
        )
    assert state.decide(NOW_MS + 10 * MINUTE_MS) == []


def test_versions_without_reference_and_unknown_ones_are_passed_over() -> None:
    bundle = referenced("1")
    state = MonitorState(SETTINGS, since_ms=0)
    rows = fleet_rows(np.random.default_rng(1), 50, 4, {"speed": 9.0})
    for minute in range(6):
        end_ms = NOW_MS + minute * MINUTE_MS
        state.take_stats([record(window(bundle, rows, end_ms=end_ms, vehicles=50))])
    assert state.decide(NOW_MS + 10 * MINUTE_MS) == []
    assert state.taken.windows == 6


def test_a_record_with_other_bins_is_counted_as_broken() -> None:
    state = MonitorState(SETTINGS, since_ms=0)
    bundle = referenced("1")
    good = record(window(bundle, fleet_rows(np.random.default_rng(1), 5, 2), end_ms=1, vehicles=5))
    state.take_stats([good | {"score_counts": [1, 2]}])
    other = dict(good)
    other["features"] = [{"name": "speed", "absent": 0, "counts": [1, 2, 3]}]
    state.take_stats([good, other])
    assert (state.taken.windows, state.taken.broken) == (2, 2)


@pytest.mark.parametrize(
    "change",
    [
        {"drift_window_s": 0.0},
        {"drift_alpha": 0.7},
        {"drift_open_windows": 0},
        {"lookback_s": 1.0},
        {"entries_max": 1},
        {"session_timeout_s": 1.0},
    ],
)
def test_settings_are_checked(change: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match=f"monitor.*{next(iter(change))}"):
        MonitorSettings(**change)  # type: ignore[arg-type]
