import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.calibration import (
    block_maxima,
    choose_threshold,
    driven_hours,
    policy_statistic,
    residual_scale,
)
from scoring.bundle import PolicySettings
from scoring.policy import AlertPolicy

POLICY = PolicySettings(k=2, n=3, close_k=0)


def scale_of(
    residuals: list[list[float]], *, floor: float = 1e-3, budget_per_hour: float = 1.0
) -> list[float]:
    """Of one vehicle with a reading every ten seconds."""
    rows = np.array(residuals)
    scale = residual_scale(
        rows,
        np.zeros(len(rows), np.int64),
        10_000 * np.arange(len(rows)),
        floor=np.full(rows.shape[1], floor),
        policy=POLICY,
        budget_per_hour=budget_per_hour,
    )
    return [float(value) for value in scale]


def test_the_scale_is_the_highest_level_that_the_policy_sees() -> None:
    lasting, spike = [0.0, 2.0, -3.0, 2.5, 0.0], [0.0, 0.0, 9.0, 0.0, 0.0]
    assert scale_of([list(row) for row in zip(lasting, spike, strict=True)]) == [2.5, 1e-3]


def test_the_scale_has_a_floor_and_leaves_absent_features_out() -> None:
    assert scale_of([[0.0, np.nan], [0.0, np.nan]], floor=0.25) == [0.25, 0.25]


def test_with_a_budget_the_rarest_levels_are_passed_over() -> None:
    steps = [[float(level)] for level in range(600) for _ in range(6)]
    highest, allowing = scale_of(steps, budget_per_hour=1e-6), scale_of(steps)
    assert highest == [599.0]
    assert allowing == [593.0]


@given(
    scores=st.lists(st.floats(0, 8, width=32), max_size=40),
    n=st.integers(1, 6),
    data=st.data(),
)
def test_the_statistic_is_the_threshold_at_which_the_policy_just_stays_quiet(
    scores: list[float], n: int, data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, n))
    cut = data.draw(st.integers(0, len(scores)))
    threshold = data.draw(st.floats(0.5, 8, width=32))
    values = np.array(scores, np.float32)
    segment = np.repeat([0, 1], [cut, len(scores) - cut])
    statistic = policy_statistic(values, segment, k=k, n=n)
    opened = set()
    for number in (0, 1):
        rows = np.flatnonzero(segment == number)
        policy = AlertPolicy(
            PolicySettings(k=k, n=n, close_k=0), threshold=threshold, max_vehicles=2
        )
        decisions = policy.update(
            segment[rows], np.zeros(len(rows), np.bool_), values[rows], 1_000 * rows
        )
        if decisions.opens.any():
            opened.add(number)
    exceeding = segment[statistic > np.float32(threshold)]
    assert opened == set(exceeding.tolist())


def test_blocks_end_with_the_minute_and_with_the_stretch() -> None:
    statistic = np.array([1.0, 5.0, 2.0, 9.0, -np.inf, 3.0])
    segment = np.array([0, 0, 0, 0, 1, 2])
    time_ms = np.array([0, 59_999, 60_000, 61_000, 0, 1_000])
    assert block_maxima(statistic, segment, time_ms).tolist() == [9.0, 5.0, 3.0]
    assert block_maxima(np.empty(0), segment[:0], time_ms[:0]).tolist() == []


def test_hours_leave_pauses_and_changes_of_vehicle_out() -> None:
    segment = np.array([0, 0, 0, 1, 1])
    time_ms = np.array([0, 9_000, 99_000, 0, 9_000])
    assert driven_hours(segment, time_ms) == pytest.approx(18 / 3600)


def test_with_enough_driving_the_threshold_is_the_quantile_of_the_budget() -> None:
    maxima = np.arange(600.0, 0.0, -1.0)
    chosen = choose_threshold(maxima, 10.0, budget_per_hour=1.0, margin=1.2)
    assert (chosen.method, chosen.value) == ("block-maxima", 593.0)
    assert chosen.expected_per_hour == pytest.approx(0.7)


def test_with_little_driving_it_is_read_off_an_exponential_tail() -> None:
    maxima = np.sort(np.random.default_rng(3).exponential(1.0, 6_000))[::-1]
    chosen = choose_threshold(maxima, 1.0, budget_per_hour=1.0, margin=1.0)
    tighter = choose_threshold(maxima, 1.0, budget_per_hour=0.1, margin=1.0)
    assert chosen.method == "extrapolated"
    assert chosen.value == pytest.approx(np.log(6_000 / 0.7), rel=0.1)
    assert tighter.value == pytest.approx(np.log(6_000 / 0.07), rel=0.1)


def test_one_odd_vehicle_does_not_set_an_extrapolated_threshold() -> None:
    maxima = np.sort(np.random.default_rng(3).exponential(1.0, 200))[::-1]
    odd = np.concatenate([[1_000.0], maxima[1:]])
    chosen = choose_threshold(odd, 1.4, budget_per_hour=1.0, margin=1.0)
    assert maxima[1] < chosen.value < 200


def test_no_more_blocks_exceed_than_the_budget_allows_rounded_up() -> None:
    maxima = np.array([9.0, 8.0, 7.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    chosen = choose_threshold(maxima, 2.0, budget_per_hour=1.0, margin=1.0)
    assert (maxima > chosen.value).sum() <= 2


def test_the_margin_raises_an_extrapolated_threshold() -> None:
    chosen = choose_threshold(np.ones(5), 0.1, budget_per_hour=1.0, margin=1.2)
    assert chosen.value == pytest.approx(1.2)


def test_no_driving_gives_no_threshold() -> None:
    with pytest.raises(ValueError, match="no normal driving"):
        choose_threshold(np.empty(0), 1.0, budget_per_hour=1.0, margin=1.2)
