"""What goes next: the pure pieces by themselves, and lanes over a real spool."""

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from edge_parts import batch
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.identity import IdentityBook
from edge.lane_reader import LaneReader, Taken
from edge.lanes import TelemetryLanes, age_s
from edge.marks import Mark
from edge.ranges import RANGES_MAX, Gap, Ranges
from edge.rows import Kind, Lane, Priority, StoredTelemetry, Telemetry
from edge.settings import GatewaySettings
from edge.slices import LONGEST_S, SLICE_BYTES_MIN, RoundTrips, Slice
from edge.spool import Spool
from edge.timekeeper import Stamp
from edge.token_bucket import BURST_S, TokenBucket

STRETCHES = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 9)), max_size=25)


@given(STRETCHES)
def test_ranges_are_a_set_in_short(stretches: list[tuple[int, int]]) -> None:
    done, model = Ranges(), set[int]()
    for first, more in stretches:
        done.add(first, first + more)
        model |= set(range(first, first + more + 1))
        assert [p for p in range(1, 80) if done.covers(p)] == sorted(model)
        assert done.end == max(model)
        assert done.ahead == len([p for p in model if p > done.contiguous])
        ends = [done.contiguous, *(end for pair in done.above for end in pair)]
        assert all(b - a > 1 for a, b in zip(ends[::2], ends[1::2], strict=False)), "adjacent"
        assert all(a <= b for a, b in done.above)


@given(STRETCHES, st.integers(0, 70))
def test_gaps_are_what_is_missing_below_the_end(stretches: list[tuple[int, int]], cut: int) -> None:
    done = Ranges.of(0, [(first, first + more) for first, more in stretches])
    missing = [p for p in range(1, done.end) if not done.covers(p)]
    found, after = [], 0
    while (gap := done.missing_after(after)) is not None:
        assert gap.first > after
        found += list(range(gap.first, gap.last + 1))
        after = gap.last
    assert found == missing
    lower = done.up_to(cut)
    assert [p for p in range(1, 80) if lower.covers(p)] == [
        p for p in range(1, cut + 1) if done.covers(p)
    ]


@given(
    rate=st.floats(0.1, 1e5),
    steps=st.lists(st.tuples(st.floats(0, 100), st.integers(0, 10_000)), max_size=40),
)
def test_no_more_go_than_the_rate_and_a_burst(rate: float, steps: list[tuple[float, int]]) -> None:
    bucket, now_s, gone = TokenBucket(rate, at_s=50.0), 50.0, 0
    for pause_s, wanted in steps:
        now_s += pause_s
        available = bucket.available(now_s)
        assert available is not None
        assert 0 <= available <= max(1.0, rate * BURST_S)
        some = min(wanted, available)
        bucket.take(some, now_s)
        gone += some
        assert gone <= rate * (now_s - 50.0) + 1e-6 * max(1, gone)
        if wanted:
            later_s = now_s + bucket.wait_s(wanted, now_s) + 1e-6 * now_s
            reached = bucket.available(later_s)
            assert reached is not None
            assert reached >= min(wanted, math.floor(max(1.0, rate * BURST_S)))
            now_s = later_s


def test_a_rate_of_nothing_is_no_limit() -> None:
    bucket = TokenBucket(0.0)
    bucket.take(10**6, 1.0)
    assert bucket.available(1.0) is None
    assert bucket.wait_s(10**6, 1.0) == 0.0


@dataclass
class Way:
    """An uplink by its round trips and its width."""

    trips_s: float
    bytes_per_s: float
    trips: RoundTrips = field(default_factory=RoundTrips)

    def settle(self, part: Slice, transactions: int = 60) -> list[float]:
        """Transactions that use all they may; how long each took."""
        times = []
        for _ in range(transactions):
            took_s = self.trips_s + part.size / self.bytes_per_s
            self.trips.took(took_s, used=part.size)
            part.took(took_s, used=part.size, round_trips_s=self.trips.quickest_s)
            times.append(took_s)
        return times


def test_a_slice_finds_what_the_uplink_bears() -> None:
    most = 8 << 20
    wide = Slice(SLICE_BYTES_MIN, most, 1.0, 1.0)
    Way(0.01, 100e6).settle(wide)
    assert wide.size == most
    far = Slice(SLICE_BYTES_MIN, most, 1.0, 1.0)
    Way(6.0, 10e6).settle(far)
    assert far.size == most, "latency is no reason to send less at once"
    narrow = Slice(most, most, 1.0, 1.0)
    times = Way(0.3, 20e3).settle(narrow)
    assert max(times[-10:]) <= LONGEST_S
    modest = Slice(SLICE_BYTES_MIN, most, 1.0, 1.0)
    way = Way(0.3, 20e3)
    way.trips.took(way.trips_s, used=0)
    assert max(way.settle(modest)) < 2.7, "whoever comes next waits no longer than that"


