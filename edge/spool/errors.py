"""The errors of the spool, and what an error of the disk comes to."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import MotorcadeError, TransientError


class SpoolError(TransientError):
    """The disk refuses for now: full, read-only, or a failing card. Nothing was stored."""


class SpoolDamagedError(MotorcadeError):
    """Nothing can be salvaged from what is there. The next start moves it aside."""


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError into SpoolError: every refusal of a disk may pass."""
    try:
        yield
    except OSError as error:
        raise SpoolError(f"spool {path}: {error}") from error
