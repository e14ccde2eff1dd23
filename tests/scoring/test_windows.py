"""Windows as arrays, against a plain list of readings a vehicle."""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from schemas.errors import ContractError, Reason
from scoring.windows import WindowState, ending_at, messages_max, of_drive, reach_s

WINDOW, FEATURES, VEHICLES = 4, 2, 3
REACH_MS = 30_000


@dataclass(frozen=True)
class Reading:
    vehicle: int
    after_ms: int
    boots: bool
    values: tuple[float, float]


VALUES = st.sampled_from([float("nan"), 0.0, 1.5, -3.0])
READINGS = st.builds(
    Reading,
    vehicle=st.integers(0, VEHICLES - 1),
    after_ms=st.sampled_from([0, 1000, 1000, 1000, 10_000, 10_001, 25_000, 60_000, 60_001, -500]),
    boots=st.integers(0, 15).map(lambda number: number == 0),
    values=st.tuples(VALUES, VALUES),
)


@dataclass
class PlainVehicle:
    """The definition, one vehicle."""

    readings: list[tuple[int, tuple[float, float]]] = field(default_factory=list)

    def take(self, time_ms: int, reading: Reading) -> list[float] | None:
        if reading.boots or (self.readings and abs(time_ms - self.readings[-1][0]) > 60_000):
            self.readings = []
        self.readings.append((time_ms, reading.values))
        last = self.readings[-WINDOW:]
        if len(last) < WINDOW or abs(last[-1][0] - last[0][0]) > REACH_MS:
            return None
        return [value for _, values in last for value in values]


def plain(readings: list[Reading]) -> list[list[float] | None]:
    vehicles = [PlainVehicle() for _ in range(VEHICLES)]
    return [
        vehicles[reading.vehicle].take(time_ms, reading)
        for reading, time_ms in zip(readings, times_of(readings), strict=True)
    ]


def times_of(readings: list[Reading]) -> list[int]:
    clocks, found = [100_000] * VEHICLES, []
    for reading in readings:
        clocks[reading.vehicle] += reading.after_ms
        found.append(clocks[reading.vehicle])
    return found


def in_arrays(readings: list[Reading], cuts: list[int]) -> list[list[float] | None]:
    state = WindowState(WINDOW, FEATURES, max_vehicles=VEHICLES)
    times = np.array(times_of(readings), np.int64)
    edges = sorted({0, len(readings), *(cut % (len(readings) + 1) for cut in cuts)})
    found: list[list[float] | None] = [None] * len(readings)
    for start, stop in pairwise(edges):
        part = readings[start:stop]
        vehicle = np.array([reading.vehicle for reading in part], np.int64)
        order = np.argsort(vehicle, kind="stable")
        windows = state.update(
            vehicle[order],
            np.array([reading.boots for reading in part], np.bool_)[order],
            times[start:stop][order],
            np.array([reading.values for reading in part], np.float32)[order],
        )
        for block in windows.blocks():
            for at, row in zip(block.tolist(), windows.rows(block).tolist(), strict=True):
                found[start + int(order[at])] = row
    return found


def same(found: list[list[float] | None], expected: list[list[float] | None]) -> None:
    assert [row is None for row in found] == [row is None for row in expected]
    for row, wanted in zip(found, expected, strict=True):
        if row is not None and wanted is not None:
            np.testing.assert_array_equal(row, wanted)


@settings(max_examples=300, deadline=None)
@given(readings=st.lists(READINGS, max_size=60), cuts=st.lists(st.integers(0, 60), max_size=8))
def test_arrays_equal_the_definition_however_the_stream_is_cut(
    readings: list[Reading], cuts: list[int]
) -> None:
    same(in_arrays(readings, cuts), plain(readings))


def test_the_rows_come_a_block_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scoring.windows.ROWS_BYTES", 3 * 4 * WINDOW * FEATURES)
    state = WindowState(WINDOW, FEATURES, max_vehicles=1)
    values = np.arange(20, dtype=np.float32).reshape(10, 2)
    zeros = np.zeros(10, np.int64)
    windows = state.update(zeros, zeros.astype(np.bool_), 1000 * np.arange(10), values)
    blocks = list(windows.blocks())
    assert [len(block) for block in blocks] == [3, 3, 1]
    np.testing.assert_array_equal(windows.rows(blocks[0])[0], np.arange(8))
    np.testing.assert_array_equal(windows.rows(blocks[-1])[0], np.arange(12, 20))


def test_no_readings_make_no_windows() -> None:
    state = WindowState(WINDOW, FEATURES, max_vehicles=1)
    nothing = np.empty(0, np.int64)
    windows = state.update(
        nothing, nothing.astype(np.bool_), nothing, np.empty((0, FEATURES), np.float32)
    )
    assert (list(windows.blocks()), windows.rows(nothing).shape) == ([], (0, WINDOW * FEATURES))


def test_many_histories_in_one_poll_take_no_room_for_what_they_do_not_carry() -> None:
    """A vehicle that leaves gaps in one long message must not fill the memory."""
    state = WindowState(128, 32, max_vehicles=1)
    readings = 5_000
    zeros, values = np.zeros(readings, np.int64), np.zeros((readings, 32), np.float32)
    windows = state.update(zeros, zeros.astype(np.bool_), 61_000 * np.arange(readings), values)
    assert len(windows.ready) == 0
    assert windows._pool.nbytes == values.nbytes


def test_readings_of_a_vehicle_stand_together() -> None:
    state = WindowState(WINDOW, FEATURES, max_vehicles=2)
    values: NDArray[np.float32] = np.zeros((3, FEATURES), np.float32)
    with pytest.raises(ContractError) as caught:
        state.update(np.array([0, 1, 0]), np.zeros(3, np.bool_), np.arange(3), values)
    assert caught.value.reason is Reason.MALFORMED


def test_how_far_windows_reach_and_how_many_messages_they_take() -> None:
    assert (reach_s(1), reach_s(32)) == (0.0, 310.0)
    assert messages_max(32, 17) == 7_352
    assert ending_at(np.zeros((3, 2), np.float32), np.array([2]), 3).shape == (1, 6)


def test_a_drive_is_shown_reading_by_reading_with_what_was_before() -> None:
    rows = np.array([[1], [2], [3]], np.float32)
    expected = np.array([[np.nan, np.nan], [1, 2], [2, 3]])
    np.testing.assert_array_equal(of_drive(rows, 2), expected)
    np.testing.assert_array_equal(of_drive(rows, 1), rows)
    assert np.isnan(of_drive(rows, 4)).all()
