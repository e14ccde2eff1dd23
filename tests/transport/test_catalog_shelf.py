"""What a follower holds and what falls out, without Kafka."""

from dataclasses import replace

import pytest
from catalog_bundles import large_release, small_release
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ContractError, Reason
from schemas.topics import RELEASES
from scoring.bundle import Bundle
from scoring.traffic import Arm, Experiment, Mode, Traffic
from transport.catalog.breakages import BROKEN_MAX, Breakages
from transport.catalog.shelf import NEEDED_ONLY, Entry, Key, Limits, Shelf, wanted
from transport.release_records import BrokenRelease

MODEL_BYTES = len(small_release("m").model)


def entry(bundle: Bundle, offset: int) -> Entry:
    manifest = bundle.manifest
    key = (manifest.name, manifest.version)
    return Entry(key, offset, len(bundle.model), manifest.model_sha256, manifest.created_time_ms)


def shelf_of(limits: Limits, *versions: str, name: str = "m") -> Shelf:
    shelf = Shelf(limits)
    for offset, version in enumerate(versions):
        bundle = small_release(name, version)
        shelf.enter(entry(bundle, offset), bundle)
    return shelf


@st.composite
def shelves(draw: st.DrawFn) -> tuple[list[Entry], set[Key], Limits]:
    keys = draw(
        st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 20).map(str)), unique=True)
    )
    entries = [Entry(key, at, draw(st.integers(0, 9)), "", 0) for at, key in enumerate(keys)]
    pinned = draw(st.sets(st.sampled_from(keys))) if keys else set()
    return entries, pinned, Limits(draw(st.integers(0, 5)), draw(st.integers(0, 40)))


@given(shelves())
def test_pinned_versions_are_held_and_the_others_keep_the_limits(
    case: tuple[list[Entry], set[Key], Limits],
) -> None:
    entries, pinned, limits = case
    kept = wanted(entries, pinned, limits)
    assert pinned <= kept
    free = [each for each in entries if each.key in kept - pinned]
    for name in "ab":
        held = sum(each.key[0] == name for each in entries if each.key in kept)
        assert held <= limits.versions_max or not any(each.key[0] == name for each in free)
    held_bytes = sum(each.model_bytes for each in entries if each.key in kept)
    assert held_bytes <= limits.bytes_max or not free


def test_the_newest_is_held_while_nobody_named_a_champion() -> None:
    shelf = shelf_of(NEEDED_ONLY, "1", "2", "3")
    assert shelf.catalog().versions("m") == ("3",)
    shelf.set_traffic("m", Traffic("m").promoted("1", champion_now=None))
    assert shelf.missing() == {("m", "1")}
    shelf.hold(small_release("m", "1"))
    assert shelf.catalog().versions("m") == ("1",)


def test_aliases_and_arms_stay_beyond_every_limit() -> None:
    shelf = shelf_of(Limits(1, 10 * MODEL_BYTES), *"123456")
    trial = Experiment("e", Mode.AB, "s", 0, (Arm("champion", "2", 0.5), Arm("b", "3", 0.5)))
    traffic = Traffic("m", aliases={"champion": "2", "challenger": "1"}, experiment=trial)
    shelf.set_traffic("m", traffic)
    for version in "123":
        shelf.hold(small_release("m", version))
    assert shelf.catalog().versions("m") == ("1", "2", "3")


def test_bytes_are_counted_over_all_models() -> None:
    shelf = shelf_of(Limits(9, 3 * MODEL_BYTES), "1", "2", "3")
    other = small_release("other", "1")
    shelf.enter(entry(other, 9), other)
    catalog = shelf.catalog()
    assert catalog.versions("m") == ("2", "3")
    assert catalog.versions("other") == ("1",)


def test_a_loaded_version_stands_where_the_log_has_it() -> None:
    shelf = Shelf(Limits())
    large = large_release("m", "1", size_bytes=2_000_000)
    shelf.enter(replace(entry(large, 0), model_bytes=0), None)
    shelf.enter(entry(small_release("m", "2"), 1), small_release("m", "2"))
    assert shelf.catalog().versions("m") == ("2",)
    shelf.hold(large)
    assert shelf.catalog().versions("m") == ("1", "2")
    assert shelf.entry(("m", "1")).model_bytes == 2_000_000
    shelf.remove(("m", "1"))
    shelf.remove(("m", "9"))
    assert shelf.catalog().versions("m") == ("2",)


def refused(offset: int, key: bytes = b"m/1") -> BrokenRelease:
    error = ContractError(Reason.MALFORMED, "no release")
    return BrokenRelease(error, offset, key, (), b"")


def test_what_is_broken_is_told_once() -> None:
    breakages = Breakages()
    breakages.add(refused(1))
    assert [each.offset for each in breakages.take()] == [1]
    breakages.add(refused(1))
    assert breakages.take() == []
    breakages.replaced(RELEASES.name, b"m/1", 2)
    breakages.add(refused(2))
    assert [each.offset for each in breakages.take()] == [2]


def test_what_was_told_is_not_told_when_the_log_is_read_again() -> None:
    breakages = Breakages()
    for _ in range(2):
        breakages.replaced(RELEASES.name, b"m/1", 0)
        breakages.replaced(RELEASES.name, b"m/1", 1)
        breakages.add(refused(1))
        told = breakages.take()
    assert told == []


@pytest.mark.parametrize("later", ["replaced", "dropped"])
def test_what_was_replaced_before_it_was_told_is_history(later: str) -> None:
    breakages = Breakages()
    breakages.add(refused(1))
    if later == "replaced":
        breakages.replaced(RELEASES.name, b"m/1", 2)
    else:
        breakages.drop(RELEASES.name, b"m/1")
    assert breakages.take() == []


def test_what_waits_to_be_told_is_bounded() -> None:
    breakages = Breakages()
    for number in range(BROKEN_MAX + 5):
        breakages.add(refused(number, b"m/%d" % number))
    assert [each.offset for each in breakages.take()] == list(range(5, BROKEN_MAX + 5))
