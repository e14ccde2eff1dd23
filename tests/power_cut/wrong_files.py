"""Ways in which a spool could be wrong, each as the files that it would then work on.

A spool that leaves out a sync is a spool whose sync does nothing, and so on: what each class here
does to the operations is what a mistake in the spool would have done to them. The crash points
must find every one of them, or they prove nothing.
"""

from collections.abc import Callable
from pathlib import Path

from edge.spool.files import File, Files, Lock


class PassedFiles:
    """Files that pass everything on to others.

    Args:
        files: The others.
    """

    def __init__(self, files: Files) -> None:
        self._files = files

    def lock(self, path: Path) -> Lock:
        return self._files.lock(path)

    def make_directory(self, path: Path) -> None:
        self._files.make_directory(path)

    def names(self, directory: Path) -> list[str]:
        return self._files.names(directory)

    def create(self, path: Path) -> File:
        return self._files.create(path)

    def replace(self, source: Path, target: Path) -> None:
        self._files.replace(source, target)

    def remove(self, path: Path) -> None:
        self._files.remove(path)

    def sync_directory(self, path: Path) -> None:
        self._files.sync_directory(path)

    def size(self, path: Path) -> int:
        return self._files.size(path)

    def read(self, path: Path, offset: int, length: int) -> bytes:
        return self._files.read(path, offset, length)

    def free_bytes(self, directory: Path) -> int:
        return self._files.free_bytes(directory)


class PassedFile:
    """A file that passes everything on to another.

    Args:
        file: The other.
    """

    def __init__(self, file: File) -> None:
        self._file = file

    def append(self, data: bytes) -> None:
        self._file.append(data)

    def sync(self) -> None:
        self._file.sync()

    def close(self) -> None:
        self._file.close()


class SkipsASync(PassedFiles):
    """Leaves out every tenth sync of a file."""

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        self._syncs = 0

    def create(self, path: Path) -> File:
        return _SometimesSynced(self._files.create(path), self._is_skipped)

    def _is_skipped(self) -> bool:
        self._syncs += 1
        return self._syncs % 10 == 0


class _SometimesSynced(PassedFile):
    def __init__(self, file: File, is_skipped: Callable[[], bool]) -> None:
        super().__init__(file)
        self._is_skipped = is_skipped

    def sync(self) -> None:
        if not self._is_skipped():
            super().sync()


class AcknowledgesFirst(PassedFiles):
    """Syncs what it appended only when it appends again: after the acknowledgement."""

    def create(self, path: Path) -> File:
        return _SyncedLater(self._files.create(path))


class _SyncedLater(PassedFile):
    def __init__(self, file: File) -> None:
        super().__init__(file)
        self._due = False

    def append(self, data: bytes) -> None:
        if self._due:
            super().sync()
        self._due = False
        super().append(data)

    def sync(self) -> None:
        self._due = True


class RenamesUnsynced(PassedFiles):
    """Gives an unfinished file its final name before what it holds is synced."""

    def create(self, path: Path) -> File:
        file = self._files.create(path)
        return _Unsynced(file) if "unfinished" in path.name else file


class _Unsynced(PassedFile):
    def sync(self) -> None:
        """Nothing."""


class ForgetsDirectories(PassedFiles):
    """Never syncs a directory."""

    def sync_directory(self, path: Path) -> None:
        """Nothing."""


class BelievesASecondSync(PassedFiles):
    """Syncs again when a sync failed, and takes that for an answer."""

    def create(self, path: Path) -> File:
        return _SyncedTwice(self._files.create(path))


class _SyncedTwice(PassedFile):
    def sync(self) -> None:
        try:
            super().sync()
        except OSError:
            super().sync()


class AppendsAgain(PassedFiles):
    """Appends again, behind whatever got through, when an append failed."""

    def create(self, path: Path) -> File:
        return _AppendedTwice(self._files.create(path))


class _AppendedTwice(PassedFile):
    def append(self, data: bytes) -> None:
        try:
            super().append(data)
        except OSError:
            super().append(data)


WRONG: tuple[type[PassedFiles], ...] = (
    SkipsASync,
    AcknowledgesFirst,
    RenamesUnsynced,
    ForgetsDirectories,
    BelievesASecondSync,
    AppendsAgain,
)
