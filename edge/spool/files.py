"""What the spool asks of a disk: the one door through which every file operation goes.

So a test can record them all, refuse any of them, or play back what a power cut leaves behind.
What a caller may count on is written here, and it is little:

- A file is made once, grows at its end, and is never written to again once it is closed.
- What was appended survives a power cut when `sync` has returned since; without that any part of
  it may be there or not, in any order, zeros and garbage of the right length included.
- A name survives when `sync_directory` of its directory has returned since; without that a new
  name may be missing, a removed one back, and a replaced one either the old file or the new one,
  but never a mixture.
- After an error of `append` or `sync`, nothing is known of what was appended since the last sync
  that returned, and a later sync that returns says nothing about it either.
"""

import fcntl
import os
from pathlib import Path
from typing import Protocol


class File(Protocol):
    """A file that was made and is being written; belongs to one thread."""

    def append(self, data: bytes) -> None:
        """Write all of it at the end, or raise OSError; then some of it may have been written."""

    def sync(self) -> None:
        """Return when all that was appended is on the disk (`fdatasync`); raises OSError."""

    def close(self) -> None:
        """Let go of it. Syncs nothing and does not raise."""


class Lock(Protocol):
    """A lock that is held."""

    def close(self) -> None:
        """Let another process have it."""


class Files(Protocol):
    """A disk. Every method raises OSError, with the `errno` of the system call."""

    def lock(self, path: Path) -> Lock:
        """Lock a file, which is made if need be; BlockingIOError when another process has it."""

    def make_directory(self, path: Path) -> None:
        """Make a directory and those above it, durably; nothing when it is there."""

    def names(self, directory: Path) -> list[str]:
        """What a directory holds, in any order."""

    def create(self, path: Path) -> File:
        """Make a file to write; FileExistsError when the name is taken."""

    def replace(self, source: Path, target: Path) -> None:
        """Give a file another name, in place of what had it."""

    def remove(self, path: Path) -> None:
        """Delete a file; FileNotFoundError when there is none."""

    def sync_directory(self, path: Path) -> None:
        """Return when the names in it are on the disk."""

    def size(self, path: Path) -> int:
        """Bytes of a file."""

    def read(self, path: Path, offset: int, length: int) -> bytes:
        """Bytes of a file; fewer than `length` where it ends before."""

    def free_bytes(self, directory: Path) -> int:
        """Bytes that this user may still write to the disk of a directory."""


class OsFile:
    """A file of the operating system; see `File`."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def append(self, data: bytes) -> None:
        """See `File`."""
        written = os.write(self._descriptor, data)
        while written < len(data):
            written += os.write(self._descriptor, memoryview(data)[written:])

    def sync(self) -> None:
        """See `File`."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """See `File`."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


class OsLock:
    """An exclusive `flock`; see `Lock`."""

    __slots__ = ("_descriptor",)

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._descriptor)
            raise

    def close(self) -> None:
        """See `Lock`."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


class OsFiles:
    """The disk of this machine; see `Files`."""

    def lock(self, path: Path) -> OsLock:
        """See `Files`."""
        return OsLock(path)

    def make_directory(self, path: Path) -> None:
        """See `Files`."""
        missing = [path, *path.parents]
        while missing and missing[-1].is_dir():
            missing.pop()
        for directory in reversed(missing):
            directory.mkdir(exist_ok=True)
            self.sync_directory(directory.parent)

    def names(self, directory: Path) -> list[str]:
        """See `Files`."""
        return [entry.name for entry in directory.iterdir()]

    def create(self, path: Path) -> OsFile:
        """See `Files`."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        return OsFile(os.open(path, flags, 0o644))

    def replace(self, source: Path, target: Path) -> None:
        """See `Files`."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """See `Files`."""
        path.unlink()

    def sync_directory(self, path: Path) -> None:
        """See `Files`."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def size(self, path: Path) -> int:
        """See `Files`."""
        return path.stat().st_size

    def read(self, path: Path, offset: int, length: int) -> bytes:
        """See `Files`."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _read_fully(descriptor, offset, length)
        finally:
            os.close(descriptor)

    def free_bytes(self, directory: Path) -> int:
        """See `Files`."""
        found = os.statvfs(directory)
        return found.f_bavail * found.f_frsize


def _read_fully(descriptor: int, offset: int, length: int) -> bytes:
    """A read may bring less than there is; only an empty one is the end."""
    found = os.pread(descriptor, length, offset)
    if not found or len(found) == length:
        return found
    parts = [found]
    while found:
        length -= len(found)
        offset += len(found)
        found = os.pread(descriptor, length, offset)
        parts.append(found)
    return b"".join(parts)


OS_FILES = OsFiles()
