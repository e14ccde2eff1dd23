"""The gateway's own time: boots, synchronisation, jumps; and what its rows mean."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from edge_parts import EPOCH_MS, FakeClock, batch
from hypothesis import given
from hypothesis import strategies as st

from edge.clock import NOT_BEFORE_MS, Evidence, SystemClock, is_synced
from edge.frames import Framer
from edge.history import history_start, position_at
from edge.marks import Mark
from edge.receipts import UNKNOWN_MS, Receipts
from edge.rows import Kind, Lane, StoredPriority, StoredTelemetry, Telemetry
from edge.spool import Spool
from edge.timekeeper import (
    MARK_BITS,
    STEPS_BELIEVED,
    Epoch,
    Moment,
    Stamp,
    Timekeeper,
    age_ms,
    begin,
    is_true,
    known_ms,
)
from schemas.records import encode_single_object
from schemas.topics import LABELS
from transport.kafka import SchemaIds

HOUR_MS = 3_600_000
YEAR_MS = 8_766 * HOUR_MS
TRUE_MS = EPOCH_MS + 100_000_000_000

PAST = [b"%d" % (NOT_BEFORE_MS + 20_000 + 1_000 * seconds) for seconds in range(4)]
"""What a clock that says 1970 counts for, so long after a boot 20 s ago."""

EVIDENCE = [
    (Evidence(kernel=True, timesyncd=False, chrony=None), True),
    (Evidence(kernel=False, timesyncd=True, chrony=None), False),  # set by hand since
    (Evidence(kernel=False, timesyncd=False, chrony=True), True),  # chrony without rtcsync
    (Evidence(kernel=False, timesyncd=False, chrony=False), False),
    (Evidence(kernel=None, timesyncd=True, chrony=None), True),
    (Evidence(kernel=None, timesyncd=False, chrony=None), False),
]


@pytest.mark.parametrize(("evidence", "right"), EVIDENCE)
def test_a_clock_is_believed_only_with_evidence_and_never_before_the_release(
    evidence: Evidence, right: bool
) -> None:
    assert is_synced(evidence, NOT_BEFORE_MS) is right
    assert not is_synced(evidence, NOT_BEFORE_MS - 1)


def test_this_machine_has_clocks() -> None:
    clock = SystemClock()
    before = clock.monotonic_ms()
    assert clock.boot_mark() == SystemClock().boot_mark() != ""
    assert clock.monotonic_ms() >= before > 0
    assert clock.synced() in (True, False)


class Ground:
    """A spool with a timekeeper, which can be restarted and rebooted."""

    def __init__(self, directory: Path, clock: FakeClock) -> None:
        self.path = directory / "spool.db"
        self.clock = clock
        self.seq = 0
        self.open()

    def open(self) -> None:
        self.spool = Spool(self.path, now_ms=0)
        self.keeper = Timekeeper(self.clock, self.spool)
        self.book = self.spool.identity_book(vehicles_max=10)

    def restart(self) -> None:
        """Without a save, as after a crash."""
        self.spool.close()
        self.open()

    def reboot(self, *, wall: int) -> None:
        """Power off and on: a new boot, whose clock begins anywhere."""
        self.clock.boot += "+"
        self.clock.monotonic, self.clock.wall, self.clock.right = 20_000, wall, False
        self.restart()

    def receive(self, count: int = 1, *, every_ms: int = 1_000) -> None:
        for _ in range(count):
            self.clock.advance(every_ms)
            self.keeper.tick()
            self.seq += 1
            self.book.admit("car", 1, self.seq, 1)
            received_ms, gateway_boot, monotonic_ms = self.keeper.now()
            row = Telemetry(
                "car",
                1,
                self.seq,
                1,
                received_ms,
                batch("car", self.seq),
                None,
                gateway_boot,
                monotonic_ms,
            )
            self.spool.store([row], (), self.book)

    def rows(self) -> list[StoredTelemetry]:
        reader = self.spool.reader()
        try:
            return reader.telemetry(after=0, rows_max=1 << 30, bytes_max=1 << 40)
        finally:
            reader.close()

    def learn_the_time(self) -> None:
        self.clock.wall, self.clock.right = TRUE_MS, True
        self.keeper.tick()


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    ground = Ground(tmp_path, FakeClock(wall=5_000, monotonic=20_000, right=False))
    yield ground
    ground.spool.close()


def test_rows_from_before_the_clock_was_right_are_corrected_when_it_is(ground: Ground) -> None:
    ground.receive(3)
    receipts = Receipts(ground.keeper, ground.spool)
    assert [r.headers for r in map(receipts.of, ground.rows())] == [(("clock_synced", b"0"),)] * 3
    assert set(receipts.times(ground.rows()).tolist()) == {UNKNOWN_MS}
    ground.learn_the_time()
    ground.receive(1)
    assert [receipts.of(row) for row in ground.rows()] == [
        (TRUE_MS - 2_000, (("received_corrected", b"1"), ("received_raw_ms", PAST[1]))),
        (TRUE_MS - 1_000, (("received_corrected", b"1"), ("received_raw_ms", PAST[2]))),
        (TRUE_MS, (("received_corrected", b"1"), ("received_raw_ms", PAST[3]))),
        (TRUE_MS + 1_000, ()),
    ]


def test_boots_without_the_time_stay_as_they_are_and_others_are_corrected(ground: Ground) -> None:
    ground.receive(2)
    ground.reboot(wall=7_000)
    ground.receive(2)
    ground.learn_the_time()
    ground.receive(1)
    ground.reboot(wall=9_000)
    ground.receive(1)
    receipts = Receipts(ground.keeper, ground.spool)
    told = [receipts.of(row) for row in ground.rows()]
    assert [receipt.received_ms for receipt in told] == [
        NOT_BEFORE_MS + 21_000,
        NOT_BEFORE_MS + 22_000,
        TRUE_MS - 1_000,
        TRUE_MS,
        TRUE_MS + 1_000,
        TRUE_MS + 21_000,  # after what is past: the true time at which the clock was set
    ]
    assert [dict(receipt.headers).get("clock_synced") for receipt in told] == [
        b"0",
        b"0",
        None,
        None,
        None,
        b"0",
    ]


@pytest.mark.parametrize("jump_ms", [YEAR_MS, -HOUR_MS])
@pytest.mark.parametrize("claims_to_be_right", [False, True])
def test_a_jump_of_the_clock_moves_no_time_of_receipt(
    ground: Ground, jump_ms: int, claims_to_be_right: bool
) -> None:
    ground.learn_the_time()
    ground.receive(2)
    ground.clock.wall += jump_ms
    ground.clock.right = claims_to_be_right
    ground.receive(2)
    ground.restart()
    ground.receive(1)
    assert [row.received_ms for row in ground.rows()] == [TRUE_MS + 1_000 * n for n in range(1, 6)]
    assert ground.keeper.known


def test_a_step_that_lasts_is_believed(ground: Ground) -> None:
    ground.learn_the_time()
    ground.clock.wall += HOUR_MS
    for _ in range(STEPS_BELIEVED):
        ground.keeper.tick()
    assert ground.keeper.wall_ms() == TRUE_MS
    ground.keeper.tick()
    assert ground.keeper.wall_ms() == TRUE_MS + HOUR_MS


def test_a_restart_within_a_boot_knows_what_the_last_life_knew(ground: Ground) -> None:
    ground.receive(1)
    ground.learn_the_time()
    ground.receive(1)
    ground.clock.wall, ground.clock.right = 3, False
    ground.restart()
    assert not ground.keeper.synced
    assert ground.keeper.wall_ms() == TRUE_MS + 1_000
    receipts = Receipts(ground.keeper, ground.spool)
    assert receipts.of(ground.rows()[0]).received_ms == TRUE_MS


def test_moments_rise_over_restarts_reboots_and_lost_marks(ground: Ground) -> None:
    for wall in (5, TRUE_MS, 0):
        ground.receive(2)
        ground.restart()
        ground.receive(1)
        ground.learn_the_time()
        ground.restart()
        ground.receive(2)
        ground.reboot(wall=wall)
    rows = [Moment(row.gateway_boot, row.monotonic_ms) for row in ground.rows()]
    assert rows == sorted(rows)
    assert len({row.gateway_boot for row in rows}) == 6


def test_a_boot_keeps_its_number_and_another_gets_a_greater_one() -> None:
    first = begin(0, None, boot=7, monotonic_ms=5)
    assert first == Epoch(2)
    mark = first.gateway_boot << MARK_BITS | 7
    assert begin(mark, None, boot=7, monotonic_ms=9) == first
    assert begin(mark, None, boot=8, monotonic_ms=9) == Epoch(4)
    row = StoredTelemetry(1, "car", 1, 1, 1_000, b"", None, 3, 400)
    true = 3 << MARK_BITS | 7
    assert begin(true, row, boot=7, monotonic_ms=500) == Epoch(3, 600)
    assert begin(mark, row, boot=7, monotonic_ms=500) == Epoch(3, 600)  # the mark was not saved
    assert begin(true, None, boot=7, monotonic_ms=500) == Epoch(2)
    assert begin(true, row, boot=7, monotonic_ms=300) == Epoch(4)  # the spool of another machine
    assert begin(true, row, boot=8, monotonic_ms=500) == Epoch(4)


def test_ages_go_by_monotonic_time_and_over_a_boot_are_at_least_that_of_the_boot() -> None:
    now = Stamp(received_ms=1, gateway_boot=5, monotonic_ms=90_000)
    assert age_ms(Moment(5, 60_000), now) == 30_000
    assert age_ms(Moment(4, 60_000), now) == 30_000
    assert age_ms(Moment(3, 80_000), now) == 90_000


@st.composite
def courses(draw: st.DrawFn) -> list[Moment]:
    """Moments of a spool: boots that become right at some time, or never."""
    moments = []
    for boot in range(draw(st.integers(1, 4))):
        monotonic_ms, number = draw(st.integers(0, 50)), 2 * boot + 2
        for _ in range(draw(st.integers(0, 12))):
            monotonic_ms += draw(st.integers(0, 20))
            number |= int(draw(st.integers(0, 3)) == 0)
            moments.append(Moment(number, monotonic_ms))
    return moments


@given(courses(), st.integers(0, 200), st.integers(1, 5))
def test_history_is_what_was_awake_for_so_long_and_never_less(
    course: list[Moment], history_ms: int, first: int
) -> None:
    last = first + len(course) - 1

    def moment_at(position: int) -> Moment | None:
        return course[position - first] if position <= last else None

    def awake_ms(moment: Moment) -> int:
        """Of all boots before a moment's, as far as rows tell, and since it booted."""
        ends = {m.gateway_boot // 2: m.monotonic_ms for m in course}
        boot = moment.gateway_boot // 2
        return moment.monotonic_ms + sum(ms for other, ms in ends.items() if other < boot)

    found = history_start(history_ms, first=first, last=last, moment_at=moment_at)
    if not course:
        assert found == first
        return
    oldest_ms = awake_ms(course[-1]) - history_ms
    assert found == first + sum(awake_ms(m) < oldest_ms for m in course)


@given(courses(), st.integers(0, 12), st.integers(0, 99), st.integers(1, 5))
def test_bisection_finds_the_first_row_of_a_moment(
    course: list[Moment], boot: int, monotonic_ms: int, first: int
) -> None:
    last = first + len(course) - 1

    def moment_at(position: int) -> Moment | None:
        return course[position - first] if position <= last else None

    wanted = Moment(boot, monotonic_ms)
    found = position_at(
        lambda moment: moment >= wanted, first=first, last=last, moment_at=moment_at
    )
    assert found == first + sum(moment < wanted for moment in course)


def test_a_hole_in_the_spool_ends_no_search() -> None:
    course = {1: Moment(2, 10), 2: Moment(2, 20), 7: Moment(4, 5), 8: Moment(4, 6)}

    def moment_at(position: int) -> Moment | None:
        return next((m for at, m in sorted(course.items()) if at >= position), None)

    assert history_start(15, first=1, last=8, moment_at=moment_at) == 2
    assert history_start(40, first=1, last=8, moment_at=moment_at) == 1


def test_the_mark_is_saved_with_the_first_row(ground: Ground) -> None:
    ground.receive(1)
    assert ground.spool.marks.durable(Mark.GATEWAY_BOOT) >> MARK_BITS == 2
    assert not is_true(ground.rows()[0].gateway_boot)
    assert ground.spool.last(Lane.TELEMETRY) == 1


def test_what_knows_no_true_time_is_written_at_that_of_forwarding() -> None:
    assert (known_ms(7, 3), known_ms(7, 2), known_ms(7, 0)) == (7, 0, 7)
    label = {
        "vehicle_id": "car",
        "label": "test",
        "signal": None,
        "start_time": 0,
        "end_time": None,
        "severity": 1.0,
        "source": "test",
    }
    payload = encode_single_object("VehicleLabel", label)
    framer = Framer("gw", SchemaIds({LABELS.name: 5}), 1, now_ms=lambda: TRUE_MS)
    for received_ms, written_ms in ((0, TRUE_MS), (9, 9)):
        row = StoredPriority(1, Kind.LABEL, "car", received_ms, payload)
        assert [record.timestamp_ms for record in framer.priority(row)] == [written_ms]
