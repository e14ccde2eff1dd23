"""What two models make of the same stretch, without Kafka."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scorer_fleet import HOT, MIDDLE, SIGNALS, SPREAD, START_MS, small_bundle
from serving_models import window_release

from cloud import replay_report
from cloud.replay import Pair, report
from cloud.replay_lines import replay_lines
from cloud.replay_report import Alarm, Event, Hours, events_of, overlap, verdict
from schemas.columns import TelemetryColumns
from scoring.stream import StreamScorer

VEHICLES = 12


def poll(second: int, rng: np.random.Generator) -> TelemetryColumns:
    """A reading of each vehicle; every third one is hot from second 40 to 80."""
    values = MIDDLE + SPREAD * rng.standard_normal((VEHICLES, len(SIGNALS)))
    if 40 <= second < 80:
        values[::3] = HOT
    ones = np.ones(VEHICLES, np.int64)
    return TelemetryColumns(
        index=np.arange(VEHICLES),
        vehicle_ids=[b"car-%d" % v for v in range(VEHICLES)],
        boot_id=ones,
        seq=(second + 1) * ones,
        oldest_seq=ones,
        uptime_ms=second * 1000 * ones,
        clock_synced=np.ones(VEHICLES, np.bool_),
        counts=ones,
        starts=np.arange(VEHICLES),
        event_time_ms=START_MS + second * 1000 * ones,
        values=values.astype(np.float32),
        signals=SIGNALS,
        rejected=[],
    )


def pair_of(**changes: Any) -> Pair:
    pair = Pair(small_bundle("1"), small_bundle("2", **changes), 100)
    assert pair.signals == SIGNALS
    rng = np.random.default_rng(4)
    for second in range(150):
        pair.score(poll(second, rng))
    return pair


def label(vehicle: str, start_s: int, end_s: int | None) -> dict[str, Any]:
    end_ms = None if end_s is None else START_MS + end_s * 1000
    return {
        "vehicle_id": vehicle,
        "label": "hot",
        "start_time": START_MS + start_s * 1000,
        "end_time": end_ms,
    }


LABELS = [label(f"car-{v}", 40, 80) for v in (0, 3, 6)] + [label("car-1", 40, None)]


def test_the_same_model_changes_nothing() -> None:
    found = report(pair_of(), LABELS, name="small", tolerance_s=60)
    assert found.old == replace(found.new, version="1")
    assert found.old.opened == 4
    assert (len(found.overlap.common), found.overlap.only_old, found.overlap.only_new) == (
        4,
        (),
        (),
    )
    assert (found.events, found.new_verdict.found, found.new_verdict.missed) == (4, 3, 1)
    assert found.new_verdict.false_alerts == 1
    assert found.hours.vehicles == VEHICLES
    assert math.isclose(found.hours.vehicle_hours, VEHICLES * 149 / 3600)
    facts = found.to_json()
    assert facts["alerts"] == {"common": 4, "only_old": 0, "only_new": 0}
    assert facts["new"]["alerts_per_vehicle_hour"] == 4 / found.hours.vehicle_hours


def test_a_deaf_model_and_a_nervous_one_say_what_would_go_and_come() -> None:
    deaf = report(pair_of(threshold=1e6), LABELS, name="small", tolerance_s=60)
    assert [alarm.vehicle_id for alarm in deaf.overlap.only_old] == [
        "car-0",
        "car-3",
        "car-6",
        "car-9",
    ]
    assert (deaf.new.opened, deaf.new_verdict.missed) == (0, 4)
    nervous = report(pair_of(threshold=1e-6), [], name="small", tolerance_s=0)
    assert nervous.new.opened == VEHICLES
    assert {alarm.vehicle_id for alarm in nervous.overlap.only_new} >= {"car-1", "car-2"}
    assert nervous.new.exceeding == nervous.new.readings - nervous.new.unscored
    assert nervous.new.quantiles["p50"] > 1 > nervous.old.quantiles["p50"]
    assert "events_found" not in nervous.to_json()["new"]
    text = "\n".join(replay_lines(nervous))
    assert "12 vehicles" in text
    assert "car-1" in text
    assert "events" not in text
    assert "of 4 events found" in "\n".join(replay_lines(deaf))


def test_what_was_before_the_stretch_warms_up_and_is_not_counted() -> None:
    rng = np.random.default_rng(4)
    polls = [poll(second, rng) for second in range(150)]
    whole, late = (Pair(small_bundle("1"), small_bundle("2"), 100) for _ in range(2))
    for each in polls[:100]:
        whole.score(each)
        late.warm_up(each)
    before = whole.sides()[0]
    for each in polls[100:]:
        whole.score(each)
        late.score(each)
    after, of_late = whole.sides()[0], late.sides()[0]
    assert of_late.readings == after.readings - before.readings
    assert of_late.unscored == 0
    assert of_late.exceeding == after.exceeding - before.exceeding


def test_a_point_model_and_a_windowed_one_are_compared() -> None:
    point, lstm = small_bundle("1"), window_release("2")
    pair = Pair(point, lstm, 100)
    rng = np.random.default_rng(4)
    for second in range(150):
        pair.score(poll(second, rng))
    found = report(pair, LABELS, name="small", tolerance_s=60)
    unready = (lstm.manifest.window - 1) * VEHICLES
    assert (found.old.unscored, found.new.unscored) == (0, unready)
    assert (found.old_verdict.found, found.new_verdict.found) == (3, 3)
    assert len(found.overlap.common) == 4
    assert pair.history_s == max(
        StreamScorer(each, max_vehicles=1).history_s for each in (point, lstm)
    )


def test_alerts_beyond_the_limit_are_counted_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_report, "ALARMS_MAX", 3)
    side = pair_of(threshold=1e-6).sides()[1]
    assert (len(side.alarms), side.left_out, side.opened) == (3, VEHICLES - 3, VEHICLES)


times = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 500)), max_size=12)


@given(old=times, new=times, tolerance_ms=st.integers(0, 100))
def test_each_alert_is_matched_at_most_once_and_none_is_lost(
    old: list[tuple[str, int]], new: list[tuple[str, int]], tolerance_ms: int
) -> None:
    before, after = ([Alarm(v, t) for v, t in each] for each in (old, new))
    found = overlap(before, after, tolerance_ms=tolerance_ms)
    assert sorted(map(repr, found.common + found.only_new)) == sorted(map(repr, after))
    assert len(found.only_old) == len(before) - len(found.common)
    for alarm in found.only_new:
        near = [b for b in found.only_old if b.vehicle_id == alarm.vehicle_id]
        assert all(abs(b.opened_ms - alarm.opened_ms) > tolerance_ms for b in near)
    same = overlap(before, before, tolerance_ms=tolerance_ms)
    assert (same.only_old, same.only_new) == ((), ())


def test_a_label_that_gets_its_end_later_is_one_event() -> None:
    labels = [label("a", 10, None), label("a", 10, 20), label("b", 900, 950)]
    events = events_of(labels, first_ms=START_MS, last_ms=START_MS + 500_000)
    assert events == [Event("a", START_MS + 10_000, START_MS + 20_000)]


def test_an_alert_that_was_open_within_an_event_finds_it() -> None:
    events = [Event("a", 100, 200)]
    for alarm, found in [
        (Alarm("a", 50, 99), 0),
        (Alarm("a", 50, 120), 1),
        (Alarm("a", 230, None), 1),
        (Alarm("a", 251, None), 0),
        (Alarm("b", 150, None), 0),
    ]:
        verdicts = verdict([alarm], events, tolerance_ms=50)
        assert (verdicts.found, verdicts.missed, verdicts.false_alerts) == (
            found,
            1 - found,
            1 - found,
        )


def test_a_silent_vehicle_is_not_observed() -> None:
    hours = Hours()
    rng = np.random.default_rng(1)
    for second in (0, 30, 200, 190, 210):
        hours.add(poll(second, rng))
    assert hours.observed_ms == VEHICLES * (30 + 10) * 1000
