"""A spool that an earlier program wrote: all of it is there, and traces find room in it."""

import shutil
import sqlite3
from pathlib import Path

import pytest
from edge_parts import EPOCH_MS, batch

from edge.identity import Verdict
from edge.marks import Mark
from edge.rows import Kind, Lane, Priority, Telemetry
from edge.spool import Spool
from edge.spool.files import OsFile, OsFiles
from schemas.errors import SettingsError

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


def taken_over(path: Path) -> list[tuple[int, int, bytes]]:
    """What a spool holds after a start: (position, seq, payload) of each row."""
    spool = Spool(path, now_ms=5)
    assert spool.moved_aside is None
    rows = spool.reader().telemetry(after=0, rows_max=EVERYTHING, bytes_max=EVERYTHING)
    assert spool.marks[Mark.SCORED] == 20
    spool.close()
    return [(row.position, row.seq, row.payload) for row in rows]


WHOLE = [(position, seq, batch("car", seq)) for position, seq in enumerate([*range(1, 41), 43], 1)]


def test_a_file_beside_the_present_default_is_taken_over_too(path: Path) -> None:
    spool_id = sqlite3.connect(path).execute("SELECT spool_id FROM spool").fetchone()[0]
    target = path.with_name("spool")
    assert taken_over(target) == WHOLE
    assert taken_over(target) == WHOLE
    assert not path.exists()
    assert path.with_name("spool.db.migrated").is_file()
    spool = Spool(target, now_ms=0)
    assert spool.spool_id == spool_id
    spool.close()


def test_a_spool_of_the_second_format_keeps_its_traces_and_its_gaps(path: Path) -> None:
    connection = sqlite3.connect(path)
    for table in ("telemetry", "priority"):
        connection.execute(f"ALTER TABLE {table} ADD COLUMN traceparent TEXT")
    connection.execute("UPDATE telemetry SET traceparent = ? WHERE position = 30", (TRACED,))
    connection.execute("DELETE FROM telemetry WHERE position < 10 OR position = 20")
    connection.execute("PRAGMA user_version=2")
    connection.commit()
    connection.close()
    spool = Spool(path, now_ms=0)
    rows = spool.reader().telemetry(after=0, rows_max=EVERYTHING, bytes_max=EVERYTHING)
    assert [row.position for row in rows] == [*range(10, 20), *range(21, 42)]
    assert {row.position: row.traceparent for row in rows if row.traceparent} == {30: TRACED}
    assert spool.take_news() == []
    assert spool.last(Lane.TELEMETRY) == 41
    spool.close()


class Stopped(BaseException):
    """The power went."""


class Fragile(OsFiles):
    """A disk whose power goes at the nth change of a name or making of a file."""

    def __init__(self, change: int) -> None:
        self.left = change

    def _count(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Stopped

    def create(self, path: Path) -> OsFile:
        self._count()
        return super().create(path)

    def replace(self, source: Path, target: Path) -> None:
        self._count()
        super().replace(source, target)


@pytest.mark.parametrize("beside", [False, True])
def test_a_crash_anywhere_in_it_starts_over_and_loses_nothing(
    path: Path, tmp_path: Path, beside: bool
) -> None:
    target = path.with_name("spool") if beside else path
    crashes = 0
    while True:
        try:
            spool = Spool(target, now_ms=0, files=Fragile(crashes + 1))
        except Stopped:
            crashes += 1
            if crashes % 2:  # every other time the next try begins where this one ended
                assert taken_over(target) == WHOLE
                for name in (target, path.with_name("spool.db.migrated")):
                    shutil.rmtree(name) if name.is_dir() else name.unlink()
                shutil.copy(FORMAT_1, path)
        else:
            break
    spool.close()
    assert crashes >= 7
    assert taken_over(target) == WHOLE


@pytest.mark.parametrize("rubbish", [b"not a database at all" * 300, b"\0" * 100])
def test_a_file_of_which_nothing_can_be_read_is_moved_aside_and_kept(
    path: Path, rubbish: bytes
) -> None:
    path.write_bytes(rubbish)
    spool = Spool(path, now_ms=77)
    assert spool.moved_aside == path.with_name("spool.db.damaged-77")
    assert spool.moved_aside.read_bytes() == rubbish
    assert spool.last(Lane.TELEMETRY) == 0
    spool.close()


def test_a_file_of_an_unknown_format_is_refused_and_left_alone(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(SettingsError, match="format 99"):
        Spool(path, now_ms=0)
    assert version(path) == 99


def test_a_file_that_another_process_has_open_is_left_alone(path: Path) -> None:
    lock = OsFiles().lock(path.with_name("spool.db.lock"))
    for target in (path, path.with_name("spool")):
        with pytest.raises(SettingsError, match="in use"):
            Spool(target, now_ms=0)
    lock.close()
    assert version(path) == 1
