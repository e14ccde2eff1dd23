"""The catalog: what an alias means, and that a catalog never changes."""

from dataclasses import replace

import pytest
from scoring_bundles import small_bundle

from schemas.errors import ContractError, Reason
from scoring.bundle import Bundle
from scoring.catalog import Catalog, ModelRef
from scoring.traffic import Traffic


def release(version: str, name: str = "anomaly") -> Bundle:
    bundle = small_bundle()
    return replace(bundle, manifest=replace(bundle.manifest, name=name, version=version))


def catalog_of(*versions: str) -> Catalog:
    catalog = Catalog()
    for version in versions:
        catalog = catalog.with_release(release(version))
    return catalog


def version_of(catalog: Catalog, text: str) -> str:
    return catalog.resolve(ModelRef.parse(text)).manifest.version


def test_without_a_word_the_newest_release_is_the_champion() -> None:
    assert catalog_of("1").champion("anomaly") == "1"
    assert version_of(catalog_of("1", "2"), "anomaly") == "2"
    assert catalog_of().champion("anomaly") is None


def test_a_named_champion_stays_while_releases_come() -> None:
    catalog = catalog_of("1", "2").with_traffic(Traffic("anomaly").promoted("1", champion_now="2"))
    catalog = catalog.with_release(release("3"))
    assert version_of(catalog, "anomaly@champion") == "1"
    assert catalog.aliases_of("anomaly", "1") == ("champion",)
    assert catalog.aliases_of("anomaly", "3") == ()


def test_a_named_champion_that_is_not_there_is_nobody() -> None:
    catalog = catalog_of("1").with_traffic(Traffic("anomaly").promoted("9", champion_now=None))
    assert catalog.champion("anomaly") is None
    with pytest.raises(ContractError) as caught:
        version_of(catalog, "anomaly")
    assert caught.value.reason is Reason.UNKNOWN_MODEL


def test_an_alias_goes_before_a_version() -> None:
    catalog = catalog_of("1", "2").with_traffic(Traffic("anomaly").with_alias("challenger", "1"))
    assert version_of(catalog, "anomaly@challenger") == "1"
    assert version_of(catalog, "anomaly@1") == "1"
    assert version_of(catalog, "anomaly@2") == "2"
    assert catalog.aliases_of("anomaly", "1") == ("challenger",)


@pytest.mark.parametrize("text", ["anomaly@none", "other", "other@1"])
def test_what_is_not_there_is_said(text: str) -> None:
    with pytest.raises(ContractError, match=r"no model|no alias or version"):
        version_of(catalog_of("1"), text)


@pytest.mark.parametrize("text", ["", "@1", "anomaly@"])
def test_a_name_with_an_empty_part_is_refused(text: str) -> None:
    with pytest.raises(ContractError):
        ModelRef.parse(text)


def test_a_catalog_never_changes() -> None:
    before = catalog_of("1")
    after = before.with_release(release("2")).without_release("anomaly", "1")
    after = after.with_traffic(Traffic("anomaly")).without_traffic("anomaly")
    assert before.versions("anomaly") == ("1",)
    assert after.versions("anomaly") == ("2",)
    assert after.names() == ("anomaly",)
    assert after.without_release("anomaly", "2").names() == ()


def test_a_version_published_again_is_the_newest_as_it_is_after_compaction() -> None:
    assert catalog_of("1", "2", "1").versions("anomaly") == ("2", "1")


def test_a_second_rollback_goes_further_back() -> None:
    catalog = catalog_of("1", "2", "3", "4")
    traffic = Traffic("anomaly").promoted("2", champion_now="1")
    traffic = traffic.promoted("4", champion_now="2").promoted("3", champion_now="4")
    went = []
    while former := catalog.with_traffic(traffic).former_champions("anomaly"):
        traffic = traffic.rolled_back(former)
        went.append(traffic.champion)
    assert went == ["4", "2", "1"]


def test_a_rollback_passes_over_what_was_deleted() -> None:
    traffic = Traffic("anomaly").promoted("2", champion_now="1").promoted("3", champion_now="2")
    catalog = catalog_of("1", "3").with_traffic(traffic)
    assert catalog.former_champions("anomaly") == ("1",)


def test_where_nobody_named_a_champion_a_rollback_goes_through_the_releases() -> None:
    catalog = catalog_of("1", "2", "3")
    assert catalog.former_champions("anomaly") == ("2", "1")
    traffic = catalog.traffic("anomaly").rolled_back(("2", "1"))
    assert (traffic.champion, traffic.previous) == ("2", ("1",))
    assert catalog_of("1").former_champions("anomaly") == ()
