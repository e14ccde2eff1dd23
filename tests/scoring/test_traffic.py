"""Traffic: each vehicle keeps its arm, weights hold, what cannot be is refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ContractError
from schemas.records import decode_confluent, encode_confluent
from scoring.traffic import (
    CHAMPION,
    PREVIOUS_MAX,
    Arm,
    Experiment,
    Guards,
    Mode,
    Splitter,
    Traffic,
    even_weights,
    hash_of,
)

FLEET = [b"vehicle-%d" % number for number in range(100_000)]


def experiment(mode: Mode = Mode.AB, salt: str = "trial-1", **weights: float) -> Experiment:
    return experiment_of(weights, mode, salt)


def experiment_of(
    weights: dict[str, float], mode: Mode = Mode.AB, salt: str = "trial-1"
) -> Experiment:
    arms = tuple(Arm(name, f"v-{name}", weight) for name, weight in weights.items())
    return Experiment("trial-1", mode, salt, 1_700_000_000_000, arms)


def names_of(splitter: Splitter, vehicles: list[bytes]) -> list[str]:
    return [splitter.arms[i].name if i >= 0 else "" for i in splitter.choose(vehicles)]


@pytest.mark.parametrize(
    "weights",
    [
        {"champion": 0.9, "canary": 0.1},
        {"champion": 0.5, "b": 0.5},
        {"champion": 0.2, "b": 0.3, "c": 0.5},
        {"champion": 1 / 3, "b": 1 / 3, "c": 1 / 3},
    ],
)
def test_a_large_fleet_splits_by_the_weights(weights: dict[str, float]) -> None:
    splitter = Splitter(experiment_of(weights))
    counts = np.bincount(splitter.choose(FLEET), minlength=len(weights))
    for arm, count in zip(splitter.arms, counts, strict=True):
        assert abs(count / len(FLEET) - arm.weight) < 0.005


def test_weight_zero_is_nobody_and_weight_one_everybody() -> None:
    split = names_of(Splitter(experiment(champion=1.0, b=0.0, c=0.0)), FLEET)
    assert set(split) == {CHAMPION}
    split = names_of(Splitter(experiment(champion=0.0, b=1.0)), FLEET)
    assert set(split) == {"b"}


def test_a_vehicle_has_the_same_arm_in_every_process() -> None:
    # Figures that any other implementation must come to, too.
    assert hash_of(b"trial-1", b"vehicle-0") == hash_of(b"trial-1", b"vehicle-0")
    assert f"{hash_of(b'trial-1', b'vehicle-0'):016x}" == "baa2c0f07ff81f99"
    one = Splitter(experiment(champion=0.8, b=0.2))
    other = Splitter(experiment(b=0.2, champion=0.8), remembered_max=10)
    assert names_of(one, FLEET[:5000]) == [names_of(other, [each])[0] for each in FLEET[:5000]]


def test_a_growing_canary_keeps_its_vehicles() -> None:
    small = names_of(Splitter(experiment(Mode.CANARY, champion=0.95, canary=0.05)), FLEET)
    grown = names_of(Splitter(experiment(Mode.CANARY, champion=0.8, canary=0.2)), FLEET)
    assert all(
        after == "canary" for before, after in zip(small, grown, strict=True) if before != CHAMPION
    )


def test_another_salt_splits_anew() -> None:
    first = np.array(names_of(Splitter(experiment(champion=0.5, b=0.5)), FLEET))
    second = np.array(names_of(Splitter(experiment(salt="trial-2", champion=0.5, b=0.5)), FLEET))
    assert abs((first == second).mean() - 0.5) < 0.01


def test_salt_and_vehicle_do_not_run_together() -> None:
    assert hash_of(b"ab", b"c") != hash_of(b"a", b"bc")


def test_a_shadow_takes_its_share_and_leaves_the_rest_alone() -> None:
    split = names_of(Splitter(experiment(Mode.SHADOW, dark=0.25)), FLEET)
    assert abs(split.count("dark") / len(FLEET) - 0.25) < 0.005
    assert split.count("") + split.count("dark") == len(FLEET)


@pytest.mark.parametrize(
    ("mode", "weights"),
    [
        (Mode.AB, {"a": 0.5, "b": 0.5}),
        (Mode.AB, {"champion": 0.5, "b": 0.4}),
        (Mode.AB, {"champion": 0.5, "b": 0.6}),
        (Mode.AB, {"champion": 1.5, "b": -0.5}),
        (Mode.AB, {"champion": float("nan"), "b": 1.0}),
        (Mode.SHADOW, {"champion": 1.0}),
        (Mode.CANARY, {}),
    ],
)
def test_arms_that_cannot_be_are_refused(mode: Mode, weights: dict[str, float]) -> None:
    with pytest.raises(ContractError):
        experiment_of(weights, mode)


@given(
    weights=st.lists(st.floats(0, 1), min_size=1, max_size=8),
    vehicles=st.lists(st.binary(min_size=1, max_size=40), max_size=50),
)
def test_every_vehicle_has_an_arm_with_weight(weights: list[float], vehicles: list[bytes]) -> None:
    total = sum(weights)
    if total == 0:
        weights, total = [1.0], 1.0
    arms = {f"a{i}": w / total for i, w in enumerate(weights)}
    arms[CHAMPION] = max(0.0, 1 - sum(arms.values()))
    splitter = Splitter(experiment_of(arms))
    chosen = splitter.choose(vehicles)
    assert all(number >= 0 and splitter.arms[number].weight > 0 for number in chosen)


def test_traffic_survives_the_wire() -> None:
    trial = replace(experiment(champion=0.5, b=0.5), guards=Guards(alert_ratio_max=2), alpha=0.01)
    traffic = Traffic("anomaly", aliases={"champion": "3"}, previous=("2", "1"), experiment=trial)
    traffic = traffic.changed(now_ms=1_700_000_000_123, by="someone", reason="a trial")
    payload = encode_confluent("ModelTraffic", 7, traffic.to_record())
    assert Traffic.from_record(decode_confluent("ModelTraffic", 7, payload)) == traffic


def test_promotion_remembers_the_way_back() -> None:
    traffic = Traffic("anomaly")
    for number in range(PREVIOUS_MAX + 4):
        traffic = traffic.promoted(str(number + 1), champion_now=str(number))
    assert traffic.champion == str(PREVIOUS_MAX + 4)
    assert traffic.previous[0] == str(PREVIOUS_MAX + 3)
    assert len(traffic.previous) == PREVIOUS_MAX
    again = traffic.promoted("19", champion_now="20")
    assert again.previous.count("20") == 1


def test_an_alias_is_set_and_taken_away() -> None:
    traffic = Traffic("anomaly").with_alias("challenger", "5")
    assert traffic.aliases == {"challenger": "5"}
    assert traffic.with_alias("challenger", None).aliases == {}
    with pytest.raises(ContractError):
        traffic.with_alias("not/plain", "5")


def test_even_weights_add_up() -> None:
    assert experiment_of(even_weights(["champion", "b", "c"])).arm("b") is not None
