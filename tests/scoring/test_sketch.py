import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scoring.sketch import (
    SCORE_BINS,
    TIME_BINS,
    LogBins,
    Sizes,
    added,
    chi_squared_quantile,
    ks_distance,
    ks_limit,
    psi,
    psi_limit,
)

ALPHA = 0.01
ROUNDS = 2_000

floats = hnp.arrays(np.float32, st.integers(0, 50), elements=st.floats(width=32, allow_nan=True))


@given(values=floats, bins=st.sampled_from([SCORE_BINS, TIME_BINS, LogBins(-3, 4, 3)]))
def test_a_value_is_in_the_bin_whose_edges_hold_it(
    values: np.ndarray[tuple[int], np.dtype[np.float32]], bins: LogBins
) -> None:
    known = values[~np.isnan(values)]
    expected = np.bincount(
        np.searchsorted(bins.edges, known.astype(np.float64), side="right"), minlength=len(bins)
    )
    assert bins.count(values).tolist() == expected.tolist()
    assert bins.count(values, np.full(len(values), 3)).tolist() == (3 * expected).tolist()


def test_one_is_an_edge_so_what_exceeds_is_told_exactly() -> None:
    at = SCORE_BINS.edges.tolist().index(1.0)
    just_below = np.nextafter(np.float32(1), np.float32(0))
    assert SCORE_BINS.count(np.array([just_below]))[at] == 1
    assert SCORE_BINS.count(np.array([1.0]))[at + 1] == 1


def test_quantiles_are_within_a_bin() -> None:
    values = np.random.default_rng(1).lognormal(-4, 1, 100_000)
    counts = TIME_BINS.count(values)
    for q in (0.01, 0.5, 0.99, 0.999):
        assert TIME_BINS.quantile(counts, q) == pytest.approx(np.quantile(values, q), rel=0.05)
    assert math.isnan(TIME_BINS.quantile(np.zeros(len(TIME_BINS), np.int64), 0.5))
    assert math.isnan(TIME_BINS.quantile([], 0.5))


def test_histograms_add_up_and_of_other_bins_do_not() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.random(50), rng.random(70)
    both = SCORE_BINS.count(np.concatenate((a, b)))
    assert added(SCORE_BINS.count(a), SCORE_BINS.count(b).tolist()).tolist() == both.tolist()
    assert added(both, []) is both
    with pytest.raises(ValueError, match="3 bins"):
        added(both, [1, 2, 3])


@pytest.mark.parametrize("size", [20, 100, 1_000])
@pytest.mark.parametrize("bins", [3, 22])
def test_no_change_exceeds_the_limits_as_seldom_as_they_say(size: int, bins: int) -> None:
    rng = np.random.default_rng(3)
    shares = rng.dirichlet(np.full(bins, 5.0))
    sizes = Sizes(2 * size, size)
    over = {"psi": 0, "ks": 0}
    for _ in range(ROUNDS):
        reference, current = rng.multinomial(2 * size, shares), rng.multinomial(size, shares)
        over["psi"] += psi(reference, current, sizes) > psi_limit(
            reference, current, sizes, alpha=ALPHA
        )
        over["ks"] += ks_distance(reference, current) > ks_limit(sizes, alpha=ALPHA)
    # Three standard deviations of a count with this mean, over it.
    allowed = ROUNDS * ALPHA + 3 * math.sqrt(ROUNDS * ALPHA)
    assert over["psi"] <= allowed, over
    assert over["ks"] <= allowed, over


def test_rows_of_a_vehicle_that_are_all_alike_count_as_one() -> None:
    """The worst case of clustering: 50 rows of each vehicle with the vehicle's own value."""
    rng = np.random.default_rng(4)
    over = 0
    for _ in range(ROUNDS):
        reference = np.bincount(rng.integers(0, 10, 200), minlength=10) * 50
        current = np.bincount(rng.integers(0, 10, 60), minlength=10) * 50
        sizes = Sizes(200, 60)
        over += psi(reference, current, sizes) > psi_limit(reference, current, sizes, alpha=ALPHA)
        over += ks_distance(reference, current) > ks_limit(sizes, alpha=ALPHA)
    assert over <= 2 * (ROUNDS * ALPHA + 3 * math.sqrt(ROUNDS * ALPHA)), over


def test_a_change_is_seen() -> None:
    reference = np.full(20, 500)
    current = np.roll(np.arange(20) * 50, 0)
    sizes = Sizes(500, 200)
    assert psi(reference, current, sizes) > psi_limit(reference, current, sizes, alpha=1e-3)
    assert ks_distance(reference, current) > ks_limit(sizes, alpha=1e-3)
    assert psi(reference, reference, Sizes(500, 500)) == 0


@pytest.mark.parametrize(("degrees", "exact"), [(2, 13.816), (10, 29.588), (21, 46.797)])
def test_the_quantile_of_chi_squared(degrees: int, exact: float) -> None:
    assert chi_squared_quantile(0.999, degrees) == pytest.approx(exact, rel=0.03)
