"""Parts of the spool's tests: disks that do not wait, that refuse, and that count."""

import errno
from dataclasses import dataclass, field
from pathlib import Path

from edge.spool.files import File, OsFile, OsFiles


class HastyFile:
    """A file that does not wait for the disk: for tests of what is written, not of when."""

    def __init__(self, inner: File) -> None:
        self._inner = inner

    def append(self, data: bytes) -> None:
        self._inner.append(data)

    def sync(self) -> None:
        """Believed."""

    def close(self) -> None:
        self._inner.close()


class HastyFiles(OsFiles):
    """A disk that does not wait."""

    def create(self, path: Path) -> File:  # type: ignore[override]  # any File will do
        return HastyFile(super().create(path))

    def sync_directory(self, path: Path) -> None:
        """Believed."""


@dataclass
class Moods:
    """What a disk refuses now; `calls` counts what it was asked.

    Attributes:
        refuses: Names of operations, with the errno of their refusal.
        tears: Bytes of the next refused append that are written all the same.
        calls: How often each operation was asked for.
        read_bytes: How much was read.
        until_removed: An operation that is refused until a file was removed.
    """

    refuses: dict[str, int] = field(default_factory=dict)
    tears: int = 0
    calls: dict[str, int] = field(default_factory=dict)
    read_bytes: int = 0
    until_removed: str = ""

    def ask(self, operation: str) -> None:
        self.calls[operation] = self.calls.get(operation, 0) + 1
        if operation in self.refuses:
            number = self.refuses[operation]
            raise OSError(number, errno.errorcode[number])


class MoodyFile:
    """A file of `MoodyFiles`."""

    def __init__(self, inner: OsFile, moods: Moods) -> None:
        self._inner = inner
        self._moods = moods

    def append(self, data: bytes) -> None:
        try:
            self._moods.ask("append")
        except OSError:
            self._inner.append(data[: self._moods.tears])
            raise
        self._inner.append(data)

    def sync(self) -> None:
        self._moods.ask("sync")

    def close(self) -> None:
        self._inner.close()


class MoodyFiles(OsFiles):
    """A disk that refuses what it is told to."""

    def __init__(self) -> None:
        self.moods = Moods()
        self.free = 1 << 40
        self.lost_page: tuple[Path, int] | None = None

    def make_directory(self, path: Path) -> None:
        self.moods.ask("make_directory")
        super().make_directory(path)

    def create(self, path: Path) -> File:  # type: ignore[override]  # any File will do
        self.moods.ask("create")
        return MoodyFile(super().create(path), self.moods)

    def replace(self, source: Path, target: Path) -> None:
        self.moods.ask("replace")
        super().replace(source, target)

    def remove(self, path: Path) -> None:
        self.moods.ask("remove")
        super().remove(path)
        self.moods.refuses.pop(self.moods.until_removed, None)

    def sync_directory(self, path: Path) -> None:
        self.moods.ask("sync_directory")

    def read(self, path: Path, offset: int, length: int) -> bytes:
        self.moods.ask("read")
        if self.lost_page is not None:
            lost, at = self.lost_page
            if lost == path and offset < at + 4_096 and offset + length > at:
                raise OSError(errno.EIO, "lost page")
        data = super().read(path, offset, length)
        self.moods.read_bytes += len(data)
        return data

    def free_bytes(self, directory: Path) -> int:
        return self.free