def test_a_backlog_slice_takes_no_more_than_half_of_the_round_trips() -> None:
    part = Slice(SLICE_BYTES_MIN, 1 << 20, 0.5, 0.002)
    way = Way(0.010, 20e6)
    way.trips.took(way.trips_s, used=0)
    assert max(way.settle(part)) <= 0.010 * 1.5
    way.trips_s = 0.100  # The way becomes longer, and is learned anew.
    way.settle(part, 500)
    assert part.size > 4 * SLICE_BYTES_MIN
    assert max(way.settle(part)) <= 0.100 * 1.5


def row_at(monotonic_ms: int, *, boot: int, received_ms: int = 0) -> StoredTelemetry:
    return StoredTelemetry(1, "car", 1, 1, received_ms, b"", None, boot, monotonic_ms)


def test_age_goes_by_the_boot_and_not_by_the_clock() -> None:
    hour_ms = 3_600_000
    now = Stamp(received_ms=5, gateway_boot=7, monotonic_ms=90_000)
    assert age_s(row_at(30_000, boot=7, received_ms=hour_ms), now) == 60.0
    assert age_s(row_at(30_000, boot=6, received_ms=hour_ms), now) == 60.0  # clock set since
    assert age_s(row_at(30_000, boot=5, received_ms=4), now) == math.inf
    assert age_s(row_at(0, boot=0, received_ms=5_000), Stamp(35_000, 7, 0)) == 30.0


def test_at_the_limit_of_ranges_there_is_no_new_jump_until_one_closes() -> None:
    lanes = TelemetryLanes()
    tail = 0
    while lanes.jumps(31.0, backlog_after_s=30.0):
        tail += 10
        lanes.jump(tail)
        lanes.forwarded(lanes.live_after + 1, tail + 1)
        tail += 1
    assert len(lanes.done.above) == RANGES_MAX
    assert lanes.gap() == Gap(1, 10)
    lanes.forwarded(1, 10)
    assert lanes.jumps(31.0, backlog_after_s=30.0)
    assert not lanes.jumps(29.0, backlog_after_s=30.0)


def test_what_was_given_up_is_done() -> None:
    lanes = TelemetryLanes(Ranges(5, [(21, 30)]), 30)
    assert lanes.backlog == 15
    lanes.gave_up(12)
    assert (lanes.gap(), lanes.backlog) == (Gap(13, 20), 8)
    lanes.gave_up(40)
    assert (lanes.gap(), lanes.live_after, lanes.backlog) == (None, 40, 0)


BOOT = 3


@dataclass
class Scene:
    """A real spool, lanes over it, and a Kafka that is a list."""

    spool: Spool
    lanes: LaneReader
    book: IdentityBook
    now_ms: int = 1_000_000
    seq: int = 0
    positions: list[int] = field(default_factory=list)
    late: set[int] = field(default_factory=set)
    letters: int = 0
    claimed: dict[Lane, Ranges] = field(default_factory=lambda: {lane: Ranges() for lane in Lane})

    def store(self, rows: int) -> None:
        telemetry = []
        for _ in range(rows):
            self.seq += 1
            payload = batch("car", self.seq)
            telemetry.append(Telemetry("car", 1, self.seq, 1, 0, payload, None, BOOT, self.now_ms))
        self.spool.store(telemetry, (), self.book)

    def store_letter(self) -> None:
        self.spool.store_priority([Priority(Kind.LABEL, "car", self.now_ms, bytes(20))])

    def step(self, *, committed: bool = True) -> Taken:
        """One transaction, whose time on an uplink would be by its size."""
        now_s = self.now_ms / 1000.0
        taken = self.lanes.take(Stamp(0, BOOT, self.now_ms), now_s)
        moved = self.lanes.after(taken)
        if not taken.rows:
            self.lanes.skipped(moved)
            return taken
        if not committed:
            return taken
        self.claimed |= {lane: done.copy() for lane, done in self.lanes.changed(moved).items()}
        assert all(len(done.above) <= RANGES_MAX for done in self.claimed.values())
        backlog = [row.position for row in taken.backlog]
        live = [row.position for row in taken.live]
        assert not taken.priority or taken.priority[0].position == self.letters + 1
        self.letters += len(taken.priority)
        self.positions += live + backlog
        self.late |= set(backlog) | set(live if taken.live_late else ())
        took_s = 0.01 + sum(len(r.payload) for r in (*taken.live, *taken.backlog)) / 1e6
        self.lanes.forwarded(taken, moved, took_s=took_s, now_s=now_s)
        return taken

    def resume(self) -> None:
        """A new connection, or a new process: what Kafka says counts."""
        positions = {lane: done.copy() for lane, done in self.claimed.items()}
        self.lanes.resume(positions, now_s=self.now_ms / 1000.0, round_trips_s=0.01)


