from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import ContractError
from scoring.vehicles import VehicleTable

LARGE = 2**62
Arrival = tuple[int, int, int]  # vehicle, boot_id, seq
ARRIVALS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from([0, 1, 2, LARGE]),
        st.sampled_from([1, 2, 3, 4, LARGE - 1, LARGE]),
    ),
    max_size=60,
)


def reference(arrivals: Sequence[Arrival]) -> list[tuple[bool, bool]]:
    """(stale, boots) of each message, one by one."""
    newest: dict[int, tuple[int, int]] = {}
    out = []
    for vehicle, boot_id, seq in arrivals:
        before = newest.get(vehicle, (-1, 0))
        stale = (boot_id, seq) <= before
        out.append((stale, not stale and boot_id > before[0]))
        if not stale:
            newest[vehicle] = (boot_id, seq)
    return out


@settings(max_examples=300, deadline=None)
@given(arrivals=ARRIVALS, cuts=st.lists(st.integers(0, 60), max_size=5))
def test_order_equals_the_reference_however_the_stream_is_cut(
    arrivals: list[Arrival], cuts: list[int]
) -> None:
    table = VehicleTable(4)
    edges = sorted({0, len(arrivals), *(cut % (len(arrivals) + 1) for cut in cuts)})
    found: list[tuple[bool, bool]] = []
    for a, b in pairwise(edges):
        poll = arrivals[a:b]
        rows = table.intern([b"car-%d" % vehicle for vehicle, _, _ in poll]).rows
        order = table.order(
            rows,
            np.array([boot_id for _, boot_id, _ in poll], np.int64),
            np.array([seq for _, _, seq in poll], np.int64),
        )
        grouped = [(int(rows[i]), int(i)) for i in order.by_vehicle]
        assert grouped == sorted(grouped)
        found += zip(order.stale.tolist(), order.boots.tolist(), strict=True)
    assert found == reference(arrivals)


def test_a_vehicle_keeps_its_row() -> None:
    table = VehicleTable(3)
    first = table.intern([b"a", b"b", b"a"])
    assert first.rows[0] == first.rows[2] != first.rows[1]
    assert first.new == [0, 1]
    again = table.intern([b"b", b"c"])
    assert again.rows[0] == first.rows[1]
    assert again.new == [1]
    assert len(table) == 3


def test_the_least_recently_seen_gives_way() -> None:
    table = VehicleTable(3)
    for name in (b"a", b"b", b"c", b"a"):
        table.intern([name])
    table.intern([b"d"])
    assert (b"a" in table, b"b" in table, b"c" in table, b"d" in table) == (True, False, True, True)


def test_vehicles_of_the_running_poll_stay() -> None:
    table = VehicleTable(3)
    table.intern([b"a", b"b", b"c"])
    rows = table.intern([b"c", b"x", b"y", b"c"]).rows
    assert rows[0] == rows[3]
    assert len(set(rows.tolist())) == 3
    assert b"a" not in table


def test_a_vehicle_that_comes_back_begins_anew() -> None:
    table = VehicleTable(1)
    one = np.array([1])
    for name in (b"a", b"b", b"a"):
        order = table.order(table.intern([name]).rows, one, one)
        assert not order.stale[0]
        assert order.boots[0]


def test_more_vehicles_than_rows_are_refused() -> None:
    table = VehicleTable(2)
    assert len(table.intern([b"a", b"b", b"a"]).rows) == 3
    with pytest.raises(ContractError):
        table.intern([b"a", b"b", b"c"])
    with pytest.raises(ContractError):
        VehicleTable(0)


def test_forgotten_vehicles_free_their_rows() -> None:
    table = VehicleTable(2)
    table.intern([b"a", b"b"])
    assert len(table.forget([b"a", b"nobody"])) == 1
    assert len(table) == 1
    assert table.row(b"a") is None
    table.intern([b"b", b"c"])
    assert b"b" in table


def test_after_forgetting_the_order_the_log_may_replay() -> None:
    table = VehicleTable(1)
    rows = table.intern([b"a"]).rows
    one, nine = np.array([1]), np.array([9])
    table.order(rows, one, nine)
    assert table.order(rows, one, one).stale[0]
    table.forget_order()
    order = table.order(rows, one, one)
    assert not order.stale[0]
    assert order.boots[0]
