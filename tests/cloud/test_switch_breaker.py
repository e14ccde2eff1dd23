"""The circuit breaker and the jitter: pure, so every case is drawn."""

import random

from hypothesis import given
from hypothesis import strategies as st

from cloud.remote.breaker import Breaker, BreakerState
from transport.backoff import full_jitter_s


def test_it_opens_after_failures_in_a_row_probes_and_closes() -> None:
    breaker = Breaker(failures_max=3, open_s=2.0)
    for now_s in (0.0, 0.1):
        breaker.failed(now_s)
        assert breaker.state(now_s) is BreakerState.CLOSED
        assert breaker.in_flight(now_s, 4) == 4
    breaker.failed(0.2)
    assert breaker.state(0.2) is BreakerState.OPEN
    assert breaker.in_flight(0.2, 4) == 0
    assert breaker.wait_s(0.2) == 2.0
    assert breaker.state(2.2) is BreakerState.HALF_OPEN
    assert breaker.in_flight(2.2, 4) == 1
    breaker.answered()
    assert breaker.state(2.2) is BreakerState.CLOSED
    assert breaker.wait_s(2.2) == 0
    assert breaker.failures == 0


def test_a_probe_that_fails_opens_it_for_twice_as_long_up_to_a_limit() -> None:
    breaker = Breaker(failures_max=1, open_s=1.0, open_max_s=5.0)
    now_s = 0.0
    waits = []
    for _ in range(5):
        breaker.failed(now_s)
        waits.append(breaker.wait_s(now_s))
        now_s += waits[-1]
        assert breaker.state(now_s) is BreakerState.HALF_OPEN
    assert waits == [1.0, 2.0, 4.0, 5.0, 5.0]
    breaker.answered()
    breaker.failed(now_s)
    assert breaker.wait_s(now_s) == 1.0


def test_an_answer_in_between_starts_the_count_anew() -> None:
    breaker = Breaker(failures_max=2)
    for now_s in range(10):
        breaker.failed(float(now_s))
        breaker.answered()
    assert breaker.state(10.0) is BreakerState.CLOSED


def test_what_was_under_way_when_it_opened_does_not_prolong_it() -> None:
    breaker = Breaker(failures_max=1, open_s=1.0)
    breaker.failed(0.0)
    for now_s in (0.1, 0.2, 0.9):
        breaker.failed(now_s)
    assert breaker.state(1.0) is BreakerState.HALF_OPEN


@given(attempt=st.integers(0, 2000), seed=st.integers(0, 1000))
def test_jitter_is_drawn_from_the_whole_bounded_span(attempt: int, seed: int) -> None:
    span_s = min(5.0, 0.05 * 2.0 ** min(attempt, 60))
    found_s = full_jitter_s(attempt, minimum_s=0.05, maximum_s=5.0, rng=random.Random(seed))
    assert 0 <= found_s <= span_s


def test_jitter_spreads() -> None:
    rng = random.Random(1)
    drawn = [full_jitter_s(10, minimum_s=0.05, maximum_s=5.0, rng=rng) for _ in range(1000)]
    assert min(drawn) < 0.1
    assert max(drawn) > 4.9
