"""What goes when the spool or the disk is full or damaged, and what is told of it."""

import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spool_parts import MoodyFiles

from edge.gaps import Gap, gaps_of
from edge.identity import IdentityBook, Verdict
from edge.marks import Mark
from edge.rows import Kind, Lane, Priority, Telemetry
from edge.spool import Spool, SpoolError, SpoolLimits
from edge.spool.aside import FILES_MAX
from edge.spool.segment import INDEX_SUFFIX, SEGMENT_SUFFIX
from schemas.records import Record, decode_single_object

EVERYTHING = 1 << 40
LIMITS = SpoolLimits(
    bytes_max=120_000, free_bytes_min=50_000, segment_bytes=10_000, reserve_bytes=8_000
)
VEHICLES = ("a", "b")


@pytest.fixture
def files() -> MoodyFiles:
    return MoodyFiles()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def opened(path: Path, files: MoodyFiles, limits: SpoolLimits | None = LIMITS) -> Spool:
    return Spool(path, now_ms=9, files=files, limits=limits, gateway_id="gw")


def rows(first: int, last: int) -> list[Telemetry]:
    """Batches of both vehicles, in turn: positions 2n-1 and 2n hold the nth of each."""
    return [
        Telemetry(vehicle, 1, seq, 1, 1_000 * seq, b"%d " % seq + bytes(150))
        for seq in range(first, last + 1)
        for vehicle in VEHICLES
    ]


def fill(spool: Spool, book: IdentityBook, first: int, last: int) -> None:
    for begin in range(first, last + 1, 5):
        group = rows(begin, min(begin + 4, last))
        for row in group:
            book.admit(row.vehicle_id, row.boot_id, row.seq, row.oldest_seq)
        spool.store(group, [], book)


def gaps(spool: Spool) -> list[Record]:
    found = spool.reader().priority(after=0, rows_max=EVERYTHING, bytes_max=EVERYTHING)
    payloads = [row.payload for row in found if row.kind == Kind.GAP]
    return [decode_single_object("GatewayGap", payload) for payload in payloads]


def told(records: list[Record]) -> list[tuple[str, int]]:
    """(vehicle, seq) of what the gap records name."""
    return [
        (record["vehicle_id"], seq)
        for record in records
        for seq in range(record["first_seq"], record["last_seq"] + 1)
    ]


def there(spool: Spool) -> list[tuple[str, int]]:
    found = spool.reader().telemetry(after=0, rows_max=EVERYTHING, bytes_max=EVERYTHING)
    return [(row.vehicle_id, row.seq) for row in found]


def everything(last: int) -> set[tuple[str, int]]:
    return {(vehicle, seq) for vehicle in VEHICLES for seq in range(1, last + 1)}


def test_at_the_quota_the_oldest_goes_and_each_batch_is_there_or_told(
    path: Path, files: MoodyFiles
) -> None:
    spool = opened(path, files)
    book = spool.identity_book(vehicles_max=10)
    alert = Priority(Kind.ALERT, "a", 1, b"alert")
    spool.store_priority([alert])
    fill(spool, book, 1, 1_000)
    assert spool.size_bytes() <= LIMITS.bytes_max
    kept, gone = there(spool), told(gaps(spool))
    assert len(kept) > 200
    assert len(gone) == len(set(gone))
    assert set(kept) | set(gone) == everything(1_000)
    assert not set(kept) & set(gone)
    assert {record["reason"] for record in gaps(spool)} == {"quota"}
    assert all(record["gateway_id"] == "gw" for record in gaps(spool))
    assert spool.drops == {"quota": len(gone)}
    assert spool.marks.durable(Mark.GIVEN_UP) == len(gone)
    assert spool.depth() == len(kept) + spool.last(Lane.PRIORITY)
    first = spool.reader().priority(after=0, rows_max=1, bytes_max=EVERYTHING)[0]
    assert first.payload == b"alert"
    assert "quota" in spool.take_news()[0]
    spool._file_lock.close()
    spool = opened(path, files)
    assert spool.drops == {"quota": len(gone)}
    assert there(spool) == kept
    book = spool.identity_book(vehicles_max=10)
    assert {book.admit(vehicle, 1, seq, 1) for vehicle, seq in everything(1_000)} == {
        Verdict.DUPLICATE
    }
    spool.close()


def test_history_goes_before_anything_that_was_not_sent(path: Path, files: MoodyFiles) -> None:
    spool = opened(path, files)
    book = spool.identity_book(vehicles_max=10)
    fill(spool, book, 1, 100)
    spool.marks.note(Mark.FORWARDED_TELEMETRY, 200)
    spool.marks.note(Mark.SCORED, 200)
    spool.save(book)
    fill(spool, book, 101, 300)
    assert gaps(spool) == []
    assert there(spool)[0][1] > 20
    assert {seq for _, seq in there(spool)} >= set(range(101, 301))
    fill(spool, book, 301, 450)
    assert min(seq for _, seq in told(gaps(spool))) == 101
    spool.close()


