"""True times of vehicles that boot without a clock: bounds hold, and it is told once."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from edge_parts import EPOCH_MS, FakeClock, batch
from hypothesis import given
from hypothesis import strategies as st

from edge.clock_watch import ClockWatch
from edge.marks import Mark
from edge.receipts import UNKNOWN_MS
from edge.rows import Kind, Lane, StoredTelemetry, Telemetry
from edge.settings import GatewaySettings
from edge.spool import Spool
from edge.timekeeper import Timekeeper
from edge.vehicle_clocks import SETTLED_MS, UNBOUNDED_MS, VehicleClocks
from schemas.codec import Framing, decode_telemetry
from schemas.records import Record, decode_single_object

TRUE_ZERO_MS = EPOCH_MS + 500_000
"""When the vehicle of these tests was switched on, in truth."""


@dataclass
class Road:
    """One vehicle, whose batches reach a gateway that booted at GATEWAY_ZERO_MS."""

    gateway_zero_ms: int = EPOCH_MS
    known: bool = True
    clocks: VehicleClocks = field(default_factory=lambda: VehicleClocks(boots_max=10))
    position: int = 0

    def hear(
        self,
        seq: int,
        uptime_ms: int,
        *,
        delay_ms: int = 50,
        oldest: int = 1,
        synced: bool = False,
        boot: int = 1,
        gateway_boot: int = 3,
    ) -> list[Record]:
        """A batch of one reading, measured at `uptime_ms`, comes after `delay_ms`."""
        shown_ms = TRUE_ZERO_MS if synced else 0
        payload = batch(
            "car",
            seq,
            boot=boot,
            oldest=oldest,
            event_ms=shown_ms + uptime_ms,
            uptime_ms=uptime_ms,
            synced=synced,
        )
        received_ms = TRUE_ZERO_MS + uptime_ms + delay_ms
        monotonic_ms = received_ms - self.gateway_zero_ms
        self.position += 1
        row = StoredTelemetry(
            self.position, "car", boot, seq, 0, payload, None, gateway_boot, monotonic_ms
        )
        columns = decode_telemetry([payload], framing=Framing.SINGLE_OBJECT, signals=())
        time_ms = received_ms if self.known else UNKNOWN_MS
        return self.clocks.hear(columns, [row], np.array([time_ms], np.int64))


def test_a_vehicle_that_learns_the_time_tells_it_once_for_its_boot() -> None:
    road = Road(known=False)
    assert road.hear(1, 1_000) == road.hear(2, 2_000) == []
    (told,) = road.hear(3, 3_000, synced=True)
    assert told == {
        "vehicle_id": "car",
        "boot_id": 1,
        "zero_time": TRUE_ZERO_MS,
        "error_ms": 1_000,
        "source": "vehicle",
        "offset_ms": TRUE_ZERO_MS,
        "synced_from_seq": 3,
    }
    assert road.hear(4, 4_000, synced=True) == road.hear(5, 5_000) == []


def test_one_that_always_knew_it_is_not_told_of() -> None:
    road = Road()
    assert [road.hear(seq, 1_000 * seq, synced=True) for seq in range(1, 100)] == [[]] * 99


def test_acknowledgements_bound_the_time_of_one_that_never_learns_it() -> None:
    road = Road()
    told = [
        record
        for seq in range(1, 200)
        for record in road.hear(seq, 1_000 * seq, oldest=max(1, seq - 1))
    ]
    assert len(told) == 1  # good at once, and later not so much better
    assert told[0]["source"] == "gateway"
    assert abs(told[0]["zero_time"] - TRUE_ZERO_MS) <= told[0]["error_ms"] <= 2_000
    assert told[0]["synced_from_seq"] == -1


def test_a_device_that_says_nothing_of_what_it_holds_is_told_without_a_bound() -> None:
    road = Road()
    told = [record for seq in range(1, 200) for record in road.hear(seq, 1_000 * seq)]
    assert [record["error_ms"] for record in told] == [UNBOUNDED_MS]
    assert told[0]["zero_time"] == TRUE_ZERO_MS + 50
    assert road.position * 1_000 > SETTLED_MS


def test_a_backlog_is_told_again_when_live_data_narrows_it() -> None:
    road = Road()
    told = [r for seq in range(1, 101) for r in road.hear(seq, 1_000 * seq, delay_ms=400_000)]
    for seq in range(101, 200):
        told += road.hear(seq, 1_000 * seq + 400_000, oldest=max(1, seq - 2))
    errors = [record["error_ms"] for record in told]
    assert errors[0] == UNBOUNDED_MS
    assert errors[-1] <= 2_500
    assert len(errors) <= 4
    assert abs(told[-1]["zero_time"] - TRUE_ZERO_MS) <= errors[-1]


def test_without_any_time_nothing_is_told_until_the_gateway_has_it() -> None:
    road = Road(known=False)
    for seq in range(1, 100):
        assert road.hear(seq, 1_000 * seq, oldest=seq, gateway_boot=2) == []
    road.known = True
    (told,) = road.hear(100, 100_000, oldest=100)
    assert abs(told["zero_time"] - TRUE_ZERO_MS) <= told["error_ms"]


@given(
    st.lists(
        st.tuples(st.integers(10, 5_000), st.integers(0, 60_000), st.integers(0, 5)), max_size=60
    )
)
def test_bounds_hold_whatever_the_delays(course: list[tuple[int, int, int]]) -> None:
    road, uptime_ms, told = Road(), 0, []
    received: list[int] = []  # uptime at which each batch was with the gateway
    for seq, (pause_ms, delay_ms, behind) in enumerate(course, 1):
        uptime_ms += pause_ms
        # An acknowledgement may free what had been received by then, and nothing else.
        free = [n for n, at_ms in enumerate(received, 1) if at_ms <= uptime_ms]
        oldest = (
            max(1, min(seq, len(free) + 1 - behind)) if free == list(range(1, len(free) + 1)) else 1
        )
        told += road.hear(seq, uptime_ms, delay_ms=delay_ms, oldest=oldest)
        received.append(uptime_ms + delay_ms)
    for record in told:
        if record["error_ms"] != UNBOUNDED_MS:
            assert abs(record["zero_time"] - TRUE_ZERO_MS) <= record["error_ms"]


def test_what_is_remembered_is_bounded() -> None:
    road = Road(clocks=VehicleClocks(boots_max=3))
    for boot in range(1, 10):
        road.hear(1, 1_000, boot=boot)
    assert len(road.clocks._boots) == road.clocks._waiting == 3


class Bench:
    """A spool, and the watch that follows it; it can be restarted."""

    def __init__(self, directory: Path) -> None:
        self.settings = GatewaySettings("gw", directory / "spool.db", directory)
        self.clock = FakeClock(wall=TRUE_ZERO_MS, monotonic=50_000)
        self.rng = random.Random(5)
        self.open()

    def open(self) -> None:
        self.spool = Spool(self.settings.spool_path, now_ms=0)
        self.book = self.spool.identity_book(vehicles_max=10)
        self.keeper = Timekeeper(self.clock, self.spool)
        self.watch = ClockWatch(self.settings, self.spool, self.keeper)
        self.reader = self.spool.reader()
        self.watch.remember(self.reader)

    def close(self) -> None:
        self.reader.close()
        self.spool.close()

    def drive(self, first: int, last: int, *, synced: bool = False) -> list[Record]:
        told = []
        for seq in range(first, last + 1):
            self.clock.advance(1_000)
            received_ms, gateway_boot, monotonic_ms = self.keeper.now()
            shown_ms = TRUE_ZERO_MS if synced else 0
            payload = batch(
                "car",
                seq,
                oldest=max(1, seq - 1),
                event_ms=shown_ms + 1_000 * seq,
                uptime_ms=1_000 * seq,
                synced=synced,
            )
            self.book.admit("car", 1, seq, 1)
            row = Telemetry(
                "car", 1, seq, 1, received_ms, payload, None, gateway_boot, monotonic_ms
            )
            self.spool.store([row], (), self.book)
            position = self.spool.last(Lane.TELEMETRY)
            rows = self.reader.telemetry(after=position - 1, rows_max=1, bytes_max=1)
            letters = self.watch.hear_rows(rows)
            self.spool.store_alerts(letters, [], scored=position)
            assert {letter.kind for letter in letters} <= {Kind.CLOCK}
            told += [decode_single_object("VehicleClock", letter.payload) for letter in letters]
        return told


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def test_restarts_repeat_nothing_that_the_spool_still_shows(bench: Bench) -> None:
    assert [record["source"] for record in bench.drive(1, 20)] == ["gateway"]
    for at in range(20, 60, 10):
        bench.close()
        bench.open()
        assert bench.drive(at + 1, at + 10) == []
    bench.close()
    bench.open()
    assert [record["source"] for record in bench.drive(61, 70, synced=True)] == ["vehicle"]
    bench.close()
    bench.open()
    assert bench.drive(71, 80, synced=True) == []
    assert bench.spool.marks[Mark.SCORED] == 80


def test_what_could_not_be_told_before_a_restart_is_told_after_it(bench: Bench) -> None:
    bench.close()
    bench.clock.right, bench.clock.wall, bench.clock.boot = False, 77, "another"
    bench.open()
    assert bench.drive(1, 20) == []
    bench.close()
    bench.clock.right, bench.clock.wall = True, TRUE_ZERO_MS + 20_000
    bench.open()
    (told,) = bench.drive(21, 30)
    assert abs(told["zero_time"].timestamp() * 1000 - TRUE_ZERO_MS) <= told["error_ms"]
