from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring.alerts import Transition
from scoring.storm_guard import LEVEL, Admitted, StormGuard, Trip, is_storm
from scoring.traffic import Guards


def opening(message: int, vehicle: int, state: str = "OPEN") -> Transition:
    return Transition(
        message=message,
        reading_index=0,
        vehicle_id=b"car-%d" % vehicle,
        boot_id=1,
        seq=1,
        state="OPEN" if state == "OPEN" else "CLOSED",
        alert_id=f"CLOUD/car-{vehicle}/1/1/0/anomaly",
        code="anomaly",
        since_ms=0,
        event_time_ms=0,
        score=1.0,
        late=False,
        signals=(),
    )


def admit(guard: StormGuard, lane_of: Sequence[int], opens: Sequence[int]) -> Admitted:
    """One message of ten readings a vehicle; those of `opens` open an alert."""
    counts = np.full(len(lane_of), 10)
    return guard.admit(np.array(lane_of), counts, [opening(i, i) for i in opens])


def test_an_arm_that_opens_everything_is_held_after_a_handful() -> None:
    lane_of = [1 if i % 10 == 0 else 0 for i in range(1000)]
    guard = StormGuard(Guards(), 2)
    admitted = admit(guard, lane_of, range(0, 1000, 10))
    assert len(admitted.transitions) <= 5
    assert admitted.held == 100 - len(admitted.transitions)
    (trip,) = admitted.trips
    assert (trip.lane, trip.champion_openings) == (1, 0)
    assert guard.tripped == {1}


def test_the_champion_is_never_held() -> None:
    guard = StormGuard(Guards(), 2)
    admitted = admit(guard, [0, 1] * 500, range(0, 1000, 2))
    assert (len(admitted.transitions), admitted.held, admitted.trips) == (500, 0, ())


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.99])
def test_an_arm_that_opens_as_the_champion_does_is_let_be(share: float) -> None:
    rng = np.random.default_rng(7)
    print("seed 7")
    guard = StormGuard(Guards(), 2)
    for _ in range(50):
        lane_of = (rng.random(1000) < share).astype(np.int64).tolist()
        opens = np.flatnonzero(rng.random(1000) < 0.02).tolist()
        assert admit(guard, lane_of, opens).trips == ()


def test_what_was_opened_before_may_close_and_what_was_held_never_does() -> None:
    lane_of = [1] * 40 + [0] * 360
    guard = StormGuard(Guards(), 2)
    out = [t.vehicle_id for t in admit(guard, lane_of, range(40)).transitions]
    closing = guard.admit(
        np.array(lane_of), np.full(400, 10), [opening(i, i, "CLOSED") for i in range(40)]
    )
    assert [t.vehicle_id for t in closing.transitions] == out
    assert closing.held == 0


def test_old_openings_are_forgotten_with_their_window() -> None:
    guard = StormGuard(Guards(), 2, window_readings=1000)
    for _ in range(20):
        # One opening of the arm in three windows: what is counted never holds five.
        assert admit(guard, [1] * 10 + [0] * 90, [0]).trips == ()
        assert admit(guard, [0] * 200, []).trips == ()
    assert admit(guard, [1] * 10 + [0] * 90, range(10)).trips != ()


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(0, 400), max_size=8))
def test_it_decides_the_same_however_the_stream_is_cut(seed: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    lane_of = rng.integers(0, 3, 400)
    counts = rng.integers(1, 20, 400)
    storm = rng.random(400) < np.where(lane_of == 2, 0.2, 0.01)
    found = []
    for edges in ([0, 400], sorted({0, 400, *cuts})):
        guard = StormGuard(Guards(), 3, window_readings=700)
        out: list[bytes] = []
        trips: list[Trip] = []
        for a, b in pairwise(edges):
            opens = [opening(i, a + i) for i in np.flatnonzero(storm[a:b]).tolist()]
            admitted = guard.admit(lane_of[a:b], counts[a:b], opens)
            out += [t.vehicle_id for t in admitted.transitions]
            trips += admitted.trips
        found.append((out, trips))
    assert found[0] == found[1]


def test_the_limits_of_the_experiment_are_used() -> None:
    counted = Trip(1, openings=20, readings=1000, champion_openings=20, champion_readings=4000)
    assert not is_storm(counted, Guards(alert_ratio_max=3.0))
    assert is_storm(counted, Guards(alert_ratio_max=1.0))
    assert not is_storm(counted, Guards(alert_ratio_max=1.0, min_alerts=21))


def test_at_the_largest_ratio_chance_trips_one_in_a_thousand_at_most() -> None:
    rng = np.random.default_rng(3)
    print("seed 3")
    share = 3.0 * 100 / (3.0 * 100 + 900)
    mine = rng.binomial(200, share, 20_000)
    tripped = [is_storm(Trip(1, int(n), 100, 200 - int(n), 900), Guards()) for n in mine]
    assert np.mean(tripped) <= LEVEL * 1.5


def test_without_a_champion_there_is_nothing_to_compare_with() -> None:
    assert not is_storm(Trip(1, 50, 1000, 0, 0), Guards())