def test_what_was_sent_out_of_order_is_not_told_as_lost(path: Path, files: MoodyFiles) -> None:
    spool = opened(path, files)
    book = spool.identity_book(vehicles_max=10)
    spool.tell_sent(lambda position: position % 2 == 0)
    fill(spool, book, 1, 600)
    assert {record["vehicle_id"] for record in gaps(spool)} == {"a"}
    spool.close()


@pytest.mark.parametrize("name", ["remove", "sync_directory"])
def test_a_power_cut_between_the_gap_and_the_file_tells_it_once(
    path: Path, files: MoodyFiles, name: str
) -> None:
    spool = opened(path, files)
    book = spool.identity_book(vehicles_max=10)
    last = 0
    files.moods.refuses = {} if name == "sync_directory" else {name: errno.EIO}
    with pytest.raises(SpoolError):
        for first in range(1, 2_000, 5):
            fill(spool, book, first, first + 4)
            last = first + 4
            if spool.size_bytes() > 100_000:
                files.moods.refuses = {name: errno.EIO}
    files.moods.refuses = {}
    spool._file_lock.close()
    spool = opened(path, files)
    gone, kept = told(gaps(spool)), there(spool)
    assert len(gone) == len(set(gone))
    assert set(gone) | set(kept) >= everything(last)
    assert not set(gone) & set(kept)
    spool.close()


def test_a_disk_that_others_fill_gets_room_from_the_oldest_telemetry(
    path: Path, files: MoodyFiles
) -> None:
    spool = opened(path, files)
    book = spool.identity_book(vehicles_max=10)
    spool.tend()
    fill(spool, book, 1, 200)
    before = spool.size_bytes()
    files.free = 40_000
    fill(spool, book, 201, 205)
    assert spool.size_bytes() < before
    assert {record["reason"] for record in gaps(spool)} == {"free-space"}
    assert set(told(gaps(spool))) | set(there(spool)) == everything(205)
    files.free = 0
    fill(spool, book, 206, 220)
    assert there(spool)[-1] == ("b", 220)
    spool.close()


def test_a_full_disk_is_freed_by_the_reserve(path: Path, files: MoodyFiles) -> None:
    """No byte can be written before something was deleted: the reserve is."""
    spool = opened(path, files)
    book = spool.identity_book(vehicles_max=10)
    spool.tend()
    assert (path / "reserve").stat().st_size == LIMITS.reserve_bytes
    fill(spool, book, 1, 200)
    group = rows(201, 205)
    for row in group:
        book.admit(row.vehicle_id, 1, row.seq, 1)
    files.free = 0
    files.moods.refuses = {"append": errno.ENOSPC}
    files.moods.until_removed = "append"
    spool.store(group, [], book)
    assert files.moods.refuses == {}
    assert not (path / "reserve").exists()
    assert set(told(gaps(spool))) | set(there(spool)) == everything(205)
    files.free = EVERYTHING
    spool.tend()
    assert (path / "reserve").exists()
    spool.close()


def test_without_limits_nothing_ever_goes(path: Path, files: MoodyFiles) -> None:
    spool = opened(path, files, None)
    book = spool.identity_book(vehicles_max=10)
    fill(spool, book, 1, 50)
    files.moods.refuses, files.free = {"append": errno.ENOSPC}, 0
    for _ in range(20):
        with pytest.raises(SpoolError):
            spool.store(rows(51, 51), [], book)
    files.moods.refuses = {}
    assert set(there(spool)) == everything(50)
    spool.close()


def test_a_lower_quota_discards_nothing_and_holds_once_it_fits(
    path: Path, files: MoodyFiles
) -> None:
    spool = opened(path, files)
    book = spool.identity_book(vehicles_max=10)
    fill(spool, book, 1, 200)
    spool.save(book)
    spool.close()
    low = SpoolLimits(bytes_max=40_000, segment_bytes=10_000, reserve_bytes=0)
    spool = opened(path, files, low)
    assert set(there(spool)) == everything(200)
    assert gaps(spool) == []
    above = spool.quota_bytes
    assert above > 80_000
    spool.marks.note(Mark.FORWARDED_TELEMETRY, 400)
    spool.marks.note(Mark.SCORED, 400)
    spool.tend()
    assert spool.quota_bytes == 40_000
    book = spool.identity_book(vehicles_max=10)
    fill(spool, book, 201, 250)
    assert gaps(spool) == []
    assert spool.size_bytes() <= 40_000
    spool.change_limits(LIMITS)
    assert spool.quota_bytes == LIMITS.bytes_max
    spool.close()


