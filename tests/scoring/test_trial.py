from dataclasses import replace

import pytest
from scoring_bundles import small_bundle

from schemas.errors import ContractError, MotorcadeError, Reason
from scoring.bundle import Bundle
from scoring.catalog import Catalog
from scoring.traffic import CHALLENGER, CHAMPION, Arm, Mode, Splitter, Traffic
from scoring.trial import Asked, Wish, reweighted, running, started, stopped, weight_of

FLEET = [b"car-%d" % number for number in range(5000)]


def catalog_of(*versions: str) -> Catalog:
    catalog, small = Catalog(), small_bundle()
    for version in versions:
        catalog = catalog.with_release(
            Bundle(replace(small.manifest, version=version), small.model)
        )
    return catalog


CATALOG = catalog_of("1", "2", "3")
TRAFFIC = Traffic("small", 4, {CHAMPION: "1", CHALLENGER: "2"})
CATALOG_NOW = CATALOG.with_traffic(TRAFFIC)


def wish(*arms: str, mode: Mode = Mode.AB, **options: object) -> Wish:
    made = Wish("trial", mode, tuple(map(Asked.parse, arms)), "salt", 1_000)
    return replace(made, **options)  # type: ignore[arg-type]


def begin(asked: Wish, traffic: Traffic = TRAFFIC) -> Traffic:
    return started(CATALOG_NOW, traffic, asked)


def arms(traffic: Traffic) -> dict[str, tuple[str, float]]:
    return {arm.name: (arm.version, round(arm.weight, 6)) for arm in running(traffic).arms}


def test_the_champion_has_the_rest_and_aliases_become_versions() -> None:
    found = begin(wish("new=challenger:10%", "other=3:0.2"))
    assert arms(found) == {CHAMPION: ("1", 0.7), "new": ("2", 0.1), "other": ("3", 0.2)}
    assert found.aliases == TRAFFIC.aliases
    assert arms(begin(wish("all=3:1"))) == {CHAMPION: ("1", 0.0), "all": ("3", 1.0)}


def test_a_shadow_has_no_champion() -> None:
    assert arms(begin(wish("new=2:0.3", mode=Mode.SHADOW))) == {"new": ("2", 0.3)}


def test_options_go_along() -> None:
    found = running(
        begin(wish("a=2:0.5", alpha=0.01, auto_promote=True, guards={"alert_ratio_max": 2.0}))
    )
    assert (found.alpha, found.auto_promote) == (0.01, True)
    assert (found.guards.alert_ratio_max, found.guards.min_alerts) == (2.0, 5)


@pytest.mark.parametrize(
    "asked",
    [
        wish(),
        wish("champion=2:0.5"),
        wish("a=2:0.7", "b=3:0.7"),
        wish("a=2:0.7", "b=3:0.7", mode=Mode.SHADOW),
        wish("a=2:0.6", mode=Mode.CANARY),
        wish("a=2:0.1", "b=3:0.1", mode=Mode.CANARY),
        wish("a=2:0.1", "a=3:0.1"),
        wish("a=2:0.1", guards={"alert_ratio": 2.0}),
        wish("a=2:0.1", alpha=1.0),
    ],
)
def test_what_cannot_be_is_refused(asked: Wish) -> None:
    with pytest.raises(ContractError) as caught:
        begin(asked)
    assert caught.value.reason is Reason.MALFORMED


@pytest.mark.parametrize("text", ["a", "a=2", "a=2:x", "a=2:-0.1", "a=2:101%", "=2:0.1", "a=2:nan"])
def test_an_arm_that_does_not_read_is_refused(text: str) -> None:
    with pytest.raises(ContractError, match="malformed"):
        Asked.parse(text)


def test_weights_are_shares_or_percentages() -> None:
    assert [weight_of(text) for text in ("0.25", "25%", "1", "100%", "2", "x%")] == [
        0.25,
        0.25,
        1.0,
        1.0,
        None,
        None,
    ]


def test_one_experiment_at_a_time() -> None:
    runs = begin(wish("new=2:0.1"))
    with pytest.raises(MotorcadeError, match="experiment trial of model small runs"):
        begin(wish("new=3:0.1"), runs)


def test_a_weight_that_grows_keeps_its_vehicles() -> None:
    before = begin(wish("new=2:0.1"))
    after = reweighted(before, {"new": 0.3})
    assert arms(after) == {CHAMPION: ("1", 0.7), "new": ("2", 0.3)}
    had, has = (Splitter(running(t)).choose(FLEET) == 0 for t in (before, after))
    assert (has[had]).all()
    assert 0.28 < has.mean() < 0.32
    with pytest.raises(MotorcadeError, match="has no arm 'old'"):
        reweighted(before, {"old": 0.3})
    with pytest.raises(ContractError, match="the rest"):
        reweighted(before, {CHAMPION: 0.3})
    with pytest.raises(ContractError, match="over 1"):
        reweighted(begin(wish("a=2:0.5", "b=3:0.5")), {"a": 0.6})
    with pytest.raises(MotorcadeError, match="no running experiment"):
        reweighted(TRAFFIC, {"new": 0.3})


def test_stopped_all_is_the_champions_again_or_the_winners() -> None:
    runs = begin(wish("new=challenger:0.5"))
    assert stopped(CATALOG_NOW, runs) == TRAFFIC
    won = stopped(CATALOG_NOW, runs, promote="new")
    assert (won.champion, won.previous, won.experiment) == ("2", ("1",), None)
    assert CHALLENGER not in won.aliases
    assert stopped(CATALOG_NOW, runs, promote=CHAMPION).champion == "1"
    with pytest.raises(MotorcadeError, match="has no arm"):
        stopped(CATALOG_NOW, runs, promote="newer")


def test_without_a_named_champion_the_newest_is_measured_against() -> None:
    found = started(CATALOG, Traffic("small"), wish("old=1:0.5"))
    assert found.experiment is not None
    assert found.experiment.arm(CHAMPION) == Arm(CHAMPION, "3", 0.5)
    with pytest.raises(ContractError, match="unknown-model"):
        started(Catalog(), Traffic("small"), wish("old=1:0.5"))
