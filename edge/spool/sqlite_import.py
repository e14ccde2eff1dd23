"""A spool of an earlier program, one SQLite file, becomes a log: all of it, once.

The log is built beside the file and put in its place only when it is complete. A crash before the
file has got its new name starts over; one after that finds the log complete, and goes on there.
Nothing else in the gateway knows SQLite.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from edge.identity import Boots, BootState
from edge.rows import AlertState, Lane, Priority, Telemetry
from edge.spool.change import Change, encode_change, pack_boots
from edge.spool.errors import SpoolError, disk_errors
from edge.spool.files import Files
from edge.spool.framing import BEGINS_GROUP
from edge.spool.limits import SEGMENT_BYTES
from edge.spool.log import SegmentLog
from edge.spool.opening import lane_directory, locked
from edge.spool.snapshot import write_snapshot
from edge.spool.state import KeptAlert, State
from edge.spool.telemetry_codec import encode_rows
from schemas.errors import SettingsError

FORMATS = (1, 2)
FORMER_NAME = "spool.db"
"""Name of the file where the present default is a directory beside it."""

GROUP_ROWS = 1_000

_COMPANIONS = ("-wal", "-shm")


def take_over(path: Path, *, files: Files, now_ms: int) -> Path | None:
    """Make a log at a path of the SQLite file that lies there or beside it, if there is one.

    Args:
        path: Of the spool; it is locked.
        files: The disk.
        now_ms: Wall time, to name what is moved aside.

    Returns:
        Where the file now lies because nothing could be read from it; None when it was taken
        over, or when there is none.

    Raises:
        SettingsError: The file is in use by another process, or of a later format.
        SpoolError: The disk refuses; the next start begins anew.
    """
    with disk_errors(path):
        source, building = source_of(path), path.with_name(path.name + ".importing")
        if source is None:
            if building.is_dir() and not path.exists():
                _rename(building, path, files)
            return None
        if source == path:
            return _take(source, building, path, files, now_ms)
        with closing(locked(source, files)):
            return _take(source, building, path, files, now_ms)


def source_of(path: Path) -> Path | None:
    """The SQLite file that a start would take over; None for none."""
    if path.is_file():
        return path
    beside = path.with_name(FORMER_NAME)
    return beside if beside.is_file() and not path.exists() else None


def _take(source: Path, building: Path, path: Path, files: Files, now_ms: int) -> Path | None:
    try:
        if damage_mark(source).exists():
            raise sqlite3.DatabaseError("it was found damaged")
        with closing(_connect(source)) as connection:
            _build(connection, source, building, files)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except sqlite3.OperationalError as error:
        raise SpoolError(f"spool {source}: {error}") from error
    except sqlite3.DatabaseError:
        return _move_aside(source, files, now_ms=now_ms)
    _rename(source, source.with_name(source.name + ".migrated"), files)
    _rename(building, path, files)
    return None


def _connect(source: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)


def _build(connection: sqlite3.Connection, source: Path, building: Path, files: Files) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        raise sqlite3.DatabaseError("it holds no spool")
    if version not in FORMATS:
        raise SettingsError(f"spool_path: {source} is of the unknown format {version}")
    _begin_anew(building, files)
    state = _state(connection)
    write_snapshot(files, building, 1, state, None)
    trace = "traceparent" if version > 1 else "NULL"
    telemetry = _log(building, Lane.TELEMETRY, state, files)
    for first, rows in _groups(
        connection,
        "SELECT position, vehicle_id, boot_id, seq, oldest_seq, received_ms, payload,"
        f" {trace} FROM telemetry ORDER BY position",
    ):
        _append_telemetry(telemetry, first, [Telemetry(*row) for row in rows])
    telemetry.close()
    priority = _log(building, Lane.PRIORITY, state, files)
    for first, rows in _groups(
        connection,
        f"SELECT position, kind, message_key, received_ms, payload, {trace}"
        " FROM priority ORDER BY position",
    ):
        _append_priority(priority, first, [Priority(*row) for row in rows])
    priority.close()


def _begin_anew(building: Path, files: Files) -> None:
    """An empty directory, whatever an earlier try has left there."""
    for directory in (building, *(lane_directory(building, lane) for lane in Lane)):
        files.make_directory(directory)
        for name in files.names(directory):
            if not (directory / name).is_dir():
                files.remove(directory / name)


def _log(building: Path, lane: Lane, state: State, files: Files) -> SegmentLog:
    log = SegmentLog(
        files,
        lane_directory(building, lane),
        lane,
        spool_id=state.spool_id,
        segment_bytes=SEGMENT_BYTES,
    )
    log.open()
    return log


def _groups(
    connection: sqlite3.Connection, query: str
) -> Iterator[tuple[int, list[tuple[Any, ...]]]]:
    """Rows with unbroken positions: the first one's, and the rows without theirs."""
    cursor = connection.execute(query)
    first, group = 0, list[tuple[Any, ...]]()
    for position, *row in cursor:
        if group and (position != first + len(group) or len(group) >= GROUP_ROWS):
            yield first, group
            group = []
        if not group:
            first = position
        group.append(tuple(row))
    if group:
        yield first, group


