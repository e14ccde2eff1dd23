from dataclasses import replace

from scoring_bundles import small_bundle

from scoring.bundle import Bundle
from scoring.catalog import Catalog, ModelRef
from scoring.lineup import EMPTY, NO_LANE, Lineup, bundle_key, lineup_of, shadow_of
from scoring.traffic import CHALLENGER, CHAMPION, PINNED, Arm, Experiment, Mode, Traffic

NAME = "small"
REF = ModelRef(NAME)


def release(version: str) -> Bundle:
    bundle = small_bundle()
    return Bundle(replace(bundle.manifest, name=NAME, version=version), bundle.model)


def catalog_of(*versions: str, traffic: Traffic | None = None) -> Catalog:
    catalog = Catalog()
    for version in versions:
        catalog = catalog.with_release(release(version))
    return catalog if traffic is None else catalog.with_traffic(traffic)


def experiment(*arms: Arm, mode: Mode = Mode.AB) -> Experiment:
    return Experiment("trial", mode, "salt", 1_000, arms)


def with_experiment(*arms: Arm, mode: Mode = Mode.AB) -> Traffic:
    return Traffic(NAME, 1, {CHAMPION: "1"}, experiment=experiment(*arms, mode=mode))


def seen(lineup: Lineup) -> list[tuple[str, str]]:
    return [(lane.arm, lane.bundle.manifest.version) for lane in lineup.lanes]


def test_without_traffic_the_newest_usable_release_is_the_champion() -> None:
    catalog = catalog_of("1", "2", "3")
    assert seen(lineup_of(catalog, REF)) == [(CHAMPION, "3")]
    refused = {bundle_key(release("3"))}
    assert seen(lineup_of(catalog, REF, unusable=refused)) == [(CHAMPION, "2")]
    assert lineup_of(Catalog(), REF) == EMPTY


def test_a_named_champion_is_the_champion_and_an_alias_stands_apart_from_experiments() -> None:
    traffic = with_experiment(Arm(CHAMPION, "1", 0.5), Arm("new", "2", 0.5))
    traffic = replace(traffic, aliases={CHAMPION: "1", CHALLENGER: "3"})
    catalog = catalog_of("1", "2", "3", traffic=traffic)
    assert seen(lineup_of(catalog, REF)) == [(CHAMPION, "1"), ("new", "2")]
    pinned = lineup_of(catalog, ModelRef(NAME, CHALLENGER))
    assert seen(pinned) == [(PINNED, "3")]
    assert pinned.experiment is None
    assert seen(lineup_of(catalog, ModelRef(NAME, "2"))) == [(PINNED, "2")]


def test_a_champion_that_is_gone_goes_on_where_it_runs_and_is_said() -> None:
    whole = catalog_of("1", "2", traffic=Traffic(NAME, 1, {CHAMPION: "1"}))
    running = lineup_of(whole, REF)
    gone = whole.without_release(NAME, "1")
    kept = lineup_of(gone, REF, running=running)
    assert seen(kept) == [(CHAMPION, "1")]
    assert kept.remarks == ("release 1 of small is gone; it goes on for now",)
    elsewhere = lineup_of(
        gone.with_traffic(Traffic(NAME, 2, {CHAMPION: "7"})), REF, running=running
    )
    assert seen(elsewhere) == [(CHAMPION, "1")]
    assert elsewhere.remarks == ("there is no usable release for champion 7 of small; 1 goes on",)
    fresh = lineup_of(gone, REF)
    assert fresh.lanes == ()
    assert fresh.remarks == ("there is no usable release for champion 1 of small",)


def test_an_arm_without_vehicles_has_no_lane_and_one_without_a_release_is_the_champions() -> None:
    arms = Arm(CHAMPION, "1", 0.8), Arm("none", "2", 0.0), Arm("lost", "9", 0.2)
    lineup = lineup_of(catalog_of("1", "2", traffic=with_experiment(*arms)), REF)
    assert seen(lineup) == [(CHAMPION, "1")]
    assert lineup.lane_of("lost") == 0
    assert lineup.remarks == ("arm lost: no usable release 9 of small",)


def test_a_shadow_leaves_the_champion_alone() -> None:
    arms = Arm("a", "2", 0.2), Arm("b", "9", 0.2)
    catalog = catalog_of("1", "2", traffic=with_experiment(*arms, mode=Mode.SHADOW))
    champion = lineup_of(catalog, REF)
    assert seen(champion) == [(CHAMPION, "1")]
    assert champion.experiment is None
    shadow = shadow_of(catalog, NAME, "trial")
    assert seen(shadow) == [("a", "2")]
    assert (shadow.lane_of("a"), shadow.lane_of("b")) == (0, NO_LANE)
    assert shadow_of(catalog, NAME, "another") == EMPTY


def test_routes_differ_with_weights_arms_and_runs_but_not_with_versions() -> None:
    def lineup(weight: float, version: str = "2", started_time_ms: int = 1_000) -> Lineup:
        traffic = with_experiment(Arm(CHAMPION, "1", 1 - weight), Arm("new", version, weight))
        assert traffic.experiment is not None
        trial = replace(traffic.experiment, started_time_ms=started_time_ms)
        traffic = replace(traffic, experiment=trial)
        return lineup_of(catalog_of("1", "2", "3", traffic=traffic), REF)

    assert lineup(0.1).routes_as(lineup(0.1, "3"))
    assert not lineup(0.1).routes_as(lineup(0.2))
    assert not lineup(0.1).routes_as(lineup(0.1, started_time_ms=2_000))
    assert not lineup(0.1).routes_as(lineup_of(catalog_of("1"), REF))
