"""Releases in files: one that was named, the newest of a directory, and those in a watched inbox.

Nothing of a file is executed, and no more of it is read than a bundle can have. An inbox may come
and go, as a USB stick does; a file in it is looked at once it has stopped changing.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import ContractError, Reason, SettingsError
from schemas.records import decode_single_object
from scoring.bundle import FILE_BYTES_MAX, FILE_SUFFIX, Bundle
from scoring.versions import version_key

FILES_MAX = 64
"""Files of a directory that are looked at; others are passed over."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file and what is in it.

    Attributes:
        path: Where it lies.
        content: SHA-256 of its bytes, 64 hex digits.
        found: The release, not verified; or why there is none in it.
    """

    path: Path
    content: str
    found: Bundle | ContractError


@dataclass(frozen=True, slots=True)
class _Look:
    """By what a file is known again without reading it."""

    device: int
    inode: int
    size: int
    changed_ns: int


def read_file(path: Path) -> ModelFile:
    """Read a regular file, at most as much as a bundle may have.

    Raises:
        SettingsError: It cannot be read, or is no regular file.
    """
    try:
        # Not blocking, because opening a pipe would wait for whoever writes into it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise SettingsError(f"{path} is no file")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                payload = file.read(FILE_BYTES_MAX + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error
    return ModelFile(path, hashlib.sha256(payload).hexdigest(), _release_in(payload, path))


def newest_in(directory: Path, model_name: str) -> ModelFile:
    """The file with the newest version of a model.

    Raises:
        SettingsError: There is none, or the directory cannot be read.
    """
    files = [read_file(path) for path in _paths(directory) if path.is_file()]
    versions = [
        (version_key(file.found.manifest.version), file)
        for file in files
        if isinstance(file.found, Bundle) and file.found.manifest.name == model_name
    ]
    if not versions:
        raise SettingsError(
            f"no release of {model_name} among the {len(files)} {FILE_SUFFIX} files in {directory}"
        )
    return max(versions, key=lambda version: version[0])[1]


class Inbox:
    """A directory that is looked at now and then; it may be missing.

    Args:
        directory: Where files appear.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._seen: dict[Path, _Look] = {}
        self._done: dict[Path, _Look] = {}

    def look(self) -> list[ModelFile]:
        """Files that are new since the last look and do not change any more, newest version first.

        One that went away and came back is new.
        """
        now = dict(self._looks())
        settled = [
            path
            for path, look in now.items()
            if self._seen.get(path) == look and self._done.get(path) != look
        ]
        self._seen = now
        self._done = {path: look for path, look in self._done.items() if path in now}
        files = [file for path in settled if (file := self._read(path)) is not None]
        return sorted(files, key=_order, reverse=True)

    def forget(self) -> None:
        """Take every file for new again, as when those of the last look could not be judged."""
        self._done = {}

    def _looks(self) -> Iterator[tuple[Path, _Look]]:
        try:
            paths = _paths(self._directory)
        except SettingsError:
            return  # A stick that is not plugged in is no news.
        for path in paths:
            try:
                found = path.lstat()
            except OSError:
                continue  # Gone since it was listed.
            if stat.S_ISREG(found.st_mode):
                yield path, _Look(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)

    def _read(self, path: Path) -> ModelFile | None:
        """A file; None where it cannot be read just now, so that the next look tries again."""
        try:
            file = read_file(path)
        except SettingsError:
            return None
        self._done[path] = self._seen[path]
        return file


def _paths(directory: Path) -> list[Path]:
    """What may be a bundle by its name; hidden files, as some systems leave on sticks, may not."""
    try:
        paths = sorted(directory.glob(f"[!.]*{FILE_SUFFIX}"))
        if not paths and not directory.is_dir():
            raise SettingsError(f"{directory} is no directory")
    except OSError as error:
        raise SettingsError(f"cannot read {directory}: {error.strerror}") from error
    return paths[:FILES_MAX]


def _release_in(payload: bytes, path: Path) -> Bundle | ContractError:
    if len(payload) > FILE_BYTES_MAX:
        return ContractError(Reason.OVERSIZED, f"{path.name} is larger than any bundle")
    try:
        return Bundle.unverified(decode_single_object("ModelRelease", payload))
    except ContractError as error:
        return error


def _order(file: ModelFile) -> tuple[bool, object]:
    """Files without a release come last."""
    if isinstance(file.found, Bundle):
        return True, version_key(file.found.manifest.version)
    return False, ()