def test_records_that_never_go_fill_the_quota_and_then_refuse(
    path: Path, files: MoodyFiles
) -> None:
    spool = opened(path, files)
    book = spool.identity_book(vehicles_max=10)
    fill(spool, book, 1, 50)
    number = 0
    with pytest.raises(SpoolError, match="alerts and other records"):
        while number < 1_000:
            spool.store_priority([Priority(Kind.ALERT, "a", 1, b"%d" % number + bytes(900))])
            number += 1
    assert 100 < number < 140
    spool.marks.note(Mark.FORWARDED_PRIORITY, spool.last(Lane.PRIORITY))
    spool.tend()
    assert spool.trim(Lane.PRIORITY, through=EVERYTHING) > 5
    spool.store_priority([Priority(Kind.ALERT, "a", 1, b"at last")])
    spool.close()
    spool = opened(path, files)
    assert spool.marks[Mark.FORWARDED_PRIORITY] == spool.last(Lane.PRIORITY) - 1
    spool.close()


def segment(path: Path, at: int, lane: Lane = Lane.TELEMETRY) -> Path:
    return sorted((path / lane).glob(f"*{SEGMENT_SUFFIX}"))[at]


def damage(file: Path, at: int, length: int = 1) -> None:
    content = bytearray(file.read_bytes())
    content[at : at + length] = bytes(byte ^ 0xFF for byte in content[at : at + length])
    file.write_bytes(content)


@pytest.mark.parametrize("length", [1, 700])
@pytest.mark.parametrize("indexed", [True, False])
def test_a_damaged_place_is_passed_over_copied_aside_and_told(
    path: Path, files: MoodyFiles, length: int, indexed: bool
) -> None:
    spool = opened(path, files)
    fill(spool, spool.identity_book(vehicles_max=10), 1, 150)
    spool.close()
    damage(segment(path, 2), 4_000, length)
    whole = segment(path, 2).read_bytes()
    if not indexed:
        for index in (path / Lane.TELEMETRY).glob(f"*{INDEX_SUFFIX}"):
            index.unlink()
    spool = opened(path, files)
    kept = there(spool)
    gone = told(gaps(spool))
    assert set(kept) | set(gone) == everything(150)
    assert len(gone) == 300 - len(kept)
    assert 1 <= len(gone) <= 2 + length // 200
    assert {record["reason"] for record in gaps(spool)} == {"damaged"}
    assert there(spool) == kept
    [news] = spool.take_news()
    assert "damaged" in news
    [copy] = (path / "damaged").iterdir()
    assert copy.read_bytes() == whole
    assert spool.drops == {"damaged": len(gone)}
    book = spool.identity_book(vehicles_max=10)
    fill(spool, book, 151, 160)
    spool.close()
    spool = opened(path, files)
    assert len(there(spool)) == 320 - len(gone)
    assert told(gaps(spool)) == gone
    assert spool.take_news() == []
    spool.close()


def test_damage_at_the_end_of_a_segment_is_told_without_names(
    path: Path, files: MoodyFiles
) -> None:
    spool = opened(path, files)
    fill(spool, spool.identity_book(vehicles_max=10), 1, 150)
    spool.close()
    file = segment(path, 1)
    damage(file, file.stat().st_size - 100)
    spool = opened(path, files)
    kept = there(spool)
    [gap] = gaps(spool)
    assert (gap["vehicle_id"], gap["batches"]) == (None, 300 - len(kept))
    spool.close()


def test_damage_of_what_is_in_kafka_is_no_gap(path: Path, files: MoodyFiles) -> None:
    spool = opened(path, files)
    book = spool.identity_book(vehicles_max=10)
    fill(spool, book, 1, 150)
    spool.marks.note(Mark.FORWARDED_TELEMETRY, 300)
    spool.save(book)
    spool.close()
    damage(segment(path, 0), 2_000)
    spool = opened(path, files)
    there(spool)
    assert gaps(spool) == []
    assert "0 unsent rows" in spool.take_news()[0]
    spool.close()


def test_a_damaged_frame_of_the_other_lane_is_told_too(path: Path, files: MoodyFiles) -> None:
    spool = opened(path, files)
    for number in range(30):
        spool.store_priority([Priority(Kind.ALERT, "a", 1, b"%d" % number + bytes(100))])
    spool.close()
    damage(segment(path, 0, Lane.PRIORITY), 1_500)
    spool = opened(path, files)
    found = spool.reader().priority(after=0, rows_max=EVERYTHING, bytes_max=EVERYTHING)
    assert len([row for row in found if row.kind == Kind.ALERT]) == 29
    found = spool.reader().priority(after=0, rows_max=EVERYTHING, bytes_max=EVERYTHING)
    [gap] = gaps(spool)
    assert (gap["vehicle_id"], gap["batches"], gap["reason"]) == (None, 1, "damaged")
    spool.close()


