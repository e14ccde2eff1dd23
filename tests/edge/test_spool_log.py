"""The spool's segments: what is read at open, and what a disk that refuses or lies leaves."""

import errno
import os
import struct
import zlib
from pathlib import Path

import pytest
from spool_parts import HastyFiles, MoodyFiles

from edge.identity import IdentityBook, Verdict
from edge.marks import Mark
from edge.rows import AlertState, Kind, Lane, Priority, StoredTelemetry, Telemetry
from edge.spool import Spool, SpoolError, SpoolLimits
from edge.spool.segment import INDEX_SUFFIX, SEGMENT_SUFFIX
from schemas.errors import SettingsError

EVERYTHING = 1 << 40
SEGMENT_BYTES = 20_000
SMALL = SpoolLimits(bytes_max=EVERYTHING, segment_bytes=SEGMENT_BYTES, reserve_bytes=0)


def telemetry(seq: int, *, vehicle: str = "v", size: int = 100) -> Telemetry:
    payload = b"%d " % seq + bytes(size)
    return Telemetry(vehicle, 1, seq, 1, 1_000 + seq, payload, None, 3, 7_000 + seq)


def letter(number: int) -> Priority:
    return Priority(Kind.LABEL, "v", 1_000, b"label %d" % number)


def fill(spool: Spool, book: IdentityBook, first: int, last: int, *, group: int = 50) -> None:
    """Store batches first..last of one vehicle, in groups."""
    for begin in range(first, last + 1, group):
        rows = [telemetry(seq) for seq in range(begin, min(begin + group, last + 1))]
        for row in rows:
            book.admit(row.vehicle_id, row.boot_id, row.seq, row.oldest_seq)
        spool.store(rows, [], book)


def stored(spool: Spool, *, after: int = 0) -> list[StoredTelemetry]:
    reader = spool.reader()
    rows = []
    while page := reader.telemetry(after=after, rows_max=77, bytes_max=EVERYTHING):
        rows += page
        after = page[-1].position
    return rows


def letters(spool: Spool) -> list[bytes]:
    rows = spool.reader().priority(after=0, rows_max=EVERYTHING, bytes_max=EVERYTHING)
    return [row.payload for row in rows]


def opened(path: Path, files: HastyFiles | MoodyFiles | None = None) -> Spool:
    return Spool(path, now_ms=9, files=files or HastyFiles(), limits=SMALL)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def segments(path: Path, lane: Lane = Lane.TELEMETRY) -> list[Path]:
    return sorted((path / lane).glob(f"*{SEGMENT_SUFFIX}"))


def die(spool: Spool) -> None:
    """As `kill -9` leaves it: nothing is sealed, the lock is gone."""
    spool._file_lock.close()


def test_rows_come_back_from_the_disk_as_they_went(path: Path) -> None:
    spool = opened(path)
    traced = telemetry(1)._replace(traceparent="00-a-b-01", oldest_seq=1)
    spool.store([traced, telemetry(2, vehicle="wörld")], [], spool.identity_book(vehicles_max=9))
    from_memory = stored(spool)
    spool.close()
    spool = opened(path)
    assert stored(spool) == from_memory
    assert from_memory[0] == StoredTelemetry(
        1, "v", 1, 1, 1_001, traced.payload, "00-a-b-01", 3, 7_001
    )
    spool.close()


@pytest.mark.parametrize("messages", [5_000, 20_000])
def test_opening_reads_the_tail_alone_however_much_is_stored(path: Path, messages: int) -> None:
    spool = opened(path)
    book = spool.identity_book(vehicles_max=10)
    fill(spool, book, 1, messages, group=100)
    spool.save(book)
    spool.close()
    files = MoodyFiles()
    spool = opened(path, files)
    spool.identity_book(vehicles_max=10)
    count = len(segments(path))
    print(f"{messages} messages in {count} segments: {files.moods.read_bytes} bytes read at open")
    assert count > messages // 300
    assert files.moods.read_bytes < 2 * SEGMENT_BYTES + 600 * count
    assert stored(spool, after=messages - 3)[0].seq == messages - 2
    spool.close()


