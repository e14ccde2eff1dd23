"""A spool that an earlier program wrote: all of it is there, and traces find room in it."""

import shutil
import sqlite3
from pathlib import Path

import pytest
from edge_parts import EPOCH_MS, batch

from edge.identity import Verdict
from edge.marks import Mark
from edge.rows import Kind, Priority, Telemetry
from edge.spool import Spool

FORMAT_1 = Path(__file__).parent / "data" / "spool_format_1.db"
"""Written by the program of that format: batches 1 to 40 and 43 of `car`, two records in the
priority lane, an open alert; scored up to 20, forwarded up to 10."""

TRACED = f"00-{'a' * 32}-{'b' * 16}-01"
EVERYTHING = 1 << 40


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return Path(shutil.copy(FORMAT_1, tmp_path / "spool.db"))


def version(path: Path) -> int:
    connection = sqlite3.connect(path)
    found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.close()
    return found


def test_an_earlier_spool_keeps_its_rows_marks_identities_and_alerts(path: Path) -> None:
    assert version(path) == 1
    spool = Spool(path, now_ms=0)
    assert spool.moved_aside is None
    reader = spool.reader()
    rows = reader.telemetry(after=0, rows_max=EVERYTHING, bytes_max=EVERYTHING)
    assert [
        (row.position, row.seq, row.received_ms, row.payload, row.traceparent) for row in rows
    ] == [
        (position, seq, EPOCH_MS + 1_000 * seq, batch("car", seq), None)
        for position, seq in enumerate([*range(1, 41), 43], 1)
    ]
    letters = reader.priority(after=0, rows_max=EVERYTHING, bytes_max=EVERYTHING)
    assert [(letter.kind, letter.payload, letter.traceparent) for letter in letters] == [
        ("label", b"label", None),
        ("alert", b"alert", None),
    ]
    assert [state.payload for state in reader.alerts(unpublished_only=True)] == [b"alert"]
    assert spool.marks[Mark.SCORED] == 20
    assert spool.marks[Mark.FORWARDED_TELEMETRY] == 10
    book = spool.identity_book(vehicles_max=10)
    verdicts = [book.admit("car", 1, seq, 1) for seq in (40, 41, 43)]
    assert verdicts == [Verdict.DUPLICATE, Verdict.NEW, Verdict.DUPLICATE]
    reader.close()
    spool.close()
    migrated = path.with_name("spool.db.migrated")
    assert migrated.is_file()
    assert path.is_dir()


def test_traces_lie_in_an_upgraded_spool_beside_what_has_none(path: Path) -> None:
    spool = Spool(path, now_ms=0)
    book = spool.identity_book(vehicles_max=10)
    spool.store(
        [Telemetry("car", 1, 44, 1, 7, b"new", TRACED), Telemetry("car", 1, 45, 1, 8, b"newer")],
        [Priority(Kind.ALERT, "car", 7, b"alert", TRACED)],
        book,
    )
    spool.close()
    spool = Spool(path, now_ms=0)
    reader = spool.reader()
    rows = reader.telemetry(after=40, rows_max=EVERYTHING, bytes_max=EVERYTHING)
    assert [row.traceparent for row in rows] == [None, TRACED, None]
    [letter] = reader.priority(after=2, rows_max=EVERYTHING, bytes_max=EVERYTHING)
    assert letter.traceparent == TRACED
    reader.close()
    spool.close()
