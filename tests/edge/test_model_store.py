"""The models on the disk: whole after a cut at any step, locked, bounded, and read from before."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from edge_parts import bundle

from edge.model_index import JUDGED_MAX, REFUSED_MAX, Index, Kept, Pin, Refusal
from edge.models import INDEX, ModelStore, kept_of
from schemas.errors import ContractError, SettingsError, TransientError


def kept(version: str, *, name: str = "anomaly") -> Kept:
    return Kept(name, version, version.rjust(64, "0"), "", "", "", 1)


def refusal(version: str) -> Refusal:
    return Refusal(version, version.rjust(64, "0"), "model-trial", "bad", "", "a file", 2)


def versions(index: Index) -> tuple[str | None, str | None]:
    return (
        index.current.version if index.current else None,
        index.previous.version if index.previous else None,
    )


class Cut(BaseException):
    """The power went."""


@contextmanager
def power_until(calls: int) -> Iterator[list[str]]:
    """Lets so many changes of the disk through; the next one is a cut, before or half done."""
    done: list[str] = []

    def limited(name: str, change: Any) -> Any:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            if len(done) >= calls:
                raise Cut
            done.append(name)
            return change(*arguments, **options)

        return wrapped

    with pytest.MonkeyPatch.context() as patch:
        for name in ("replace", "unlink"):
            patch.setattr(Path, name, limited(name, getattr(Path, name)))
        patch.setattr(os, "fsync", limited("fsync", os.fsync))
        yield done


@pytest.mark.parametrize("begun_with", [0, 1, 2])
def test_a_cut_at_any_step_leaves_a_whole_model(tmp_path: Path, begun_with: int) -> None:
    cuts, calls = 0, 0
    while True:
        directory = tmp_path / str(calls)
        for version in range(1, begun_with + 1):
            ModelStore(directory).install(bundle(str(version)))
        store = ModelStore(directory)
        try:
            with power_until(calls):
                store.install(bundle("new"))
        except Cut:
            cuts += 1
        else:
            break
        finally:
            store.close()
        with ModelStore(directory) as after:
            found, refused = after.load()
            allowed = [bundle(str(begun_with))] if begun_with else [None]
            assert found in [*allowed, bundle("new")], calls
            assert refused == []
            named = {
                after.path_of(each) for each in (after.index.current, after.index.previous) if each
            }
            assert set(directory.glob("*.motorcade")) == named
        calls += 1
    assert cuts > 8


def test_models_are_kept_with_their_predecessor(tmp_path: Path) -> None:
    for version in ("1", "2", "3", "3"):
        ModelStore(tmp_path).install(bundle(version))
    with ModelStore(tmp_path) as store:
        assert versions(store.index) == ("3", "2")
        assert store.load() == (bundle("3"), [])
        assert store.index.current is not None
        store.path_of(store.index.current).write_bytes(b"rubbish")
        found, refused = store.load()
        assert found == bundle("2")
        assert refused[0].path.read_bytes() == b"rubbish"
        assert store.index.current is not None
        store.path_of(store.index.current).unlink()
        found, refused = store.load()
        assert found is None and "is gone" in refused[0].error.detail
        assert store.load() == (None, [])


def test_one_process_at_a_time_changes_them_and_any_may_look(tmp_path: Path) -> None:
    with ModelStore(tmp_path) as store:
        store.install(bundle("1"))
        with pytest.raises(SettingsError, match="in use by another"):
            ModelStore(tmp_path).open()
        assert versions(ModelStore(tmp_path).peek()) == ("1", None)
    ModelStore(tmp_path).install(bundle("2"))


def test_models_of_an_earlier_release_of_the_program_are_taken_over(tmp_path: Path) -> None:
    for number, (name, version) in enumerate({"previous": "1", "current": "2"}.items()):
        path = tmp_path / f"{name}.motorcade"
        bundle(version).save(path)
        os.utime(path, (number, number))
    with ModelStore(tmp_path) as store:
        assert versions(store.index) == ("2", "1")
        assert store.load() == (bundle("2"), [])


def test_a_damaged_index_is_moved_aside_and_the_newest_sound_model_used(tmp_path: Path) -> None:
    for version in ("1", "2"):
        ModelStore(tmp_path).install(bundle(version))
    (tmp_path / INDEX).write_text('{"format": 1')
    with pytest.raises(ContractError):
        ModelStore(tmp_path).peek()
    store = ModelStore(tmp_path)
    [refused] = store.open()
    assert refused.path.name == f"{INDEX}.refused"
    assert store.load()[0] in (bundle("1"), bundle("2"))
    store.close()


def test_a_disk_that_refuses_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ModelStore(tmp_path) as store:
        store.install(bundle("1"))

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(TransientError, match="No space"):
                store.install(bundle("2"))
        assert versions(store.index) == ("1", None)
        store.install(bundle("2"))
        assert versions(store.index) == ("2", "1")


def test_an_index_survives_its_file_and_forgets_what_is_old() -> None:
    index = Index().swapped(kept("1")).swapped(kept("2")).trying(kept("3"))
    for number in range(REFUSED_MAX + 5):
        index = index.refusing(refusal(str(100 + number)))
    for number in range(JUDGED_MAX + 5):
        index = index.judging(str(number))
    index = index.seeing(Pin("c", 4)).pinned()
    assert Index.from_json(index.to_json()) == index
    assert len(index.refused) == REFUSED_MAX and len(index.judged) == JUDGED_MAX
    assert index.refusal_of(refusal("100").release) is None
    for text in ("", "[]", "{}", '{"format": 2}', index.to_json().replace('"pin"', '"pan"')):
        with pytest.raises(ContractError):
            Index.from_json(text)


def test_steps_between_models() -> None:
    index = Index().swapped(kept("1")).swapped(kept("2"))
    back = index.retreated(refusal("2"), told="2 is given up")
    assert versions(back) == ("1", None)
    assert back.refusal_of(kept("2").release) and back.rolled_back == "2 is given up"
    assert versions(back.retreated(refusal("1"), told="")) == (None, None)
    assert versions(back.swapped(kept("2"))) == ("2", "1")
    assert back.swapped(kept("2")).refusal_of(kept("2").release) is None
    assert versions(index.turned_back(now_ms=3)) == ("1", "2")
    assert versions(index.swapped(kept("9", name="other"))) == ("9", None)
    assert versions(index.refusing(refusal("1"))) == ("2", None)


def test_trials_that_ended_with_the_gateway_are_counted() -> None:
    index = Index().trying(kept("1")).trying(kept("1"))
    assert index.staged is not None and index.staged.attempts == 2
    other = index.trying(kept("2")).staged
    assert other is not None and other.attempts == 1
    assert index.refusing(refusal("1")).staged is None


def test_a_pin_holds_until_the_fleet_decides_anew() -> None:
    pinned = Index().seeing(Pin("a", 3)).turned_back(now_ms=1)
    assert pinned.pin == Pin("a", 3)
    assert pinned.seeing(Pin("a", 3)).pin is not None
    assert pinned.seeing(Pin("a", 4)).pin is None
    assert pinned.seeing(Pin("b", 3)).pin is None
    unknown = Index().turned_back(now_ms=1)
    assert unknown.seeing(Pin("a", 3)).pin == Pin()


def test_what_the_index_says_of_a_release() -> None:
    one = bundle("1")
    found = kept_of(one, signer="not signed", source="a file", now_ms=5)
    assert found == replace(found, release=one.release_sha256, version="1", since_ms=5)
