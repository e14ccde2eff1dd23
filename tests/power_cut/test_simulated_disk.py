"""The simulated disk against what each kind of file system allows, and nothing else."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from disk_faults import FaultPlan
from disk_operations import DirectoryMade, Image
from memory_files import ROOT, Kernel, MemoryFiles
from platter import FileSystem, Playback

A, B = ROOT / "a", ROOT / "b"
TRIES = 1_000

Work = Callable[[MemoryFiles], object]


def images(work: Work, kind: FileSystem, *, at: int | None = None) -> list[Image]:
    """What many power cuts leave of some work, at its end or while an operation is under way."""
    kernel = Kernel()
    work(MemoryFiles(kernel))
    platter = Playback(Image({}, {ROOT}), {}, kernel.log).during(
        len(kernel.log) if at is None else at
    )
    rng = random.Random(4)
    return [platter.crash(rng, kind) for _ in range(TRIES)]


def contents(found: list[Image], path: Path = A) -> set[bytes | None]:
    """All that a file was found to hold; None where it was not there."""
    return {image.files.get(path) for image in found}


def settled(files: MemoryFiles, path: Path = A, data: bytes = b"old") -> None:
    """A file that is on the disk, whatever happens."""
    file = files.create(path)
    file.append(data)
    file.sync()
    files.sync_directory(path.parent)


@pytest.mark.parametrize("kind", FileSystem)
def test_what_is_synced_with_its_name_is_always_there(kind: FileSystem) -> None:
    assert contents(images(settled, kind)) == {b"old"}


@pytest.mark.parametrize("kind", FileSystem)
def test_nothing_is_safe_while_its_sync_is_under_way(kind: FileSystem) -> None:
    found = contents(images(lambda files: settled(files, data=b"x" * 9), kind, at=2))
    assert {None, b""} <= found
    assert len(found) > 3


def test_a_name_without_its_directory_may_be_missing() -> None:
    def work(files: MemoryFiles) -> None:
        file = files.create(A)
        file.append(b"data")
        file.sync()

    for kind in FileSystem:
        assert contents(images(work, kind)) == {None, b"data"}


def test_unsynced_bytes_are_cut_off_anywhere_where_data_is_ordered() -> None:
    def work(files: MemoryFiles) -> None:
        settled(files)
        files_file = files.create(B)
        files_file.append(b"0123456789")
        files.sync_directory(ROOT)

    found = contents(images(work, FileSystem.ORDERED), B)
    assert found == {b"0123456789"[:length] for length in range(11)}


@pytest.mark.parametrize("kind", [FileSystem.WRITEBACK, FileSystem.UNORDERED])
def test_unsynced_bytes_may_be_anything_elsewhere_and_synced_ones_never(kind: FileSystem) -> None:
    def work(files: MemoryFiles) -> None:
        settled(files, B, b"ghost" * 40)
        files.remove(B)
        file = files.create(A)
        file.append(b"s" * 100)
        file.sync()
        files.sync_directory(ROOT)
        file.append(b"u" * 100)

    found = {content for content in contents(images(work, kind)) if content is not None}
    assert all(content[:100] == b"s" * 100 and len(content) <= 200 for content in found)
    tails = {content[100:] for content in found if len(content) == 200}
    assert any(set(tail) == {0} for tail in tails), "zeros"
    assert any(b"ghost" in tail for tail in tails), "what was there before"
    assert any(tail.startswith(b"u") and not tail.endswith(b"u") for tail in tails), "torn"
    assert any(tail.endswith(b"u") and not tail.startswith(b"u") for tail in tails), "out of order"


def test_names_change_in_order_where_there_is_a_journal() -> None:
    def work(files: MemoryFiles) -> None:
        settled(files, A)
        settled(files, B)
        files.remove(A)
        files.remove(B)

    for kind in (FileSystem.ORDERED, FileSystem.WRITEBACK):
        left = {frozenset(image.files) for image in images(work, kind)}
        assert left == {frozenset({A, B}), frozenset({B}), frozenset()}
    left = {frozenset(image.files) for image in images(work, FileSystem.UNORDERED)}
    assert len(left) == 4


@pytest.mark.parametrize("kind", FileSystem)
def test_a_replaced_file_is_the_old_one_or_the_new_one(kind: FileSystem) -> None:
    def work(files: MemoryFiles) -> None:
        settled(files, A, b"old")
        settled(files, B, b"new")
        files.replace(B, A)

    assert contents(images(work, kind)) == {b"old", b"new"}
    both = {frozenset(image.files) for image in images(work, kind)}
    assert (frozenset({A}) in both) and (frozenset({A, B}) in both)


def test_files_in_a_directory_without_a_name_are_not_there() -> None:
    kernel = Kernel()
    files = MemoryFiles(kernel)
    files.make_directory(ROOT / "deep" / "down")
    kernel.log[:] = [made for made in kernel.log if isinstance(made, DirectoryMade)]
    deep = ROOT / "deep" / "down" / "a"
    settled(files, deep)
    platter = Playback(Image({}, {ROOT}), {}, kernel.log).during(len(kernel.log))
    rng = random.Random(1)
    left = {frozenset(platter.crash(rng, FileSystem.UNORDERED).files) for _ in range(TRIES)}
    assert left == {frozenset(), frozenset({deep})}


@pytest.mark.parametrize("kind", FileSystem)
def test_after_a_failed_sync_a_second_one_means_nothing(kind: FileSystem) -> None:
    def work(files: MemoryFiles) -> None:
        settled(files, A, b"safe")
        file = files.create(B)
        files.sync_directory(ROOT)
        file.append(b"d" * 20)
        files.faults = FaultPlan(refusing=1)
        with pytest.raises(OSError, match="Input/output"):
            file.sync()
        file.sync()
        file.append(b"later")
        file.sync()

    found = [content for content in contents(images(work, kind), B) if content is not None]
    assert all(content.endswith(b"later") and len(content) == 25 for content in found)
    assert b"d" * 20 + b"later" in found
    assert any(content != b"d" * 20 + b"later" for content in found)
