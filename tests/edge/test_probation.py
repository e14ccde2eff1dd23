"""When a model must go: exact limits on counts, checked against plain sums and by simulation."""

import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edge.probation
from edge.probation import (
    CHANCE,
    OPENINGS_MIN,
    Batch,
    Breach,
    Probation,
    binomial_at_least,
    poisson_at_least,
    poisson_at_most,
)
from scoring.bounds import Bounds

HOUR_S = 3_600.0


def given_batch(
    *,
    readings: int = 10,
    missing: int = 0,
    openings: int = 0,
    vehicle_s: float = 10.0,
    reading_ms: float = 0.1,
) -> Batch:
    return Batch(readings, readings, missing, openings, vehicle_s, reading_ms * readings)


def first_breach(probation: Probation, batches: list[Batch]) -> tuple[int, Breach] | None:
    for number, batch in enumerate(batches, 1):
        if (breach := probation.take(batch)) is not None:
            return number, breach
    return None


def test_examples_run() -> None:
    failed, tried = doctest.testmod(edge.probation)
    assert tried and not failed


@given(count=st.integers(0, 60), expected=st.floats(1e-3, 50))
def test_poisson_tails_are_the_plain_sums(count: int, expected: float) -> None:
    def term(k: int) -> float:
        return math.exp(k * math.log(expected) - expected - math.lgamma(k + 1))

    below = math.fsum(term(k) for k in range(count))
    above = math.fsum(term(k) for k in range(count, 400))
    if count > expected:
        assert poisson_at_least(count, expected) == pytest.approx(above, rel=1e-9)
    if count < expected:
        assert poisson_at_most(count, expected) == pytest.approx(below + term(count), rel=1e-9)


@given(of=st.integers(1, 300), share=st.floats(0.001, 0.5), data=st.data())
def test_binomial_tail_is_the_plain_sum(of: int, share: float, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, of))
    plain = math.fsum(
        math.comb(of, k) * share**k * (1 - share) ** (of - k) for k in range(count, of + 1)
    )
    if count > of * share:
        assert binomial_at_least(count, of, share) == pytest.approx(plain, rel=1e-6)


def test_a_storm_is_noticed_after_a_handful_and_not_before() -> None:
    probation = Probation(Bounds(alerts_per_vehicle_hour_max=1.0))
    found = first_breach(probation, [given_batch(openings=1)] * 20)
    assert found is not None
    number, breach = found
    assert number == OPENINGS_MIN
    assert "5 alerts in 0.0139 vehicle-hours; its bounds allow 1 an hour" in breach.detail


def test_a_storm_after_months_is_noticed_as_soon() -> None:
    probation = Probation(Bounds(alerts_per_vehicle_hour_max=1.0))
    quiet = [given_batch(vehicle_s=HOUR_S)] * 4_000
    assert first_breach(probation, quiet) is None
    found = first_breach(probation, [given_batch(openings=1)] * 20)
    assert found is not None and found[0] <= 2 * OPENINGS_MIN


def test_a_slow_rise_is_noticed_in_the_long_run() -> None:
    rng = np.random.default_rng(1)
    probation = Probation(Bounds(alerts_per_vehicle_hour_max=1.0))
    batches = [given_batch(vehicle_s=HOUR_S, openings=int(n)) for n in rng.poisson(1.5, 2_000)]
    assert first_breach(probation, batches) is not None


@pytest.mark.parametrize("seed", range(5))
def test_a_model_just_within_its_bounds_stays(seed: int) -> None:
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    probation = Probation(
        Bounds(alerts_per_vehicle_hour_max=1.0, alerts_per_vehicle_hour_min=0.5, reading_ms_max=1.0)
    )
    # A year of one car, at three quarters of its greatest rate; a slow batch in two hundred.
    batches = [
        given_batch(vehicle_s=360.0, openings=int(n), reading_ms=2.0 if slow else 0.5)
        for n, slow in zip(rng.poisson(0.075, 20_000), rng.random(20_000) < 0.005, strict=True)
    ]
    assert first_breach(probation, batches) is None


def test_silence_is_a_breach_where_alerts_are_promised() -> None:
    probation = Probation(Bounds(alerts_per_vehicle_hour_min=1.0))
    found = first_breach(probation, [given_batch(vehicle_s=HOUR_S)] * 100)
    assert found is not None
    # exp(-14) is the first below one in a million.
    assert found[0] == math.ceil(-math.log(CHANCE))
    assert "0 alerts in" in found[1].detail


def test_one_slow_batch_is_no_breach_and_a_slow_model_is() -> None:
    bounds = Bounds(reading_ms_max=1.0)
    once = [given_batch(reading_ms=50.0)] + [given_batch()] * 500
    assert first_breach(Probation(bounds), once) is None
    found = first_breach(Probation(bounds), [given_batch(reading_ms=2.0)] * 100)
    assert found is not None and found[0] <= 4
    assert "over 1 ms a reading" in found[1].detail


def test_missing_scores_are_a_breach() -> None:
    found = first_breach(Probation(Bounds()), [given_batch(missing=10)] * 100)
    assert found is not None and found[0] == 1
    assert "NaN" in found[1].detail
    few = [given_batch(readings=100, missing=2)] * 1_000
    assert first_breach(Probation(Bounds()), few) is None


def test_without_bounds_only_missing_scores_count() -> None:
    batches = [given_batch(openings=10, reading_ms=1e6)] * 1_000
    assert first_breach(Probation(Bounds()), batches) is None
