"""Looking at a spool from outside, beside a gateway that may have it open; changes nothing."""

from pathlib import Path

from edge.rows import Lane
from edge.spool.errors import disk_errors
from edge.spool.files import OS_FILES, Files
from edge.spool.opening import lane_directory
from edge.spool.snapshot import FORMAT, read_snapshot, snapshot_numbers
from edge.spool.sqlite_import import source_of


def describe(path: Path, files: Files = OS_FILES) -> str:
    """One sentence about what a start would find.

    Raises:
        SettingsError: It is of a later format.
        SpoolError: It cannot be read.
    """
    source = source_of(path)
    if source is not None:
        return f"{source} is of an earlier program; the next start takes it over"
    if not path.is_dir():
        return f"{path} will be made"
    with disk_errors(path):
        for number in snapshot_numbers(files, path):
            read_snapshot(files, path, number)
        size = sum(
            files.size(lane_directory(path, lane) / name)
            for lane in Lane
            for name in files.names(lane_directory(path, lane))
        )
    return f"{path}, format {FORMAT}, {size >> 20} MiB"
