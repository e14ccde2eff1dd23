"""The vehicle's side of delivery against a correct gateway, over a network that does anything."""

import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.delivery import Held, Outbox

WINDOW = 4
FIRST_WAIT_MS = 100
LONGEST_WAIT_MS = 800
Ack = tuple[int, int, tuple[tuple[int, int], ...]]


def outbox(capacity: int = 50) -> Outbox:
    return Outbox(
        capacity=capacity,
        window=WINDOW,
        resend_after_ms=FIRST_WAIT_MS,
        resend_max_ms=LONGEST_WAIT_MS,
    )


def batch(seq: int, boot_id: int = 1) -> Held:
    return Held(boot_id, seq, readings=1, payload=f"{boot_id}/{seq}".encode())


@dataclass
class Gateway:
    """Stores what comes, and says truly what it has."""

    stored: set[tuple[int, int]] = field(default_factory=set)

    def take(self, sent: Held) -> Ack:
        self.stored.add((sent.boot_id, sent.seq))
        have = sorted(seq for boot, seq in self.stored if boot == sent.boot_id)
        contiguous = 0
        while contiguous + 1 in have:
            contiguous += 1
        return sent.boot_id, contiguous, tuple((s, s) for s in have if s > contiguous)


def measure(box: Outbox, boots: list[int], held: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """Add one batch a boot entry; what the full buffer dropped."""
    dropped = set()
    seqs: dict[int, int] = {}
    for boot in sorted(boots):
        seqs[boot] = seqs.get(boot, 0) + 1
        lost = box.add(batch(seqs[boot], boot))
        held.add((boot, seqs[boot]))
        if lost is not None:
            dropped.add((lost.boot_id, lost.seq))
    return dropped


@settings(max_examples=300, deadline=None)
@given(data=st.data(), capacity=st.integers(1, 30))
def test_everything_arrives_and_nothing_is_freed_unacknowledged(
    data: st.DataObject, capacity: int
) -> None:
    box, gateway = outbox(capacity), Gateway()
    measured: set[tuple[int, int]] = set()
    boots = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=25))
    dropped = measure(box, boots, measured)
    under_way: list[Held] = []
    acks: list[Ack] = []
    now_ms = 0
    for _ in range(data.draw(st.integers(0, 40))):
        event = data.draw(st.sampled_from(["wait", "send", "arrive", "lose", "ack", "reconnect"]))
        if event == "wait":
            now_ms += data.draw(st.integers(1, 1_000))
        elif event == "send":
            under_way += list(box.due(now_ms))
        elif event == "arrive" and under_way:
            place = data.draw(st.integers(0, len(under_way) - 1))  # out of order
            keep = data.draw(st.booleans())  # and perhaps again
            sent = under_way[place] if keep else under_way.pop(place)
            acks.append(gateway.take(sent))
        elif event == "lose" and under_way:
            under_way.pop(data.draw(st.integers(0, len(under_way) - 1)))
        elif event == "ack" and acks:
            place = data.draw(st.integers(0, len(acks) - 1))
            box.acknowledge(*acks[place])
            if data.draw(st.booleans()):
                acks.pop(place)
        elif event == "reconnect":
            under_way.clear()
            box.connection_lost()
        assert measured - dropped - set(box._held) <= gateway.stored, "freed too early"
    # From here on the network is good.
    for _ in range(200):
        if not len(box):
            break
        for sent in list(box.due(now_ms)):
            box.acknowledge(*gateway.take(sent))
        now_ms += LONGEST_WAIT_MS
    assert not len(box), "something was never delivered"
    assert gateway.stored >= measured - dropped
    assert len(dropped) == max(0, len(boots) - capacity)


def test_window_bounds_what_is_under_way() -> None:
    box = outbox()
    for seq in range(1, 21):
        box.add(batch(seq))
    assert [b.seq for b in box.due(0)] == [1, 2, 3, 4]
    assert not list(box.due(0))
    box.acknowledge(1, 2, [])
    assert [b.seq for b in box.due(0)] == [5, 6]


def test_what_is_not_acknowledged_in_time_comes_again_with_longer_waits() -> None:
    box = outbox()
    box.add(batch(1))
    sent_at_ms = [now for now in range(0, 3_000, 10) if list(box.due(now))]
    gaps = [later - earlier for earlier, later in itertools.pairwise(sent_at_ms)]
    assert gaps[0] == FIRST_WAIT_MS
    assert gaps == sorted(gaps)
    assert max(gaps) <= LONGEST_WAIT_MS


def test_ranges_free_what_lies_above_a_gap() -> None:
    box = outbox()
    for seq in range(1, 5):
        box.add(batch(seq))
    list(box.due(0))
    assert box.acknowledge(1, 1, [(3, 4)]) == 3
    assert box.oldest_seq(1, default=5) == 2
    assert [b.seq for b in box.due(FIRST_WAIT_MS)] == [2]


def test_an_acknowledgement_of_another_boot_frees_nothing() -> None:
    box = outbox()
    box.add(batch(1, boot_id=7))
    assert box.acknowledge(8, 10, []) == 0
    assert box.acknowledge(6, 10, []) == 0
    assert len(box) == 1


def test_a_full_buffer_drops_its_oldest_and_the_oldest_seq_moves() -> None:
    box = outbox(capacity=3)
    assert [box.add(batch(seq)) for seq in (1, 2, 3)] == [None, None, None]
    dropped = box.add(batch(4))
    assert dropped is not None
    assert dropped.seq == 1
    assert box.oldest_seq(1, default=5) == 2
    assert len(box) == 3


def test_what_an_old_boot_left_is_sent_first() -> None:
    box = outbox()
    box.add(batch(9, boot_id=1))
    box.add(batch(1, boot_id=2))
    assert [(b.boot_id, b.seq) for b in box.due(0)] == [(1, 9), (2, 1)]
    assert box.oldest_seq(2, default=2) == 1


def test_a_batch_given_back_is_next() -> None:
    box = outbox()
    box.add(batch(1))
    box.add(batch(2))
    for taken in box.due(0):
        box.give_back(taken)
        break
    assert [(b.seq, b.sendings) for b in box.due(0)] == [(1, 1), (2, 1)]


@pytest.mark.parametrize("acknowledged", [0, 3, 20])
def test_acknowledged_readings_are_counted_once(acknowledged: int) -> None:
    box = outbox()
    for seq in range(1, 21):
        box.add(batch(seq))
    box.acknowledge(1, acknowledged, [])
    box.acknowledge(1, acknowledged, [])
    assert box.acknowledged_readings == acknowledged
