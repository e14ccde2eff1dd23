"""What a program does to a disk, one operation at a time, as a recording keeps it.

Files are told apart by a number that is never given twice (`inode`), because names move. An
operation that failed is recorded with what it nevertheless did: the bytes that got through, or
the sync after which the kernel forgot what it had promised.
"""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Created:
    """A new, empty file has a name."""

    path: Path
    inode: int


@dataclass(frozen=True, slots=True)
class Appended:
    """Bytes were added in the page cache; `failed` when they were not all."""

    inode: int
    data: bytes
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Synced:
    """What a file holds is on the disk. Failed: it may never get there, whatever syncs later."""

    inode: int
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Replaced:
    """The file `inode` left one name for another, whose former file lost it."""

    source: Path
    target: Path
    inode: int


@dataclass(frozen=True, slots=True)
class Removed:
    """A file lost its name."""

    path: Path


@dataclass(frozen=True, slots=True)
class DirectoryMade:
    """A new directory has a name."""

    path: Path


@dataclass(frozen=True, slots=True)
class DirectorySynced:
    """The names in a directory are on the disk."""

    path: Path


@dataclass(frozen=True, slots=True)
class Refused:
    """An operation that failed and changed nothing; kept for whoever reads the recording."""

    what: str
    path: Path


Operation = (
    Created | Appended | Synced | Replaced | Removed | DirectoryMade | DirectorySynced | Refused
)


@dataclass(slots=True)
class Image:
    """All that a disk holds at one moment.

    Attributes:
        files: What each name leads to.
        directories: Directories that are there, the root of the disk among them.
        ghosts: What free blocks still hold: files that are gone, or never got a name.
    """

    files: dict[Path, bytes]
    directories: set[Path]
    ghosts: list[bytes] = field(default_factory=list)


def described(operation: Operation) -> str:
    """One line for a person."""
    failed = " FAILED" if getattr(operation, "failed", False) else ""
    match operation:
        case Created(path, inode):
            return f"create {path} as file {inode}"
        case Appended(inode, data):
            return f"append {len(data)} bytes to file {inode}{failed}: {data[:24].hex()}"
        case Synced(inode):
            return f"sync file {inode}{failed}"
        case Replaced(source, target, inode):
            return f"replace {target} by {source} (file {inode})"
        case Removed(path):
            return f"remove {path}"
        case DirectoryMade(path):
            return f"make directory {path}"
        case DirectorySynced(path):
            return f"sync directory {path}"
        case Refused(what, path):
            return f"{what} {path} REFUSED"
