from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cloud.decoding import decode_plain
from schemas.errors import ContractError
from schemas.records import encode_confluent
from scoring.bundle import Bundle
from scoring.reference import reference_of
from scoring.sketch import SCORE_BINS
from scoring.stats import SAMPLE_ROWS_PER_S, ArmCounts, ArmKey, ArmWindow, FeatureCounts, Tally

SMALL = Path(__file__).parent / "data" / "small.motorcade"
KEY = ArmKey("scorer", "s-1", "embedded", "small", "1", "champion")
NOW_MS = 1_790_000_000_000


def bundle(*, with_reference: bool = True) -> Bundle:
    made = Bundle.load(SMALL)
    rows = np.random.default_rng(1).normal(0, 1, (500, 9)).astype(np.float32)
    reference = reference_of(rows, rows[:, 0], threshold=20.0, vehicles=5)
    manifest = replace(made.manifest, reference=reference if with_reference else None)
    return replace(made, manifest=manifest)


def counted(rows: int = 300) -> ArmCounts:
    tally = Tally(bundle())
    rng = np.random.default_rng(2)
    scores = rng.lognormal(2, 1, rows).astype(np.float32)
    scores[:7] = np.nan
    tally.scores(scores)
    tally.features(rng.normal(0, 1, (rows, 9)).astype(np.float32), NOW_MS)
    tally.vehicles(np.array([5, 70, 5]))
    tally.times("ages", [0.1, 5.0], np.array([10, 3]))
    tally.times("compute", [0.002])
    tally.add(alerts_opened=2, alerts_closed=1)
    return tally.close()


def test_a_window_survives_the_wire() -> None:
    window = ArmWindow(KEY, NOW_MS - 2_000, NOW_MS, counted())
    payload = encode_confluent("ModelStats", 7, window.to_record())
    again = ArmWindow.from_record(decode_plain("ModelStats", 7, payload))
    assert (again.key, again.start_ms, again.end_ms) == (KEY, NOW_MS - 2_000, NOW_MS)
    assert again.to_record() == window.to_record()


def test_what_was_counted_is_right() -> None:
    rng = np.random.default_rng(2)
    scores = rng.lognormal(2, 1, 300).astype(np.float32)[7:]
    found = counted()
    assert (found.readings, found.unscored) == (300, 7)
    assert found.exceeding == (scores > 20).sum()
    assert found.scores.tolist() == SCORE_BINS.count(scores / np.float32(20)).tolist()
    assert (found.vehicles, found.alerts_opened, found.alerts_closed) == (2, 2, 1)
    assert (found.ages.sum(), found.compute.sum()) == (13, 1)
    assert found.sampled == 300
    assert {each.counts.sum() + each.absent for each in found.features.values()} == {300}


def test_windows_add_up_as_if_they_were_one() -> None:
    both = Tally(bundle())
    parts = []
    for seed in (1, 2):
        scores = np.random.default_rng(seed).lognormal(2, 1, 50).astype(np.float32)
        part = Tally(bundle())
        for tally in (both, part):
            tally.scores(scores)
            tally.add(errors=1)
        parts.append(part.close())
    whole, added = both.close(), parts[0].plus(parts[1])
    assert (added.readings, added.errors, added.exceeding) == (100, 2, whole.exceeding)
    assert added.scores.tolist() == whole.scores.tolist()


def test_features_of_one_side_only_are_kept() -> None:
    one = ArmCounts(features={"speed": FeatureCounts(np.array([1, 2]), 3)})
    both = one.plus(one).plus(ArmCounts()).features["speed"]
    assert (both.counts.tolist(), both.absent) == ([2, 4], 6)


def test_the_sample_is_bounded_by_time_and_the_same_again() -> None:
    def sampled() -> ArmCounts:
        tally = Tally(bundle())
        rng = np.random.default_rng(3)
        for poll in range(100):  # of 100 ms
            rows = rng.normal(0, 1, (1_000, 9)).astype(np.float32)
            tally.scores(rows[:, 0])
            tally.features(rows, NOW_MS + poll * 100)
        return tally.close()

    first, again = sampled(), sampled()
    assert first.readings == 100_000
    assert 9 * SAMPLE_ROWS_PER_S <= first.sampled <= 12 * SAMPLE_ROWS_PER_S
    assert {n: f.counts.tolist() for n, f in first.features.items()} == {
        n: f.counts.tolist() for n, f in again.features.items()
    }


def test_a_clock_that_leaps_back_samples_no_more() -> None:
    tally = Tally(bundle())
    rows = np.zeros((10_000, 9), np.float32)
    for now_ms in (NOW_MS, NOW_MS - 3_600_000, NOW_MS - 3_600_000):
        tally.features(rows, now_ms)
    assert tally.close().sampled <= 512


def test_a_model_without_reference_counts_all_but_features() -> None:
    tally = Tally(bundle(with_reference=False))
    tally.scores(np.ones(5, np.float32))
    tally.features(np.zeros((5, 9), np.float32), NOW_MS)
    counts = tally.close()
    assert (counts.readings, counts.sampled, counts.features) == (5, 0, {})


@pytest.mark.parametrize(
    "change",
    [
        {"readings": -1},
        {"score_counts": [1, 2, 3]},
        {"compute_counts": [-1] * 154},
        {"window_end": NOW_MS - 5_000},
        {"features": [{"name": "speed", "absent": 0, "counts": [-1]}]},
    ],
)
def test_a_record_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    record = ArmWindow(KEY, NOW_MS - 2_000, NOW_MS, ArmCounts()).to_record() | change
    with pytest.raises(ContractError):
        ArmWindow.from_record(record)