def test_a_snapshot_named_after_a_segment_that_was_never_made_hides_none(path: Path) -> None:
    files = MoodyFiles()
    spool = opened(path, files)
    spool.store_priority([letter(1)], {Mark.SCORED: 1})
    spool.take_snapshot()
    files.moods.refuses = {"create": errno.ENOSPC}
    with pytest.raises(SpoolError):
        spool.store_priority([letter(2)])
    files.moods.refuses = {}
    spool.take_snapshot()
    spool.close()
    spool = opened(path, files)
    spool.store_priority([letter(2)], {Mark.SCORED: 2})
    spool.close()
    spool = opened(path, files)
    assert spool.marks[Mark.SCORED] == 2
    assert letters(spool) == [b"label 1", b"label 2"]
    spool.close()


def test_a_copy_of_the_last_group_that_is_torn_leaves_the_group_where_it_was(path: Path) -> None:
    spool = opened(path)
    fill(spool, spool.identity_book(vehicles_max=10), 1, 5)
    die(spool)
    files = MoodyFiles()
    files.moods.refuses, files.moods.tears = {"append": errno.EIO}, 200
    for operation in ("append", "sync", "replace", "sync_directory"):
        files.moods.refuses = {operation: errno.EIO}
        with pytest.raises(SpoolError):
            opened(path, files)
    spool = opened(path)
    assert [(row.position, row.seq) for row in stored(spool)] == [(n, n) for n in range(1, 6)]
    spool.close()


def test_opening_after_a_kill_reads_one_segment_and_no_more(path: Path) -> None:
    spool = opened(path)
    book = spool.identity_book(vehicles_max=10)
    fill(spool, book, 1, 5_000, group=100)
    spool.save(book)
    die(spool)
    files = MoodyFiles()
    spool = opened(path, files)
    assert files.moods.read_bytes < 6 * SEGMENT_BYTES + 600 * len(segments(path))
    assert [row.seq for row in stored(spool)] == list(range(1, 5_001))
    spool.close()


def test_a_position_is_found_without_reading_what_is_in_front_of_it(path: Path) -> None:
    spool = Spool(path, now_ms=0, files=HastyFiles())
    fill(spool, spool.identity_book(vehicles_max=10), 1, 30_000, group=500)
    spool.close()
    files = MoodyFiles()
    spool = Spool(path, now_ms=0, files=files)
    assert len(segments(path)) == 1
    files.moods.read_bytes = 0
    assert spool.reader().received_ms(29_000) == 30_000
    assert files.moods.read_bytes < 600_000
    spool.close()


OPERATIONS = ["append", "sync", "create", "sync_directory"]
NUMBERS = [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("killed", [False, True])
def test_a_refused_group_is_nowhere_and_its_next_try_is_there_once(
    path: Path, operation: str, number: int, killed: bool
) -> None:
    files = MoodyFiles()
    spool = opened(path, files)
    book = spool.identity_book(vehicles_max=10)
    if operation in ("append", "sync"):
        fill(spool, book, 1, 10)
    rows = [telemetry(seq) for seq in range(11, 16)]
    for row in rows:
        book.admit(row.vehicle_id, row.boot_id, row.seq, row.oldest_seq)
    files.moods.refuses, files.moods.tears = {operation: number}, 300
    before = [row.seq for row in stored(spool)]
    for _ in range(3):
        with pytest.raises(SpoolError):
            spool.store(rows, [letter(1)], book)
    assert [row.seq for row in stored(spool)] == before
    assert letters(spool) == []
    files.moods.refuses = {}
    spool.store(rows, [letter(1)], book)
    assert [row.seq for row in stored(spool)] == [*before, *range(11, 16)]
    if killed:
        die(spool)
    else:
        spool.close()
    spool = opened(path, files)
    assert [(row.position, row.seq) for row in stored(spool)] == list(
        enumerate([*before, *range(11, 16)], 1)
    )
    assert letters(spool) == [b"label 1"]
    assert spool.take_news() == []
    spool.close()


def test_a_group_whose_second_half_is_refused_leaves_no_first_half(path: Path) -> None:
    files = MoodyFiles()
    spool = opened(path, files)
    book = spool.identity_book(vehicles_max=10)
    spool.store([telemetry(1)], [letter(1)], book)
    original = files.create
    asked = spool._ledger.priority.append

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "second half")

    spool._ledger.priority.append = refuse  # type: ignore[method-assign]
    with pytest.raises(SpoolError, match="second half"):
        spool.store([telemetry(2)], [letter(2)], book)
    assert [row.seq for row in stored(spool)] == [1]
    spool._ledger.priority.append = asked  # type: ignore[method-assign]
    spool.store([telemetry(2)], [letter(2)], book)
    die(spool)
    assert files.create == original
    spool = opened(path)
    assert [row.seq for row in stored(spool)] == [1, 2]
    assert letters(spool) == [b"label 1", b"label 2"]
    spool.close()