@contextmanager
def scene(path: Path, **wanted: float) -> Iterator[Scene]:
    spool = Spool(path / "spool.db", now_ms=0)
    reader = spool.reader()
    try:
        chosen = GatewaySettings(**wanted)  # type: ignore[arg-type]
        made = Scene(spool, LaneReader(chosen, spool, reader), spool.identity_book(vehicles_max=10))
        made.resume()
        yield made
    finally:
        reader.close()
        spool.close()


def test_after_an_outage_live_goes_at_once_and_the_backlog_behind_it(tmp_path: Path) -> None:
    with scene(tmp_path, backlog_after_s=30.0, backlog_rate=10.0) as it:
        it.store(100)
        it.now_ms += 31_000
        it.store(3)
        it.resume()
        assert [row.position for row in it.step().live] == [101, 102, 103]
        assert it.lanes.telemetry.backlog == 100
        it.store(2)
        taken = it.step()
        assert [row.position for row in taken.live] == [104, 105]
        assert not taken.backlog, "the bucket begins empty"
        it.now_ms += 1_000
        it.store(1)
        it.store_letter()
        taken = it.step()
        assert [row.position for row in taken.live] == [106]
        assert [row.position for row in taken.backlog] == list(range(1, 11))
        assert it.claimed[Lane.TELEMETRY] == Ranges(10, [(101, 106)])
        assert it.claimed[Lane.PRIORITY] == Ranges(1)
        while it.lanes.telemetry.backlog:
            it.now_ms += 1_000
            it.step()
        assert sorted(it.positions) == list(range(1, 107))
        assert it.late == set(range(1, 101))
        assert it.claimed[Lane.TELEMETRY] == Ranges(106)


def test_an_uplink_that_is_too_slow_makes_backlog_as_well(tmp_path: Path) -> None:
    """Ten rows a second come, and four may go; live data stay young between the jumps."""
    with scene(tmp_path, backlog_after_s=30.0, forward_messages_max=4, backlog_rate=0.5) as it:
        jumps, oldest_s = 0, 0.0
        for _ in range(200):
            it.now_ms += 1_000
            it.store(10)
            before = it.lanes.telemetry.live_after
            taken = it.step()
            jumps += it.lanes.telemetry.live_after - before > 4
            ages = [(it.now_ms - row.monotonic_ms) / 1000.0 for row in taken.live]
            oldest_s = max(oldest_s, *ages)
        assert oldest_s <= 30.0
        assert 2 <= jumps <= 6
        assert set(range(1, 5)).isdisjoint(it.late) and it.late


def test_a_short_outage_makes_no_backlog(tmp_path: Path) -> None:
    with scene(tmp_path, backlog_after_s=30.0) as it:
        it.store(50)
        it.now_ms += 29_000
        it.store(50)
        assert len(it.step().live) == 100
        assert not it.late


def test_a_quiet_backlog_goes_in_steps_of_its_rate(tmp_path: Path) -> None:
    with scene(tmp_path, backlog_rate=1_000.0) as it:
        assert it.lanes.wait_s(it.now_ms / 1000.0) is None
        it.store(500)
        it.now_ms += 60_000
        it.resume()
        it.step()
        assert it.lanes.wait_s(it.now_ms / 1000.0) == pytest.approx(0.1)


def test_rows_that_were_given_up_are_not_waited_for(tmp_path: Path) -> None:
    with scene(tmp_path, backlog_rate=0.0) as it:
        it.store(40)
        it.now_ms += 60_000
        it.store(1)
        it.resume()
        it.step(committed=False)
        it.spool.marks.note(Mark.GIVEN_UP, 30)
        while it.step().rows:
            pass
        assert it.positions == [41, *range(31, 41)]
        assert it.lanes.done()[Lane.TELEMETRY] == 41


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("store"), st.integers(1, 30)),
        st.tuples(st.just("wait"), st.integers(1, 50_000)),
        st.tuples(st.just("letter"), st.just(0)),
        st.tuples(st.just("step"), st.just(0)),
        st.tuples(st.just("lost"), st.just(0)),
        st.tuples(st.just("resume"), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(EVENTS, st.sampled_from([0.0, 1.0, 50.0]))
def test_whatever_happens_each_row_goes_once(events: list[tuple[str, int]], rate: float) -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        scene(Path(directory), backlog_after_s=20.0, backlog_rate=rate) as it,
    ):
        letters = 0
        for what, size in events:
            match what:
                case "store":
                    it.store(size)
                case "wait":
                    it.now_ms += size
                case "letter":
                    it.store_letter()
                    letters += 1
                case "step":
                    it.step()
                case "lost":
                    it.step(committed=False)
                    it.resume()
                case _:
                    it.resume()
        while it.lanes.telemetry.backlog or it.lanes.positions[Lane.TELEMETRY] < it.seq:
            it.now_ms += 1_000
            it.step()
        it.step()
        assert sorted(it.positions) == list(range(1, it.seq + 1))
        assert it.letters == letters
        assert it.claimed[Lane.TELEMETRY].contiguous == it.seq
