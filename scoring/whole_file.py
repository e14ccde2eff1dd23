"""A small file that is there whole or not at all, whatever ends the program or the power."""

import os
from pathlib import Path

PART_SUFFIX = ".part"
"""Behind the name of a file that is still being written."""


def write_whole(path: Path, data: bytes) -> None:
    """Write a file or replace it; safe on the disk, its name included, on return.

    Raises:
        OSError: The disk refused; what was there before still is.
    """
    temporary = path.with_name(path.name + PART_SUFFIX)
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