def test_an_unclean_end_writes_its_last_group_again_before_it_is_shown(path: Path) -> None:
    spool = opened(path)
    book = spool.identity_book(vehicles_max=10)
    fill(spool, book, 1, 5)
    spool.marks.note(Mark.SCORED, 3)
    fill(spool, book, 6, 10)
    spool.store_priority([letter(1)])
    die(spool)
    files = MoodyFiles()
    spool = opened(path, files)
    assert files.moods.calls["append"] == 2  # the last group of each lane
    assert len(segments(path)) == 2
    assert spool.marks[Mark.SCORED] == 3
    assert [row.seq for row in stored(spool)] == list(range(1, 11))
    die(spool)
    files = MoodyFiles()
    files.moods.refuses = {"sync": errno.EIO}
    with pytest.raises(SpoolError):
        opened(path, files)
    spool = opened(path)
    assert [(row.position, row.seq) for row in stored(spool)] == [(n, n) for n in range(1, 11)]
    assert letters(spool) == [b"label 1"]
    spool.close()


@pytest.mark.parametrize("cut", [1, 50, 130, 700])
def test_a_torn_end_is_cut_in_silence(path: Path, cut: int) -> None:
    spool = opened(path)
    book = spool.identity_book(vehicles_max=10)
    fill(spool, book, 1, 20, group=10)
    die(spool)
    newest = segments(path)[-1]
    os.truncate(newest, newest.stat().st_size - cut)
    spool = opened(path)
    rows = [row.seq for row in stored(spool)]
    assert rows == list(range(1, len(rows) + 1))
    assert 10 <= len(rows) < 20
    assert spool.take_news() == []
    assert letters(spool) == []
    book = spool.identity_book(vehicles_max=10)
    assert book.admit("v", 1, len(rows) + 1, 1) is Verdict.NEW
    spool.close()


def test_indexes_that_are_lost_or_broken_are_made_again(path: Path) -> None:
    spool = opened(path)
    fill(spool, spool.identity_book(vehicles_max=10), 1, 1_000)
    spool.close()
    indexes = sorted((path / Lane.TELEMETRY).glob(f"*{INDEX_SUFFIX}"))
    indexes[0].unlink()
    indexes[1].write_bytes(indexes[1].read_bytes()[:-3])
    indexes[2].write_bytes(indexes[3].read_bytes())
    spool = opened(path)
    assert [row.seq for row in stored(spool)] == list(range(1, 1_001))
    assert spool.take_news() == []
    spool.tend()
    spool.close()
    files = MoodyFiles()
    opened(path, files).close()
    assert files.moods.read_bytes < 2_000 * len(segments(path))


def test_a_damaged_snapshot_falls_back_to_the_one_before_and_the_log(path: Path) -> None:
    spool = opened(path)
    book = spool.identity_book(vehicles_max=10)
    for round_ in range(3):
        fill(spool, book, 100 * round_ + 1, 100 * round_ + 100)
        state = AlertState("v", f"code-{round_}", "OPEN", 100 * round_, b"alert")
        spool.store_alerts([letter(round_)], [state], scored=100 * round_ + 50)
        spool.save(book)
        spool.take_snapshot()
    spool_id = spool.spool_id
    spool.close()
    names = sorted(path.glob("snapshot-*"))
    assert len(names) == 2
    newest = max(names, key=lambda name: int(name.name.removeprefix("snapshot-")))
    content = bytearray(newest.read_bytes())
    content[40] ^= 1
    newest.write_bytes(content)
    spool = opened(path)
    assert "damaged" in spool.take_news()[0]
    assert spool.spool_id == spool_id
    assert spool.marks[Mark.SCORED] == 250
    assert len(spool.reader().alerts(unpublished_only=True)) == 3
    book = spool.identity_book(vehicles_max=10)
    assert book.admit("v", 1, 300, 1) is Verdict.DUPLICATE
    spool.take_snapshot()
    spool.close()


