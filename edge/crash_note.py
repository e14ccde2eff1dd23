"""What a process writes down of its own crash, for the next one to read.

A segmentation fault leaves no time for much: the interpreter writes where the crashing thread was
into a file that is open already. A process that is killed, or whose power goes, writes nothing, so
neither is taken for a crash. Nothing is written while all is well.
"""

import faulthandler
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

NOTE_BYTES_MAX = 100_000
MODEL_CODE = "scoring/interpreter.py"
"""In the note of a crash, where a model's native code was running."""


class CrashNote:
    """One file; belongs to whoever owns the directory.

    Args:
        path: Where the note is left.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def take(self) -> str:
        """The note that an earlier process left, once; empty where it left none.

        Raises:
            OSError: It cannot be read or removed.
        """
        try:
            with self._path.open("rb") as file:
                note = file.read(NOTE_BYTES_MAX)
        except FileNotFoundError:
            return ""
        self._path.unlink()
        return note.decode("utf-8", errors="replace")

    def begin(self) -> None:
        """Note crashes from now on, unless somebody else in this process does.

        Raises:
            OSError: The file cannot be made.
        """
        if not faulthandler.is_enabled():
            self._file = self._path.open("wb")
            faulthandler.enable(self._file, all_threads=False)

    def end(self) -> None:
        """No more; harmless when repeated."""
        file, self._file = self._file, None
        if file is not None:
            faulthandler.disable()
            file.close()
            with suppress(OSError):
                self._path.unlink()