def test_a_page_that_the_disk_has_lost_costs_that_page_alone(path: Path, files: MoodyFiles) -> None:
    spool = opened(path, files)
    fill(spool, spool.identity_book(vehicles_max=10), 1, 150)
    spool.close()
    spool = opened(path, files)
    files.lost_page = (segment(path, 1), 4_096)
    kept = there(spool)
    assert set(kept) | set(told(gaps(spool))) == everything(150)
    assert 0 < 300 - len(kept) <= 4_096 // 200 + 2
    spool.close()


def test_damage_that_cannot_be_told_stops_the_reader_until_it_can(
    path: Path, files: MoodyFiles
) -> None:
    spool = opened(path, files)
    fill(spool, spool.identity_book(vehicles_max=10), 1, 150)
    spool.close()
    damage(segment(path, 0), 2_000)
    spool = opened(path, files, None)
    files.moods.refuses = {"append": errno.EROFS}
    with pytest.raises(SpoolError):
        there(spool)
    files.moods.refuses = {}
    assert set(there(spool)) | set(told(gaps(spool))) == everything(150)
    spool.close()


def test_copies_of_damaged_segments_are_bounded(path: Path, files: MoodyFiles) -> None:
    spool = opened(path, files)
    fill(spool, spool.identity_book(vehicles_max=10), 1, 220)
    spool.close()
    for at in range(FILES_MAX + 3):
        damage(segment(path, at), 3_000)
    spool = opened(path, files)
    there(spool)
    assert len(list((path / "damaged").iterdir())) == FILES_MAX
    assert len(told(gaps(spool))) + len(there(spool)) == 440
    spool.close()


batches = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(1, 2), st.integers(1, 40), st.just(10)),
    unique_by=lambda batch: batch[:3],
    min_size=1,
)


@given(batches=batches, gaps_max=st.integers(1, 20))
def test_gaps_stand_for_all_batches_and_are_bounded(
    batches: list[tuple[str, int, int, int]], gaps_max: int
) -> None:
    found = gaps_of(batches, gaps_max=gaps_max)
    assert len(found) <= gaps_max
    assert sum(gap.batches for gap in found) == len(batches)
    assert sum(gap.bytes for gap in found) == 10 * len(batches)
    for vehicle_id, boot_id, seq, _ in batches:
        assert any(_stands_for(gap, vehicle_id, boot_id, seq) for gap in found)


def _stands_for(gap: Gap, vehicle_id: str, boot_id: int, seq: int) -> bool:
    if gap.vehicle_id is None:
        return True
    named = (gap.vehicle_id, gap.boot_id) == (vehicle_id, boot_id)
    return named and gap.first_seq <= seq <= gap.last_seq


def test_marks_stay_when_the_telemetry_goes_that_held_them(path: Path, files: MoodyFiles) -> None:
    spool = opened(path, files)
    book = spool.identity_book(vehicles_max=10)
    fill(spool, book, 1, 50)
    spool.marks.note(Mark.FORWARDED_TELEMETRY, 40)
    spool.marks.note(Mark.POSITIONS_OFFSET, 8)
    fill(spool, book, 51, 55)
    assert spool.marks.durable(Mark.FORWARDED_TELEMETRY) == 40
    files.free = 0
    fill(spool, book, 56, 100)
    for segment_ in (path / Lane.TELEMETRY).iterdir():
        segment_.unlink()
    spool._file_lock.close()
    spool = opened(path, files)
    assert spool.marks[Mark.FORWARDED_TELEMETRY] == 40
    assert spool.marks[Mark.POSITIONS_OFFSET] == 8
    spool.close()


def test_a_hole_of_another_vehicle_is_not_taken_for_what_was_lost(
    path: Path, files: MoodyFiles
) -> None:
    spool = opened(path, files)
    book = spool.identity_book(vehicles_max=10)
    group = [row for row in rows(1, 30) if (row.vehicle_id, row.seq) != ("a", 12)]
    group = [row for row in group if row.vehicle_id == "a" or row.seq == 12]
    for row in group:
        book.admit(row.vehicle_id, row.boot_id, row.seq, row.oldest_seq)
    spool.store(group, [], book)
    spool.save(book)
    spool.close()
    file = segment(path, 0)
    damage(file, file.read_bytes().index(b"12 "))
    spool = opened(path, files)
    assert len(there(spool)) == len(group) - 1
    [gap] = gaps(spool)
    assert (gap["vehicle_id"], gap["batches"]) == (None, 1)
    spool.close()
