"""What the schema registry remembers, in one SQLite file.

A schema is stored once and keeps its id for ever, under however many subjects it stands. Every
change is on disk (`synchronous=FULL`) before the caller hears of it: messages in Kafka carry the
ids, so one that came back for another schema would make them unreadable.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.registry_rules import DEFAULT_LEVEL, Fault, RegistryError

GLOBAL = ""
"""Name under which the level for subjects without one of their own is kept."""

_TABLES = """
CREATE TABLE IF NOT EXISTS schemas (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    canonical TEXT NOT NULL UNIQUE,
    text TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS versions (
    subject TEXT NOT NULL,
    version INTEGER NOT NULL,
    schema_id INTEGER NOT NULL REFERENCES schemas (id),
    deleted INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (subject, version)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS levels (
    subject TEXT PRIMARY KEY,
    level TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""

_REGISTERED = """
SELECT v.subject, v.version, v.schema_id, s.text, v.deleted
FROM versions v JOIN schemas s ON s.id = v.schema_id
"""


@dataclass(frozen=True, slots=True)
class Registered:
    """A version of a subject.

    Attributes:
        subject: Name of the subject.
        version: Counts from 1 within the subject; never given twice.
        schema_id: Id of the schema.
        text: The schema as it was first registered.
        deleted: Softly deleted: hidden, but data written with it can still be read.
    """

    subject: str
    version: int
    schema_id: int
    text: str
    deleted: bool


class SchemaStore:
    """The store. Any thread may call it; calls take turns.

    Args:
        file: The SQLite file, made if absent.
    """

    def __init__(self, file: Path) -> None:
        self._lock = threading.RLock()
        self._db = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_TABLES)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Let several calls see and change one state; rolled back if the block raises."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def subjects(self, *, deleted: bool = False) -> list[str]:
        """Names of subjects with a version that is not deleted, sorted; or of all subjects."""
        rows = self._query(
            "SELECT DISTINCT subject FROM versions WHERE deleted <= ? ORDER BY subject", deleted
        )
        return [name for (name,) in rows]

    def versions(self, subject: str, *, deleted: bool = False) -> list[Registered]:
        """Versions of a subject, oldest first.

        Raises:
            RegistryError: SUBJECT_NOT_FOUND if there is none.
        """
        found = self.history(subject, deleted=deleted)
        if not found:
            raise RegistryError(Fault.SUBJECT_NOT_FOUND, subject)
        return found

    def history(self, subject: str, *, deleted: bool = False) -> list[Registered]:
        """As `versions`, but empty for a subject that does not exist."""
        rows = self._query(
            _REGISTERED + "WHERE v.subject = ? AND v.deleted <= ? ORDER BY v.version",
            subject,
            deleted,
        )
        return [_registered(row) for row in rows]

    def uses(self, schema_id: int) -> list[Registered]:
        """The versions under which a schema stands, deleted ones left out."""
        rows = self._query(
            _REGISTERED + "WHERE v.schema_id = ? AND v.deleted = 0 ORDER BY v.subject, v.version",
            schema_id,
        )
        return [_registered(row) for row in rows]

    def text(self, schema_id: int) -> str:
        """A schema by its id, deleted or not.

        Raises:
            RegistryError: SCHEMA_NOT_FOUND.
        """
        rows = self._query("SELECT text FROM schemas WHERE id = ?", schema_id)
        if not rows:
            raise RegistryError(Fault.SCHEMA_NOT_FOUND, schema_id)
        return str(rows[0][0])

    def id_of(self, canonical: str) -> int | None:
        """The id of a schema, if it was ever registered."""
        rows = self._query("SELECT id FROM schemas WHERE canonical = ?", canonical)
        return int(rows[0][0]) if rows else None

    def add(self, subject: str, canonical: str, text: str) -> Registered:
        """Put a schema under a subject as its next version. Call it in a `transaction`."""
        self._query(
            "INSERT OR IGNORE INTO schemas (canonical, text) VALUES (?, ?)", canonical, text
        )
        schema_id = self.id_of(canonical)
        assert schema_id is not None
        rows = self._query("SELECT max(version) FROM versions WHERE subject = ?", subject)
        version = (rows[0][0] or 0) + 1
        self._query(
            "INSERT INTO versions (subject, version, schema_id) VALUES (?, ?, ?)",
            subject,
            version,
            schema_id,
        )
        return Registered(subject, version, schema_id, self.text(schema_id), deleted=False)

    def hide(self, registered: Registered) -> None:
        """Delete a version softly."""
        self._query(
            "UPDATE versions SET deleted = 1 WHERE subject = ? AND version = ?",
            registered.subject,
            registered.version,
        )

    def remove(self, registered: Registered) -> None:
        """Delete a version for good; its schema keeps its id."""
        self._query(
            "DELETE FROM versions WHERE subject = ? AND version = ?",
            registered.subject,
            registered.version,
        )

    def own_level(self, subject: str) -> str | None:
        """The compatibility level set for a subject itself, if any."""
        rows = self._query("SELECT level FROM levels WHERE subject = ?", subject)
        return str(rows[0][0]) if rows else None

    def level(self, subject: str) -> str:
        """The compatibility level that holds for a subject."""
        return self.own_level(subject) or self.own_level(GLOBAL) or DEFAULT_LEVEL

    def set_level(self, subject: str, level: str | None) -> None:
        """Set a level, or with None take it away."""
        if level is None:
            self._query("DELETE FROM levels WHERE subject = ?", subject)
        else:
            self._query(
                "INSERT INTO levels VALUES (?, ?) ON CONFLICT (subject) DO UPDATE SET level = ?",
                subject,
                level,
                level,
            )

    def _query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()


def _registered(row: tuple[Any, ...]) -> Registered:
    subject, version, schema_id, text, deleted = row
    return Registered(
        str(subject), int(str(version)), int(str(schema_id)), str(text), bool(deleted)
    )
