"""A file that is there to be deleted: room for what must be written before telemetry may go."""

from contextlib import suppress
from pathlib import Path

from edge.spool.files import Files

NAME = "reserve"
_CHUNK = bytes(64 * 1024)


class Reserve:
    """The reserve of a spool.

    Args:
        files: The disk.
        directory: Of the spool.
        wanted: Its bytes; 0 for none.
    """

    def __init__(self, files: Files, directory: Path, wanted: int) -> None:
        self._files = files
        self._path = directory / NAME
        self._wanted = wanted
        self.bytes = 0

    def open(self) -> None:
        """See whether it is there; one that was not finished is made anew."""
        with suppress(FileNotFoundError):
            self.bytes = self._files.size(self._path)
        if self.bytes != self._wanted:
            self.release()

    def release(self) -> bool:
        """Give the room back to the disk; whether there was any. Raises OSError."""
        had, self.bytes = self.bytes, 0
        with suppress(FileNotFoundError):
            self._files.remove(self._path)
        return had > 0

    def restore(self, *, free: int, free_min: int) -> None:
        """Make it again, when the disk has room for it; raises OSError."""
        if self.bytes == self._wanted or free < free_min + 2 * self._wanted:
            return
        with suppress(FileNotFoundError):
            self._files.remove(self._path)
        file = self._files.create(self._path)
        try:
            for at in range(0, self._wanted, len(_CHUNK)):
                file.append(_CHUNK[: self._wanted - at])
            file.sync()
        finally:
            file.close()
        self.bytes = self._wanted
