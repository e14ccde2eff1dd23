"""The tables of the spool, and how its file is opened, locked and moved aside.

The spool is one SQLite file in WAL mode with `synchronous=FULL`: a commit that has returned is on
the disk, as far as the disk tells the truth. A file that SQLite cannot read is moved aside, never
deleted; the gateway then starts with an empty one.
"""

import fcntl
import os
import sqlite3
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from schemas.errors import MotorcadeError, SettingsError, TransientError

FORMAT = 3
BUSY_TIMEOUT_S = 10.0
WAL_BYTES_KEPT = 16 * 1024 * 1024

TABLES = (
    # Positions are given by the writer, so a row costs one B-tree insert at the right edge.
    """CREATE TABLE telemetry (
        position INTEGER PRIMARY KEY,
        vehicle_id TEXT NOT NULL,
        boot_id INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        oldest_seq INTEGER NOT NULL,
        received_ms INTEGER NOT NULL,
        payload BLOB NOT NULL,
        traceparent TEXT,
        gateway_boot INTEGER NOT NULL DEFAULT 0,
        monotonic_ms INTEGER NOT NULL DEFAULT 0
    ) STRICT""",
    """CREATE TABLE priority (
        position INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        message_key TEXT,
        received_ms INTEGER NOT NULL,
        payload BLOB NOT NULL,
        traceparent TEXT
    ) STRICT""",
    """CREATE TABLE identity (
        vehicle_id TEXT NOT NULL,
        boot_id INTEGER NOT NULL,
        contiguous INTEGER NOT NULL,
        ranges BLOB NOT NULL,
        PRIMARY KEY (vehicle_id, boot_id)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE alerts (
        vehicle_id TEXT NOT NULL,
        code TEXT NOT NULL,
        state TEXT NOT NULL,
        changed INTEGER NOT NULL,
        published INTEGER NOT NULL,
        payload BLOB NOT NULL,
        PRIMARY KEY (vehicle_id, code)
    ) STRICT, WITHOUT ROWID""",
    "CREATE TABLE marks (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE spool (spool_id TEXT NOT NULL) STRICT",
)


UPGRADES = {
    1: (
        # SQLite notes the column and leaves the rows alone, so this takes no time.
        "ALTER TABLE telemetry ADD COLUMN traceparent TEXT",
        "ALTER TABLE priority ADD COLUMN traceparent TEXT",
    ),
    2: (
        "ALTER TABLE telemetry ADD COLUMN gateway_boot INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE telemetry ADD COLUMN monotonic_ms INTEGER NOT NULL DEFAULT 0",
    ),
}
"""From each earlier format to the next. A later program never loses what an earlier one stored."""


class SpoolError(TransientError):
    """The disk refuses for now: full, read-only, or a failing card. Nothing was stored."""


class SpoolDamagedError(MotorcadeError):
    """The file is no longer a sound database. The next start moves it aside."""


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """An open spool file.

    Attributes:
        connection: For the one writer.
        lock: Held while the spool is open; closing it lets another process in.
        moved_aside: Where a damaged predecessor now lies; None when there was none.
    """

    connection: sqlite3.Connection
    lock: IO[bytes]
    moved_aside: Path | None


def translate(error: sqlite3.Error, path: Path) -> MotorcadeError:
    """The project's error for one of SQLite's; a damaged file is marked for the next start."""
    code = getattr(error, "sqlite_errorcode", None)
    primary = code & 0xFF if code is not None else None
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        damage_mark(path).touch()
        return SpoolDamagedError(f"spool {path} is damaged: {error}")
    return SpoolError(f"spool {path}: {error}")


def damage_mark(path: Path) -> Path:
    """A file of this name beside the spool says that the spool was found damaged."""
    return path.with_name(path.name + ".damaged")


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection with the settings that durability rests on."""
    mode = "ro" if read_only else "rwc"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        timeout=BUSY_TIMEOUT_S,
        check_same_thread=False,
    )
    if not read_only:
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA journal_size_limit={WAL_BYTES_KEPT}")
    return connection


def open_file(path: Path, *, now_ms: int) -> OpenedFile:
    """Open or create the spool; one process at a time.

    Raises:
        SettingsError: Another process has it open, or it is of a later format.
        SpoolError: The directory or file cannot be written.
    """
    lock = _lock(path)
    try:
        moved = move_aside(path, now_ms=now_ms) if damage_mark(path).exists() else None
        try:
            connection = _open_sound(path)
        except sqlite3.DatabaseError as error:
            if not isinstance(translate(error, path), SpoolDamagedError):
                raise translate(error, path) from error
            moved = move_aside(path, now_ms=now_ms)
            connection = _open_sound(path)
    except BaseException:
        lock.close()
        raise
    return OpenedFile(connection, lock, moved)


def _lock(path: Path) -> IO[bytes]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(path.name + ".lock").open("ab")
    except OSError as error:
        raise SpoolError(f"spool {path}: {error}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise SettingsError(f"spool_path: {path} is in use by another process") from error
    return lock


def _open_sound(path: Path) -> sqlite3.Connection:
    """Open and look at every table, so that a damaged head shows now."""
    connection = connect(path)
    try:
        _prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        _create(connection, path)
    elif version > FORMAT:
        raise SettingsError(
            f"spool_path: {path} is of format {version}, this program's is {FORMAT}"
        )
    elif version < FORMAT:
        _upgrade(connection, version)
    # One aggregate a query: two in one make SQLite read the whole table.
    for aggregate in ("max", "min"):
        for table in ("telemetry", "priority"):
            connection.execute(f"SELECT {aggregate}(position) FROM {table}").fetchone()
    for table in ("alerts", "marks", "spool"):
        connection.execute(f"SELECT * FROM {table}").fetchall()


def _create(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("BEGIN EXCLUSIVE")
    for table in TABLES:
        connection.execute(table)
    connection.execute("INSERT INTO spool VALUES (?)", (uuid.uuid4().hex,))
    connection.execute(f"PRAGMA user_version={FORMAT}")
    connection.execute("COMMIT")
    sync_directory(path.parent)


def _upgrade(connection: sqlite3.Connection, version: int) -> None:
    """Bring an earlier format up to this one, in one transaction: all of it, or nothing."""
    connection.execute("BEGIN EXCLUSIVE")
    try:
        for step in range(version, FORMAT):
            for statement in UPGRADES[step]:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={FORMAT}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def move_aside(path: Path, *, now_ms: int) -> Path:
    """Rename a damaged spool with its companions; returns the new name of the main file."""
    target = path.with_name(f"{path.name}.damaged-{now_ms}")
    for suffix in ("-wal", "-shm", ""):
        source = path.with_name(path.name + suffix)
        if source.exists():
            source.rename(path.with_name(f"{target.name}{suffix}"))
    damage_mark(path).unlink(missing_ok=True)
    sync_directory(path.parent)
    return target


def sync_directory(path: Path) -> None:
    """Make new names in a directory survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
