"""Damaged segments, kept for whoever wants to know what happened: a bounded number of them."""

from contextlib import suppress
from pathlib import Path

from edge.rows import Lane
from edge.spool.files import Files

FILES_MAX = 4
BYTES_MAX = 64 * 1024 * 1024
DIRECTORY = "damaged"
CHUNK_BYTES = 1024 * 1024


class Aside:
    """The directory of damaged segments; the oldest go first.

    Args:
        files: The disk.
        directory: Of the spool.
    """

    def __init__(self, files: Files, directory: Path) -> None:
        self._files = files
        self._directory = directory / DIRECTORY
        self._sizes: dict[str, int] = {}

    @property
    def bytes(self) -> int:
        """What they take."""
        return sum(self._sizes.values())

    def open(self) -> None:
        """Look at what is there; raises OSError."""
        with suppress(FileNotFoundError):
            names = sorted(self._files.names(self._directory))
            self._sizes = {name: self._files.size(self._directory / name) for name in names}

    def keep(self, segment: Path, lane: Lane, *, now_ms: int) -> Path:
        """Copy a segment, and delete older copies to make room for it.

        Raises:
            OSError: The disk refuses; there is no copy.
        """
        self._files.make_directory(self._directory)
        size = self._files.size(segment)
        while self._sizes and (len(self._sizes) >= FILES_MAX or self.bytes + size > BYTES_MAX):
            self.drop_oldest()
        target = self._directory / f"damaged-{now_ms}-{lane}-{segment.name}"
        with suppress(FileNotFoundError):
            self._files.remove(target)
        self._copy(segment, target, size)
        self._sizes[target.name] = size
        return target

    def _copy(self, segment: Path, target: Path, size: int) -> None:
        file = self._files.create(target)
        try:
            for offset in range(0, size, CHUNK_BYTES):
                file.append(self._files.read(segment, offset, min(CHUNK_BYTES, size - offset)))
            file.sync()
        except OSError:
            with suppress(OSError):
                self._files.remove(target)
            raise
        finally:
            file.close()

    def drop_oldest(self) -> int:
        """Delete the oldest copy; returns its bytes, 0 when there is none. Raises OSError."""
        name = next(iter(self._sizes), None)
        if name is None:
            return 0
        with suppress(FileNotFoundError):
            self._files.remove(self._directory / name)
        return self._sizes.pop(name)