def test_without_any_snapshot_the_segments_tell_all_that_they_hold(path: Path) -> None:
    spool = opened(path)
    book = spool.identity_book(vehicles_max=10)
    fill(spool, book, 1, 300)
    spool.store_priority([letter(1)])
    spool.save(book)
    spool_id = spool.spool_id
    spool.close()
    for snapshot in path.glob("snapshot-*"):
        snapshot.write_bytes(b"rubbish")
    spool = opened(path)
    assert spool.moved_aside is None
    assert spool.spool_id == spool_id
    assert [row.seq for row in stored(spool)] == list(range(1, 301))
    book = spool.identity_book(vehicles_max=10)
    assert book.admit("v", 1, 300, 1) is Verdict.DUPLICATE
    assert book.admit("v", 1, 301, 1) is Verdict.NEW
    spool.close()


def test_of_which_nothing_is_left_is_moved_aside(path: Path) -> None:
    spool = opened(path)
    fill(spool, spool.identity_book(vehicles_max=10), 1, 300)
    first_id = spool.spool_id
    spool.close()
    for file in path.rglob("*"):
        if file.is_file():
            file.write_bytes(b"rubbish" * 999)
    spool = opened(path)
    assert spool.moved_aside == path.with_name("spool.damaged-9")
    assert (spool.moved_aside / Lane.TELEMETRY).is_dir()
    assert spool.spool_id != first_id
    fill(spool, spool.identity_book(vehicles_max=10), 1, 3)
    spool.close()


def later_format(content: bytes, version: int) -> bytes:
    """A snapshot as a later program would begin it: its format counts into the checksum."""
    head = struct.Struct("<8sIII")
    magic, _, length, _ = head.unpack_from(content)
    body = content[head.size : head.size + length]
    return head.pack(magic, version, length, zlib.crc32(body, version)) + content[head.size :]


def test_a_format_that_rotted_is_damage_and_no_later_one(path: Path) -> None:
    opened(path).close()
    [snapshot] = path.glob("snapshot-*")
    content = bytearray(snapshot.read_bytes())
    content[8] ^= 0x40
    snapshot.write_bytes(content)
    opened(path).close()


def test_a_later_format_is_refused_and_left_alone(path: Path) -> None:
    opened(path).close()
    [snapshot] = path.glob("snapshot-*")
    content = later_format(snapshot.read_bytes(), 99)
    snapshot.write_bytes(content)
    with pytest.raises(SettingsError, match="format 99"):
        opened(path)
    assert snapshot.read_bytes() == content


def test_identities_of_any_number_of_vehicles_are_read_block_by_block(path: Path) -> None:
    spool = opened(path)
    book = spool.identity_book(vehicles_max=100)
    vehicles = [f"car-{number:05}" for number in range(3_000)]
    for vehicle in vehicles:
        book.admit(vehicle, 1, 1, 1)
    spool.save(book)
    spool.take_snapshot()
    book.admit(vehicles[7], 1, 2, 1)
    book.admit("aaa", 1, 1, 1)
    spool.save(book)
    spool.take_snapshot()
    spool.close()
    files = MoodyFiles()
    spool = opened(path, files)
    files.moods.read_bytes = 0
    assert {v for v in (*vehicles, "aaa") if not spool.load_boots(v)[1].covers(1)} == set()
    assert spool.load_boots(vehicles[7])[1].contiguous == 2
    assert spool.load_boots("unknown") == {}
    assert files.moods.read_bytes / 3_000 < 20_000
    spool.close()


def test_readers_see_each_row_once_while_it_is_written_and_let_go(path: Path) -> None:
    spool = opened(path)
    book = spool.identity_book(vehicles_max=10)
    reader = spool.reader()
    seen: list[int] = []
    for round_ in range(40):
        fill(spool, book, 100 * round_ + 1, 100 * round_ + 100)
        while page := reader.telemetry(
            after=seen[-1] if seen else 0, rows_max=30, bytes_max=EVERYTHING
        ):
            seen += [row.position for row in page]
            if round_ % 3:
                break
        spool.marks.note(Mark.FORWARDED_TELEMETRY, seen[-1])
        spool.marks.note(Mark.SCORED, seen[-1])
        spool.save(book)
        spool.trim(Lane.TELEMETRY, through=seen[-1])
    while page := reader.telemetry(after=seen[-1], rows_max=30, bytes_max=EVERYTHING):
        seen += [row.position for row in page]
    assert seen == list(range(1, 4_001))
    assert (spool.reader().first_position(Lane.TELEMETRY) or 0) > 3_000
    spool.close()
