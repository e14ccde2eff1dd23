"""The simulated disk: what a power cut may leave of operations that nothing has confirmed yet.

What a sync confirmed is there, whole. Of the rest a lottery decides, with a generator that the
caller seeds, under the rules of one of three kinds of file system:

`ORDERED`: ext4 with data=ordered, and f2fs. The journal keeps the order of names: a prefix of the
    unconfirmed creations, renames and removals has happened. A file is as long as what was
    written of it: bytes may be missing at its end, from any byte on, in each file for itself.
`WRITEBACK`: ext4 with data=writeback. Names as above; but a file may have its new length before
    its new bytes. Sectors that were not written hold zeros, ones, noise, or what was in them
    before: pieces of files that are gone.
`UNORDERED`: what POSIX leaves open, and vfat. Bytes as with `WRITEBACK`, and any of the
    unconfirmed changes of names may have happened without those before it; a rename may leave
    the file under both names.

Nothing confirms names but the sync of their directory: that ext4 makes a new file's name safe with
the file's own sync is not relied upon. After a failed sync the sectors that it should have
written are there or not, for ever, even when a later sync of that file succeeds.

Not modelled: a disk that says yes to a sync and has not written, and sectors that die later.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

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

SECTORS_BYTES = (16, 64, 512, 4096)
"""Grain in which unwritten data is missing. The small ones are harsher than any disk, and find
more in small files."""

GHOSTS_MAX = 64
"""Files that are gone, kept as what unwritten sectors may show; the oldest is forgotten."""


class FileSystem(Enum):
    """Whose rules decide."""

    ORDERED = "ordered"
    WRITEBACK = "writeback"
    UNORDERED = "unordered"


@dataclass(slots=True)
class _Inode:
    """A file on its way to the disk.

    Attributes:
        data: What the page cache shows.
        certain: Its length is confirmed at least to here, and its bytes but for `doubtful`.
        doubtful: Stretches that a failed sync left to chance, for ever.
        seams: Where appends began or ended, since the last sync.
    """

    data: bytearray = field(default_factory=bytearray)
    certain: int = 0
    doubtful: list[tuple[int, int]] = field(default_factory=list)
    seams: list[int] = field(default_factory=list)

    def confirm(self) -> None:
        self.certain = len(self.data)
        self.seams.clear()

    def forsake(self) -> None:
        """A sync failed: what it should have confirmed is left to chance."""
        begin = max([self.certain, *(end for _, end in self.doubtful)])
        if begin < len(self.data):
            self.doubtful.append((begin, len(self.data)))


_NameChange = Created | Replaced | Removed | DirectoryMade


class Platter:
    """Follows the operations of a recording; `crash` says what a power cut leaves now.

    Args:
        image: What is on the disk, confirmed, when the recording begins.
        inodes: Number of the file under each name of `image`.
    """

    def __init__(self, image: Image, inodes: dict[Path, int]) -> None:
        self._inodes = {
            inode: _Inode(bytearray(image.files[path]), len(image.files[path]))
            for path, inode in inodes.items()
        }
        self._names: dict[Path, int] = dict(inodes)
        self._shown: dict[Path, int] = dict(inodes)
        self._directories = set(image.directories)
        self._root = min(image.directories, key=lambda path: len(path.parts))
        self._changes: list[_NameChange] = []
        self._ghosts = list(image.ghosts)

    def begin(self, operation: Operation) -> None:
        """An operation is under way: what it does may be on the disk, and nothing confirms it."""
        match operation:
            case Appended(inode, data):
                file = self._inodes[inode]
                file.seams.append(len(file.data))
                file.data += data
                file.seams.append(len(file.data))
            case Created(path, inode):
                self._inodes[inode] = _Inode()
                self._shown[path] = inode
                self._changes.append(operation)
            case Replaced(source, target, inode):
                self._let_go(self._shown.get(target))
                del self._shown[source]
                self._shown[target] = inode
                self._changes.append(operation)
            case Removed(path):
                self._let_go(self._shown.pop(path))
                self._changes.append(operation)
            case DirectoryMade():
                self._changes.append(operation)
            case Synced() | DirectorySynced() | Refused():
                pass

    def finish(self, operation: Operation) -> None:
        """The operation has returned to the program."""
        match operation:
            case Synced(inode, failed):
                (_Inode.forsake if failed else _Inode.confirm)(self._inodes[inode])
            case DirectorySynced(path):
                self._confirm_names(path)
            case _:
                pass

    def _let_go(self, inode: int | None) -> None:
        if inode is not None:
            self._ghosts.append(bytes(self._inodes[inode].data))
            del self._ghosts[:-GHOSTS_MAX]

    def _confirm_names(self, directory: Path) -> None:
        confirmed = [change for change in self._changes if _directory_of(change) == directory]
        self._changes = [change for change in self._changes if _directory_of(change) != directory]
        for change in confirmed:
            _change_names(self._names, self._directories, change, both_names=False)

    # -- what a power cut leaves

    def crash(self, rng: random.Random, kind: FileSystem) -> Image:
        """One of the states in which the disk may be found after a power cut now."""
        names, directories = dict(self._names), set(self._directories)
        for change, both_names in self._fated_changes(rng, kind):
            _change_names(names, directories, change, both_names=both_names)
        nameless = self._inodes.keys() - names.values()
        reachable = {path for path in directories if self._is_reachable(path, directories)}
        return Image(
            {
                path: self._content(self._inodes[inode], rng, kind)
                for path, inode in names.items()
                if path.parent in reachable
            },
            reachable,
            [*self._ghosts, *(bytes(self._inodes[inode].data) for inode in nameless)][-GHOSTS_MAX:],
        )

    def _is_reachable(self, path: Path, directories: set[Path]) -> bool:
        between = path.parents[: len(path.parts) - len(self._root.parts)]
        return directories.issuperset(between)

    def _fated_changes(
        self, rng: random.Random, kind: FileSystem
    ) -> Iterator[tuple[_NameChange, bool]]:
        if kind is FileSystem.UNORDERED:
            share = rng.choice((0.0, 0.3, 0.5, 0.8, 1.0))
            for change in self._changes:
                if rng.random() < share:
                    yield change, rng.random() < 0.3
        else:
            for change in self._changes[: rng.randint(0, len(self._changes))]:
                yield change, False

    def _content(self, file: _Inode, rng: random.Random, kind: FileSystem) -> bytes:
        if file.certain == len(file.data) and not file.doubtful:
            return bytes(file.data)
        filler = self._filler(rng)
        content = bytearray(file.data[: _fated_length(file, rng)])
        for begin, end in file.doubtful:
            _lose_sectors(content, begin, end, rng, filler)
        if kind is not FileSystem.ORDERED:
            _lose_sectors(content, file.certain, len(content), rng, filler)
        return bytes(content)

    def _filler(self, rng: random.Random) -> Callable[[int, int], bytes]:
        """What stands where nothing was written: (begin, end) to bytes."""
        ghosts = [ghost for ghost in self._ghosts if ghost]
        choice = rng.choice(("zeros", "ones", "noise", "ghost", "ghost"))
        if choice == "ghost" and ghosts:
            # A freed file's blocks keep their order, and often their distance from a boundary.
            ghost = rng.choice(ghosts)
            shift = rng.choice((0, 0, 16, 64, 512, 4096, len(ghost) // 2))
            return lambda begin, end: _piece(ghost, begin + shift, end + shift)
        if choice == "noise":
            return lambda begin, end: rng.randbytes(end - begin)
        return lambda begin, end: (b"\xff" if choice == "ones" else b"\0") * (end - begin)


def _piece(ghost: bytes, begin: int, end: int) -> bytes:
    """A stretch of a file that is gone, and zeros behind its end."""
    return ghost[begin:end].ljust(end - begin, b"\0")


def _directory_of(change: _NameChange) -> Path:
    return (change.target if isinstance(change, Replaced) else change.path).parent


def _change_names(
    names: dict[Path, int], directories: set[Path], change: _NameChange, *, both_names: bool
) -> None:
    match change:
        case Created(path, inode):
            names[path] = inode
        case Replaced(source, target, inode):
            names[target] = inode
            if not both_names:
                names.pop(source, None)
        case Removed(path):
            names.pop(path, None)
        case DirectoryMade(path):
            directories.add(path)


def _fated_length(file: _Inode, rng: random.Random) -> int:
    """How long the file is found: from what is confirmed to all of it."""
    seams = [seam for seam in file.seams if seam > file.certain]
    match rng.choice(("all", "none", "any", "any", "seam")):
        case "all":
            return len(file.data)
        case "none":
            return file.certain
        case "seam" if seams:
            near = rng.choice(seams) + rng.choice((-1, 0, 1))
            return min(max(near, file.certain), len(file.data))
        case _:
            return rng.randint(file.certain, len(file.data))


def _lose_sectors(
    content: bytearray,
    begin: int,
    end: int,
    rng: random.Random,
    filler: Callable[[int, int], bytes],
) -> None:
    """Let some sectors of a stretch hold what was there before; the stretch's first may be torn."""
    end = min(end, len(content))
    share = rng.choice((0.0, 0.2, 0.5, 0.9, 1.0))
    sector = rng.choice(SECTORS_BYTES)
    at = begin
    while at < end:
        after = min(at // sector * sector + sector, end)
        if rng.random() < share:
            first = rng.randint(at, after - 1) if rng.random() < 0.2 else at
            content[first:after] = filler(first, after)
        at = after


class Playback:
    """A platter at any operation of a recording. Cheap while the operations asked for rise.

    Args:
        image: What was on the disk before.
        inodes: Number of the file under each name of it.
        log: The operations; complete before the first question.
    """

    def __init__(self, image: Image, inodes: dict[Path, int], log: Sequence[Operation]) -> None:
        self._image = image
        self._inodes = inodes
        self._log = log
        self._platter: Platter | None = None
        self._at = 0

    def _restarted(self) -> Platter:
        self._at = 0
        platter = self._platter = Platter(self._image, self._inodes)
        self._begin(platter)
        return platter

    def _begin(self, platter: Platter) -> None:
        if self._at < len(self._log):
            platter.begin(self._log[self._at])

    def during(self, at: int) -> Platter:
        """The platter while the operation `at` is under way; `len(log)`: when all have returned."""
        platter = self._platter
        if platter is None or at < self._at:
            platter = self._restarted()
        while self._at < at:
            platter.finish(self._log[self._at])
            self._at += 1
            self._begin(platter)
        return platter
