"""Files in memory as a kernel shows them, every operation on record, with faults on demand.

The `Files` that the spool works on here is the real thing in what it promises and in how it fails:
a failed append leaves some of its bytes, a failed sync leaves the bytes in the page cache and
takes back the promise. A `Kernel` outlives the programs that work on it: one that is killed leaves
its bytes in the page cache, and the next one sees them, synced or not.
"""

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path

from disk_faults import Fault, Faults, KilledError, failure, no_faults
from disk_operations import (
    Appended,
    Created,
    DirectoryMade,
    DirectorySynced,
    Image,
    Operation,
    Refused,
    Removed,
    Replaced,
    Synced,
)

ROOT = Path("/disk")
FREE_BYTES = 1 << 40


@dataclass(slots=True)
class Kernel:
    """The page cache, and the recording of what was done.

    Attributes:
        names: Number of the file under each name.
        contents: What each file holds, by its number.
        directories: Directories that are there.
        locks: Names that a program holds a lock of.
        log: Operations since the beginning.
        free_bytes: What a program is told of free space.
        inode_next: The number of the next file; never given twice.
        root: The directory that is there from the beginning.
    """

    names: dict[Path, int] = field(default_factory=dict)
    contents: dict[int, bytearray] = field(default_factory=dict)
    directories: set[Path] = field(default_factory=lambda: {ROOT})
    locks: set[Path] = field(default_factory=set)
    log: list[Operation] = field(default_factory=list)
    free_bytes: int = FREE_BYTES
    inode_next: int = 1
    root: Path = ROOT

    @classmethod
    def booted(cls, image: Image) -> "Kernel":
        """After the power came back: the cache holds what the disk holds."""
        kernel = cls(directories=set(image.directories))
        for path, content in image.files.items():
            kernel.add(path, content)
        return kernel

    def files(self, faults: Faults) -> "MemoryFiles":
        """For the next program."""
        return MemoryFiles(self, faults)

    def add(self, path: Path, content: bytes = b"") -> int:
        """Give a new file a name; its number."""
        inode, self.inode_next = self.inode_next, self.inode_next + 1
        self.names[path] = inode
        self.contents[inode] = bytearray(content)
        return inode


class MemoryFiles:
    """The `Files` of one program's life.

    Args:
        kernel: What outlives the program.
        faults: Which operations fail.
    """

    def __init__(self, kernel: Kernel, faults: Faults = no_faults) -> None:
        self.kernel = kernel
        self.faults = faults
        self.dead = False

    def kill(self) -> None:
        """The program does nothing any more, and holds no lock."""
        self.dead = True
        self.kernel.locks.clear()

    def _fault(self, verb: str, path: Path) -> Fault | None:
        if self.dead:
            raise KilledError
        fault = self.faults(verb, path)
        if fault is not None and fault.number is None:
            self.kill()
        return fault

    def _pass(self, verb: str, path: Path) -> None:
        """Raise if this operation, which has no halves, is to fail."""
        fault = self._fault(verb, path)
        if fault is not None:
            self.kernel.log.append(Refused(verb, path))
            raise failure(fault, path)

    # -- the operations of `edge.spool.files.Files`

    def lock(self, path: Path) -> "MemoryLock":
        """One program at a time; the file is made if need be."""
        self._pass("lock", path)
        if path in self.kernel.locks:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(path))
        if path not in self.kernel.names:
            self._wanted(path.parent)
            self.kernel.log.append(Created(path, self.kernel.add(path)))
        self.kernel.locks.add(path)
        return MemoryLock(self, path)

    def create(self, path: Path) -> "MemoryFile":
        """A new, empty file."""
        self._pass("create", path)
        if path in self.kernel.names:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        self._wanted(path.parent)
        inode = self.kernel.add(path)
        self.kernel.log.append(Created(path, inode))
        return MemoryFile(self, path, inode)

    def replace(self, source: Path, target: Path) -> None:
        """Rename over whatever has the new name."""
        self._pass("replace", target)
        inode = self._inode(source)
        self.kernel.names[target] = inode
        del self.kernel.names[source]
        self.kernel.log.append(Replaced(source, target, inode))

    def remove(self, path: Path) -> None:
        """Delete a file."""
        self._pass("remove", path)
        self._inode(path)
        del self.kernel.names[path]
        self.kernel.log.append(Removed(path))

    def sync_directory(self, path: Path) -> None:
        """Confirm the names in a directory."""
        self._pass("sync_directory", path)
        self._wanted(path)
        self.kernel.log.append(DirectorySynced(path))

    def make_directory(self, path: Path) -> None:
        """Make a directory and those above it, and confirm their names."""
        above = [path, *path.parents]
        for directory in reversed(above[: above.index(ROOT)]):
            if directory not in self.kernel.directories:
                self._pass("make_directory", directory)
                self.kernel.directories.add(directory)
                self.kernel.log.append(DirectoryMade(directory))
                self.sync_directory(directory.parent)

    def names(self, directory: Path) -> list[str]:
        """Names in a directory, in no order."""
        self._alive()
        self._wanted(directory)
        there = [*self.kernel.names, *self.kernel.directories]
        return [path.name for path in there if path.parent == directory]

    def size(self, path: Path) -> int:
        """Length of a file."""
        self._alive()
        return len(self.kernel.contents[self._inode(path)])

    def read(self, path: Path, offset: int, length: int) -> bytes:
        """Bytes of a file; fewer at its end."""
        self._alive()
        return bytes(self.kernel.contents[self._inode(path)][offset : offset + length])

    def free_bytes(self, _directory: Path) -> int:
        """Free space."""
        self._alive()
        return self.kernel.free_bytes

    def _alive(self) -> None:
        if self.dead:
            raise KilledError

    def _inode(self, path: Path) -> int:
        inode = self.kernel.names.get(path)
        if inode is None:
            raise missing(path)
        return inode

    def _wanted(self, directory: Path) -> None:
        if directory not in self.kernel.directories:
            raise missing(directory)


class MemoryFile:
    """The `File` that goes with `MemoryFiles`."""

    def __init__(self, files: MemoryFiles, path: Path, inode: int) -> None:
        self._files = files
        self._path = path
        self._inode = inode

    def append(self, data: bytes) -> None:
        """Add bytes; of a failed one, some may have got through."""
        kernel = self._files.kernel
        fault = self._files._fault("append", self._path)
        done = bytes(data) if fault is None else bytes(data[: int(len(data) * fault.share)])
        kernel.contents[self._inode] += done
        kernel.log.append(Appended(self._inode, done, failed=fault is not None))
        if fault is not None:
            raise failure(fault, self._path)

    def sync(self) -> None:
        """Confirm what the file holds."""
        fault = self._files._fault("sync", self._path)
        killed = fault is not None and fault.number is None
        if not killed:
            self._files.kernel.log.append(Synced(self._inode, failed=fault is not None))
        if fault is not None:
            raise failure(fault, self._path)

    def close(self) -> None:
        """Nothing is confirmed by this."""


class MemoryLock:
    """The `Lock` that goes with `MemoryFiles`."""

    def __init__(self, files: MemoryFiles, path: Path) -> None:
        self._files = files
        self._path = path

    def close(self) -> None:
        """Let another program have it; a dead one has lost it already."""
        if not self._files.dead:
            self._files.kernel.locks.discard(self._path)


def missing(path: Path) -> FileNotFoundError:
    """The error for a name that leads nowhere."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
