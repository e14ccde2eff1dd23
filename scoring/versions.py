"""Which of two versions is the older one. Pure."""

import re

_PARTS = re.compile(r"\d+|[A-Za-z]+")

VersionKey = tuple[tuple[int, int, str], ...]


def version_key(version: str) -> VersionKey:
    """What versions are ordered by: numbers in them count as numbers, words as words.

    Whatever else stands in them only separates. A word comes before a number in the same place,
    so that `2.0.rc1` is older than `2.0.1`; what goes on is newer than what ends.

    Example:
        >>> sorted(["1.10", "1.9", "1.9.1", "20261124T0900Z-a", "1.9-rc2"], key=version_key)
        ['1.9', '1.9-rc2', '1.9.1', '1.10', '20261124T0900Z-a']
    """
    return tuple(
        (1, int(part), "") if part.isdigit() else (0, 0, part) for part in _PARTS.findall(version)
    )


def is_older(version: str, than: str) -> bool:
    """Whether a version comes before another one."""
    return version_key(version) < version_key(than)
