"""The repository of the model server: what is visible, when, and to whom."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from serving_models import catalog_of, release, rows, unusable

from cloud.serving.repository import ModelRepository, Unusable
from cloud.serving.wanted import NO_ROOM, UNLOADED, State
from schemas.errors import ContractError, Reason
from scoring.catalog import Catalog
from scoring.scorer import BatchScorer
from scoring.traffic import CHAMPION, PINNED, Arm, Experiment, Mode, Traffic

VEHICLES = [f"car-{i}".encode() for i in range(2000)]


def repository_of(catalog: Catalog, *, versions_max: int = 16) -> ModelRepository:
    repository = ModelRepository(versions_max=versions_max)
    assert repository.update(catalog) == []
    return repository


def version_of(repository: ModelRepository, selector: str = CHAMPION) -> str:
    return repository.view().pinned("anomaly", selector).bundle.manifest.version


def experiment(mode: Mode, *arms: Arm) -> Traffic:
    trial = Experiment("trial", mode, "salt", 0, arms)
    return Traffic("anomaly", experiment=trial).promoted("1", champion_now=None)


def test_the_newest_release_answers_until_a_champion_is_named() -> None:
    repository = repository_of(catalog_of(release("1")))
    view = repository.view()
    assert view.pinned("anomaly", CHAMPION).bundle.manifest.version == "1"
    catalog = catalog_of(release("1"), release("2"))
    repository.update(catalog)
    assert view.pinned("anomaly", CHAMPION).bundle.manifest.version == "2"
    repository.update(catalog.with_traffic(Traffic("anomaly").promoted("1", champion_now="2")))
    assert view.pinned("anomaly", CHAMPION).bundle.manifest.version == "1"


def test_what_answers_has_the_bits_of_the_scorer() -> None:
    view = repository_of(catalog_of(release("1"), release("2"))).view()
    features = rows(700)
    for version in ("1", "2"):
        served = view.pinned("anomaly", version)
        assert served.arm == PINNED
        expected = BatchScorer(release(version)).score(features)
        np.testing.assert_array_equal(served.scorer.score(features), expected)


def test_views_share_no_scorer() -> None:
    repository = repository_of(catalog_of(release("1")))
    one, other = repository.view(), repository.view()
    repository.update(catalog_of(release("1"), release("2")))
    for version in ("1", "2"):
        assert one.pinned("anomaly", version).scorer is not other.pinned("anomaly", version).scorer


def test_a_swap_keeps_the_scorers_of_versions_that_stay() -> None:
    repository = repository_of(catalog_of(release("1")))
    view = repository.view()
    before = view.pinned("anomaly", "1").scorer
    repository.update(catalog_of(release("1"), release("2")))
    assert view.pinned("anomaly", "1").scorer is before


def test_a_version_published_again_with_another_manifest_is_loaded_again() -> None:
    repository = repository_of(catalog_of(release("1")))
    view = repository.view()
    again = replace(release("1"), manifest=replace(release("1").manifest, threshold=99.0))
    repository.update(catalog_of(again))
    assert view.pinned("anomaly", "1").bundle.manifest.threshold == 99.0


@pytest.mark.parametrize("selector", ["3", "challenger", "sm\N{LATIN SMALL LETTER O}ke", ""])
def test_what_is_not_there_is_refused(selector: str) -> None:
    view = repository_of(catalog_of(release("1"))).view()
    for name in ("anomaly", "other", "", "no plain name"):
        with pytest.raises(ContractError) as caught:
            view.pinned(name, selector if name == "anomaly" else "1")
        assert caught.value.reason is Reason.UNKNOWN_MODEL
    with pytest.raises(ContractError):
        view.routed("other", [b"car"])


def test_an_unusable_release_is_told_once_and_the_one_before_goes_on() -> None:
    repository = repository_of(catalog_of(release("1")))
    catalog = catalog_of(release("1"), unusable("2"))
    (told,) = repository.update(catalog)
    assert isinstance(told, Unusable)
    assert (told.bundle.manifest.version, told.error.reason) == ("2", Reason.MODEL_FEATURES)
    assert repository.update(catalog) == []
    assert version_of(repository) == "1"
    states = {entry.version: entry for entry in repository.index()}
    assert states["1"].state is State.READY
    assert states["2"].state is State.UNAVAILABLE
    assert "features" in states["2"].reason
    with pytest.raises(ContractError, match="features"):
        repository.load("anomaly", "2")


def test_a_named_champion_that_cannot_be_used_leaves_the_former_one() -> None:
    catalog = catalog_of(release("1"), release("2"), unusable("3"))
    traffic = Traffic("anomaly").promoted("1", champion_now=None).promoted("3", champion_now="1")
    repository = ModelRepository()
    repository.update(catalog.with_traffic(traffic))
    assert version_of(repository) == "1"
    repository.update(catalog.with_traffic(traffic).with_release(release("3")))
    assert version_of(repository) == "3"


def test_a_record_that_cannot_be_read_stands_in_the_index() -> None:
    repository = repository_of(catalog_of(release("1")))
    for number in range(200):
        repository.report_broken("anomaly", f"x{number}", ContractError(Reason.NOT_AVRO, "no"))
    broken = [entry for entry in repository.index() if entry.state is State.UNAVAILABLE]
    assert len(broken) == 64
    assert broken[-1].version == "x199"


def test_an_experiment_splits_the_vehicles_by_weight() -> None:
    catalog = catalog_of(release("1"), release("2"))
    traffic = experiment(Mode.CANARY, Arm(CHAMPION, "1", 0.75), Arm("canary", "2", 0.25))
    repository = repository_of(catalog.with_traffic(traffic))
    served = repository.view().routed("anomaly", VEHICLES)
    versions = {s.arm: s.bundle.manifest.version for s in served}
    assert versions == {CHAMPION: "1", "canary": "2"}
    assert 400 < sum(s.arm == "canary" for s in served) < 600
    again = repository.view().routed("anomaly", VEHICLES)
    assert [s.arm for s in again] == [s.arm for s in served]
    assert repository.view().routed("anomaly", [b""])[0].arm == CHAMPION


def test_a_shadow_answers_nobody() -> None:
    catalog = catalog_of(release("1"), release("2"))
    traffic = experiment(Mode.SHADOW, Arm("shadow", "2", 1.0))
    served = repository_of(catalog.with_traffic(traffic)).view().routed("anomaly", VEHICLES)
    assert {s.arm for s in served} == {CHAMPION}


def test_an_arm_that_cannot_be_used_is_the_champions() -> None:
    catalog = catalog_of(release("1"), unusable("2"))
    traffic = experiment(Mode.AB, Arm(CHAMPION, "1", 0.5), Arm("new", "2", 0.5))
    repository = ModelRepository()
    repository.update(catalog.with_traffic(traffic))
    served = repository.view().routed("anomaly", VEHICLES)
    assert {(s.arm, s.bundle.manifest.version) for s in served} == {(CHAMPION, "1")}


def test_an_unloaded_version_is_hidden_until_it_is_loaded_again() -> None:
    repository = repository_of(catalog_of(release("1"), release("2")))
    view = repository.view()
    repository.unload("anomaly", "2")
    for selector in ("2", CHAMPION):
        with pytest.raises(ContractError):
            view.pinned("anomaly", selector)
    assert view.pinned("anomaly", "1").bundle.manifest.version == "1"
    assert {e.version: e.reason for e in repository.index()} == {"1": "", "2": UNLOADED}
    repository.load("anomaly", "2")
    assert view.pinned("anomaly", CHAMPION).bundle.manifest.version == "2"


def test_an_unloaded_model_stays_away_with_what_comes_later() -> None:
    repository = repository_of(catalog_of(release("1")))
    repository.unload("anomaly")
    repository.update(catalog_of(release("1"), release("2")))
    assert repository.catalog().names() == ()
    repository.load("anomaly")
    assert version_of(repository) == "2"
    for act in (repository.load, repository.unload):
        with pytest.raises(ContractError) as caught:
            act("other", None)
        assert caught.value.reason is Reason.UNKNOWN_MODEL


def test_so_many_versions_are_held_and_those_that_are_referred_to() -> None:
    bundles = [release(str(i), created_s=i) for i in range(1, 9)]
    traffic = Traffic("anomaly").promoted("1", champion_now=None).with_alias("old", "2")
    repository = repository_of(catalog_of(*bundles).with_traffic(traffic), versions_max=4)
    assert set(repository.catalog().versions("anomaly")) == {"1", "2", "7", "8"}
    assert {e.reason for e in repository.index() if e.version in "3456"} == {NO_ROOM}
    repository.load("anomaly", "3")
    assert set(repository.catalog().versions("anomaly")) == {"1", "2", "3", "8"}


def test_a_request_under_way_keeps_its_version_through_swaps() -> None:
    """One thread scores while another swaps; every answer is one of a whole version."""
    repository = repository_of(catalog_of(release("1")))
    features = rows(64)
    expected = {str(v): BatchScorer(release(str(v))).score(features) for v in range(1, 6)}
    seen: set[str] = set()
    wrong: list[str] = []
    stop = threading.Event()

    def score() -> None:
        view = repository.view()
        while not stop.is_set() or "5" not in seen:
            served = view.pinned("anomaly", CHAMPION)
            version = served.bundle.manifest.version
            seen.add(version)
            if not np.array_equal(served.scorer.score(features), expected[version], equal_nan=True):
                wrong.append(version)

    threads = [threading.Thread(target=score) for _ in range(2)]
    for thread in threads:
        thread.start()
    catalog = catalog_of(release("1"))
    for version in range(2, 6):
        catalog = catalog.with_release(release(str(version)))
        repository.update(catalog)
    stop.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not wrong
    assert "5" in seen