def _append_telemetry(log: SegmentLog, first: int, rows: list[Telemetry]) -> None:
    received_ms = [row.received_ms for row in rows]
    seed = _begin(log, first)
    data = encode_rows(rows, seed=seed, position=first)
    log.append(data, rows=len(rows), received_ms=received_ms)
    log.show()


def _append_priority(log: SegmentLog, first: int, rows: list[Priority]) -> None:
    seed = _begin(log, first)
    data = encode_change(Change(rows), seed=seed, flags=BEGINS_GROUP, position=first)
    log.append(data, rows=len(rows))
    log.show()


def _begin(log: SegmentLog, first: int) -> int:
    if first != log.last + 1:
        log.cut()
        log.floor(first - 1)
    return log.begin()


def _state(connection: sqlite3.Connection) -> State:
    state = State(connection.execute("SELECT spool_id FROM spool").fetchone()[0])
    state.marks = dict(connection.execute("SELECT name, value FROM marks").fetchall())
    for vehicle_id, boots in _identities(connection).items():
        state.identities[vehicle_id] = pack_boots(boots)
    query = "SELECT vehicle_id, code, state, changed, payload, published FROM alerts"
    for *alert, published in connection.execute(query):
        kept = KeptAlert(AlertState(*alert), bool(published))
        state.alerts[kept.state.vehicle_id, kept.state.code] = kept
    return state


def _identities(connection: sqlite3.Connection) -> dict[str, Boots]:
    vehicles: dict[str, Boots] = {}
    query = "SELECT vehicle_id, boot_id, contiguous, ranges FROM identity"
    for vehicle_id, boot_id, contiguous, ranges in connection.execute(query):
        vehicles.setdefault(vehicle_id, {})[boot_id] = BootState.unpack(contiguous, ranges)
    return vehicles


def damage_mark(source: Path) -> Path:
    """A file of this name beside it says that an SQLite spool was found damaged."""
    return source.with_name(source.name + ".damaged")


def _move_aside(source: Path, files: Files, *, now_ms: int) -> Path:
    """Give a damaged file and its companions another name; returns that of the main file."""
    target = source.with_name(f"{source.name}.damaged-{now_ms}")
    for suffix in _COMPANIONS:
        with suppress(FileNotFoundError):
            files.replace(
                source.with_name(source.name + suffix), target.with_name(target.name + suffix)
            )
    _rename(source, target, files)
    with suppress(FileNotFoundError):
        files.remove(damage_mark(source))
    return target


def _rename(source: Path, target: Path, files: Files) -> None:
    files.replace(source, target)
    files.sync_directory(target.parent)
