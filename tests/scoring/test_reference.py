import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from schemas.errors import ContractError, Reason
from scoring.bundle import Bundle, Manifest
from scoring.reference import BINS, FeatureCounter, Reference, reference_of
from scoring.sketch import SCORE_BINS

SMALL = Path(__file__).parent / "data" / "small.motorcade"

columns = hnp.arrays(
    np.float32,
    st.integers(1, 200),
    elements=st.one_of(
        st.floats(-1e6, 1e6, width=32), st.sampled_from([0.0, 1.0, 2.0]), st.just(float("nan"))
    ),
)


def of(features: Any, scores: Any = (1.0,)) -> Reference:
    return reference_of(
        np.asarray(features, np.float32), np.asarray(scores, np.float32), threshold=2.0, vehicles=3
    )


def with_reference() -> Manifest:
    manifest = Bundle.load(SMALL).manifest
    rows = np.random.default_rng(1).normal(0, 1, (500, len(manifest.features)))
    return replace(manifest, reference=of(rows, np.linspace(0, 3, 500)))


@given(column=columns)
def test_the_training_data_falls_into_its_own_bins_again(column: Any) -> None:
    reference = of(column[:, None])
    again = Reference.from_object(json.loads(json.dumps(reference.to_object())))
    assert again == reference
    counter = FeatureCounter(again)
    counter.add(column[:, None])
    feature = again.features[0]
    assert tuple(counter.counts[0]) == feature.counts
    assert int(counter.absent[0]) == feature.absent == int(np.isnan(column).sum())
    assert sum(feature.counts) + feature.absent == len(column) == counter.rows
    if feature.edges:
        assert feature.counts[0] == feature.counts[-1] == 0


def test_bins_have_equal_shares_and_outliers_one_of_their_own() -> None:
    feature = of(np.random.default_rng(2).normal(size=(20_000, 1))).features[0]
    assert len(feature.counts) == BINS + 2
    assert set(feature.counts[1:-1]) == {1_000}


def test_each_of_a_few_levels_has_a_bin() -> None:
    counter = FeatureCounter(of([[0.0]] * 70 + [[1.0]] * 20 + [[5.0]] * 10))
    counter.add(np.array([[-1], [0], [0], [1], [5], [6], [np.nan]], np.float32))
    assert counter.counts[0].tolist() == [1, 2, 1, 1, 1]
    assert counter.absent.tolist() == [1]


def test_a_feature_that_was_never_there_is_all_absent() -> None:
    feature = of([[np.nan], [np.nan]]).features[0]
    assert (feature.edges, feature.counts, feature.absent) == ((), (0,), 2)


def test_scores_are_counted_by_the_threshold() -> None:
    reference = of([[1.0]], [0.5, 1.99, 2.0, 7.0, np.nan])
    above = int(np.searchsorted(SCORE_BINS.edges, 1.0)) + 1
    assert sum(reference.scores) == 4
    assert sum(reference.scores[above:]) == 2
    assert of([[1.0]], [np.nan]).score_quantiles == (0, 0, 0, 0)


def test_a_manifest_carries_it_in_format_2_and_without_it_stays_in_format_1() -> None:
    manifest = with_reference()
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert json.loads(manifest.to_json())["format"] == 2
    bare = replace(manifest, reference=None)
    assert Manifest.from_json(bare.to_json()) == bare
    assert json.loads(bare.to_json())["format"] == 1


def put(*path: Any, value: Any) -> Callable[[Any], None]:
    def change(parsed: Any) -> None:
        for key in path[:-1]:
            parsed = parsed[key]
        parsed[path[-1]] = value

    return change


def drop(*path: Any) -> Callable[[Any], None]:
    def change(parsed: Any) -> None:
        for key in path[:-1]:
            parsed = parsed[key]
        del parsed[path[-1]]

    return change


FEATURE = ("reference", "features", 0)
FAULTS = {
    "no reference in format 2": drop("reference"),
    "a reference in format 1": put("format", value=1),
    "null": put("reference", value=None),
    "a key too many": put("reference", "more", value=1),
    "a key too few": drop("reference", "scores"),
    "no vehicles": put("reference", "vehicles", value=0),
    "one feature too few": drop("reference", "features", 0),
    "edges that fall": put(*FEATURE, "edges", 0, value=1e9),
    "an edge that is no number": put(*FEATURE, "edges", 0, value="1"),
    "an edge without end": put(*FEATURE, "edges", 0, value=float("inf")),
    "an edge that is none": put(*FEATURE, "edges", 0, value=float("nan")),
    "a count below zero": put(*FEATURE, "counts", 0, value=-1),
    "half a count": put(*FEATURE, "counts", 0, value=0.5),
    "one count too few": drop(*FEATURE, "counts", 0),
    "a huge count": put(*FEATURE, "absent", value=1 << 60),
    "too many edges": put(*FEATURE, "edges", value=list(range(1_000))),
    "other bins of scores": put("reference", "scores", value=[1]),
    "a quantile too few": put("reference", "score_quantiles", value=[1.0]),
    "a quantile below zero": put("reference", "score_quantiles", 0, value=-1.0),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_it_is_read_strictly(fault: str) -> None:
    parsed = json.loads(with_reference().to_json())
    FAULTS[fault](parsed)
    with pytest.raises(ContractError) as caught:
        Manifest.from_json(json.dumps(parsed))
    assert caught.value.reason in (Reason.MODEL_INVALID, Reason.MODEL_FEATURES)
