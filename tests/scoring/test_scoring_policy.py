import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_policy import ReferencePolicy

from schemas.errors import ContractError
from scoring.manifest import PolicySettings
from scoring.policy import AlertPolicy

THRESHOLD = 10.0
VEHICLES = 4
SCORES = [0.0, 4.9, 5.1, 10.0, 10.5, math.nan]

Reading = tuple[int, bool, float]  # vehicle, whether memory begins before it, score

POLICIES = st.integers(1, 64).flatmap(
    lambda n: st.integers(1, n).flatmap(
        lambda k: st.builds(
            PolicySettings,
            k=st.just(k),
            n=st.just(n),
            close_k=st.integers(0, k - 1),
            close_ratio=st.sampled_from([0.5, 1.0]),
        )
    )
)
READINGS = st.lists(
    st.tuples(
        st.integers(0, VEHICLES - 1),
        st.integers(0, 20).map(lambda number: number == 0),
        st.sampled_from(SCORES),
    ),
    max_size=150,
)


def grouped(readings: Sequence[tuple[int, Reading]]) -> list[tuple[int, Reading]]:
    return sorted(readings, key=lambda item: item[1][0])


def by_arrays(
    settings_: PolicySettings, readings: Sequence[Reading], cuts: Sequence[int], replayed: int
) -> list[tuple[int, bool, int]]:
    policy = AlertPolicy(settings_, threshold=THRESHOLD, max_vehicles=VEHICLES)
    policy.set_open(np.array([1]), True)
    edges = sorted({0, replayed, len(readings), *(cut % (len(readings) + 1) for cut in cuts)})
    found = []
    for a, b in pairwise(edges):
        poll = grouped(list(enumerate(readings))[a:b])
        decisions = policy.update(
            np.array([reading[0] for _, reading in poll], np.int64),
            np.array([reading[1] for _, reading in poll], np.bool_),
            np.array([reading[2] for _, reading in poll], np.float32),
            np.array([1000 + i for i, _ in poll], np.int64),
            decide=a >= replayed,
        )
        found += [
            (poll[row][0], bool(opens), int(since) if opens else 0)
            for row, opens, since in zip(
                decisions.row, decisions.opens, decisions.since_ms, strict=True
            )
        ]
    return sorted(found)


def by_reference(
    settings_: PolicySettings, readings: Sequence[Reading], replayed: int
) -> list[tuple[int, bool, int]]:
    vehicles = [ReferencePolicy(settings_, THRESHOLD) for _ in range(VEHICLES)]
    vehicles[1].is_open = True
    found = []
    for i, (vehicle, begins, score) in enumerate(readings):
        policy = vehicles[vehicle]
        if begins:
            policy.begin()
        state = policy.take(np.float32(score), 1000 + i, decide=i >= replayed)
        if state is not None:
            found.append((i, state == "OPEN", policy.since_ms if state == "OPEN" else 0))
    return found


@settings(max_examples=200, deadline=None)
@given(
    policy=POLICIES,
    readings=READINGS,
    cuts=st.lists(st.integers(0, 150), max_size=8),
    replayed=st.integers(0, 30),
)
def test_arrays_equal_the_reference_however_the_stream_is_cut(
    policy: PolicySettings, readings: list[Reading], cuts: list[int], replayed: int
) -> None:
    replayed = min(replayed, len(readings))
    expected = by_reference(policy, readings, replayed)
    assert by_arrays(policy, readings, cuts, replayed) == expected


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(0, 3000), max_size=30))
def test_long_streams_equal_the_reference(seed: int, cuts: list[int]) -> None:
    random = np.random.default_rng(seed)
    n = int(random.integers(2, 65))
    k = int(random.integers(1, n + 1))
    policy = PolicySettings(k=k, n=n, close_k=int(random.integers(0, k)), close_ratio=0.5)
    phase = np.sin(np.arange(3000) / 80.0)
    readings = [
        (
            int(random.integers(VEHICLES)),
            bool(random.random() < 0.002),
            float(random.choice([1.0, 6.0, 11.0, math.nan], p=[0.45 - p, 0.05, 0.45 + p, 0.05])),
        )
        for p in phase * 0.44
    ]
    assert by_arrays(policy, readings, cuts, 0) == by_reference(policy, readings, 0)


def one_vehicle(
    policy: AlertPolicy, scores: Sequence[float], *, first_ms: int = 0
) -> list[tuple[int, bool, int]]:
    decisions = policy.update(
        np.zeros(len(scores), np.int64),
        np.zeros(len(scores), np.bool_),
        np.array(scores, np.float32),
        np.arange(len(scores), dtype=np.int64) + first_ms,
    )
    return list(
        zip(
            decisions.row.tolist(),
            decisions.opens.tolist(),
            decisions.since_ms.tolist(),
            strict=True,
        )
    )


def test_three_of_five_opens_and_one_of_five_closes() -> None:
    settings_ = PolicySettings(k=3, n=5, close_k=1, close_ratio=0.5)
    policy = AlertPolicy(settings_, threshold=10.0, max_vehicles=1)
    scores = [0, 11, 0, 11, 11, 0, 6, 0, 0, 0, 0]
    # Open at 4 with 1, 3 and 4; at 9 the window 5..9 has one score above 5.
    assert one_vehicle(policy, scores) == [(4, True, 1), (9, False, 1)]


def test_a_restored_alert_closes_only_after_a_whole_window() -> None:
    policy = AlertPolicy(PolicySettings(k=3, n=5, close_k=1), threshold=10.0, max_vehicles=1)
    policy.set_open(np.array([0]), True)
    assert one_vehicle(policy, [0.0] * 4) == []
    assert [row for row, _, _ in one_vehicle(policy, [0.0])] == [0]


def test_another_model_begins_memory_anew_and_keeps_alerts_open() -> None:
    settings_ = PolicySettings(k=2, n=4, close_k=0)
    policy = AlertPolicy(settings_, threshold=10.0, max_vehicles=1)
    assert len(one_vehicle(policy, [11, 11])) == 1
    policy.swap(settings_, 100.0)
    assert one_vehicle(policy, [11, 11, 11]) == []
    assert [(row, opens) for row, opens, _ in one_vehicle(policy, [11])] == [(0, False)]


def test_arrays_of_different_lengths_are_refused() -> None:
    policy = AlertPolicy(PolicySettings(), threshold=1.0, max_vehicles=1)
    with pytest.raises(ContractError):
        policy.update(
            np.zeros(2, np.int64),
            np.zeros(2, np.bool_),
            np.zeros(1, np.float32),
            np.zeros(2, np.int64),
        )
