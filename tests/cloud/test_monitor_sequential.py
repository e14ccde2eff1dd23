import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.monitoring.sequential import PairedTest, TwoSampleTest

ALPHA = 0.05
RUNS = 600
OUTCOMES = 400


def allowed() -> float:
    """Runs that may err, with three standard deviations."""
    return RUNS * ALPHA + 3 * math.sqrt(RUNS * ALPHA)


def two_sample(
    rate_a: float, rate_b: float, *, weights: tuple[float, float], seed: int
) -> TwoSampleTest:
    rng = np.random.default_rng(seed)
    test = TwoSampleTest.of_weights(*weights)
    trials_a, trials_b = OUTCOMES * test.group_a, OUTCOMES * test.group_b
    a = (rng.random(trials_a) < rate_a).tolist()
    b = (rng.random(trials_b) < rate_b).tolist()
    return test.plus(a=a, b=b)


@pytest.mark.parametrize("rate", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.9, 0.1)])
def test_looking_after_every_outcome_errs_less_often_than_alpha(
    rate: float, weights: tuple[float, float]
) -> None:
    """`log_e_max` is the greatest over all looks: whoever looked always would have stopped."""
    runs = (two_sample(rate, rate, weights=weights, seed=s) for s in range(RUNS))
    wrong = sum(run.is_decided(ALPHA) for run in runs)
    assert wrong <= allowed(), wrong


def test_a_rate_that_changes_for_both_alike_is_no_difference() -> None:
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(RUNS):
        test = TwoSampleTest()
        for block in range(200):
            rate = 0.5 + 0.4 * math.sin(block / 20)
            test = test.plus(a=[rng.random() < rate], b=[rng.random() < rate])
        wrong += test.is_decided(ALPHA)
    assert wrong <= allowed(), wrong


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.9, 0.1), (0.2, 0.8)])
def test_a_difference_is_found_and_its_side_is_right(weights: tuple[float, float]) -> None:
    found = [two_sample(0.5, 0.75, weights=weights, seed=s) for s in range(100)]
    assert sum(t.is_decided(ALPHA) and t.b_is_better for t in found) >= 95
    assert not any(t.is_decided(ALPHA) and not t.b_is_better for t in found)
    other = [two_sample(0.75, 0.5, weights=weights, seed=s) for s in range(100)]
    assert sum(t.is_decided(ALPHA) and not t.b_is_better for t in other) >= 95


@given(
    a=st.lists(st.booleans(), max_size=40),
    b=st.lists(st.booleans(), max_size=40),
    cuts=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=5),
    weights=st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)),
)
def test_how_outcomes_are_cut_into_calls_changes_nothing(
    a: list[bool], b: list[bool], cuts: list[tuple[int, int]], weights: tuple[float, float]
) -> None:
    whole = TwoSampleTest.of_weights(*weights).plus(a=a, b=b)
    parts = TwoSampleTest.of_weights(*weights)
    at_a = at_b = 0
    for cut_a, cut_b in [*sorted(cuts), (len(a), len(b))]:
        end_a, end_b = max(cut_a, at_a), max(cut_b, at_b)
        parts = parts.plus(a=a[at_a:end_a], b=b[at_b:end_b])
        at_a, at_b = end_a, end_b
    assert parts == whole


def test_the_e_value_of_a_block_is_no_more_than_one_on_average() -> None:
    """The property behind it all, exactly: over all outcomes, for every rate that both share."""
    test = TwoSampleTest(group_a=2, group_b=1).plus(a=[True, False], b=[True])
    for rate in np.linspace(0.01, 0.99, 25):
        mean = 0.0
        for number in range(8):
            ys = [bool(number >> bit & 1) for bit in range(3)]
            chance = math.prod(rate if y else 1 - rate for y in ys)
            mean += chance * math.exp(test.plus(a=ys[:2], b=ys[2:]).log_e - test.log_e)
        assert mean <= 1 + 1e-12


def test_pairs_that_are_alike_are_seldom_told_apart() -> None:
    rng = np.random.default_rng(2)
    wrong = sum(
        PairedTest().plus((rng.random(OUTCOMES) < 0.5).tolist()).is_decided(ALPHA)
        for _ in range(RUNS)
    )
    assert wrong <= allowed(), wrong


def test_pairs_that_differ_are_told_apart() -> None:
    rng = np.random.default_rng(3)
    found = [PairedTest().plus((rng.random(100) < 0.8).tolist()) for _ in range(100)]
    assert sum(t.is_decided(ALPHA) and t.b_is_better for t in found) >= 98


def test_nothing_is_decided_of_nothing() -> None:
    assert PairedTest().log_e == pytest.approx(0)
    assert TwoSampleTest.of_weights(1, 0).p_value == PairedTest().p_value == 1
