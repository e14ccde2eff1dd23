"""Whether a directory lies on memory: a spool there would be gone with the power."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

MOUNTS = Path("/proc/self/mountinfo")

_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of `mountinfo`, as proc(5) describes it.

    Attributes:
        point: Where it is mounted.
        kind: Type of the file system.
        upper: For an overlay, the directory that takes what is written; else None.
    """

    point: PurePosixPath
    kind: str
    upper: PurePosixPath | None


def memory_behind(directory: Path, mountinfo: str) -> str | None:
    """What keeps `directory` in memory, in words; None where a power cut leaves it alone.

    An overlay is judged by where its written layer lies. Where this cannot be seen, as inside a
    container, it is believed to be a disk.

    Args:
        directory: Absolute, without symbolic links.
        mountinfo: Text of /proc/self/mountinfo.
    """
    mounts = list(_mounts(mountinfo))
    here = _holder(PurePosixPath(directory), mounts)
    if here is None or here.upper is None:
        return _words(here)
    return _words(_holder(here.upper, [mount for mount in mounts if mount != here]))


def _holder(path: PurePosixPath, mounts: list[Mount]) -> Mount | None:
    """The mount that holds a path: the longest point; of equal ones the last hides the others."""
    fitting = [mount for mount in mounts if path.is_relative_to(mount.point)]
    return max(reversed(fitting), key=lambda mount: len(mount.point.parts), default=None)


def _words(mount: Mount | None) -> str | None:
    if mount is None or mount.kind not in _MEMORY:
        return None
    return f"{mount.kind} at {mount.point}"


def _mounts(mountinfo: str) -> Iterator[Mount]:
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        yield Mount(_unescaped(before.split(" ")[4]), kind, _upper(options))


def _upper(options: str) -> PurePosixPath | None:
    given = dict(option.partition("=")[::2] for option in options.split(","))
    return _unescaped(given["upperdir"]) if "upperdir" in given else None


def _unescaped(path: str) -> PurePosixPath:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(code, character)
    return PurePosixPath(path)
