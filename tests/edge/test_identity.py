"""The book of identities against a plain set."""

from hypothesis import given
from hypothesis import strategies as st

from edge import identity
from edge.identity import BootState, IdentityBook, Verdict

seqs = st.integers(1, 40)


class PlainBoot:
    """What `BootState` must agree with: the set of settled numbers."""

    def __init__(self) -> None:
        self.settled: set[int] = set()
        self.drops = 0

    def admit(self, seq: int, oldest_seq: int) -> Verdict:
        given_up = set(range(1, oldest_seq)) - self.settled
        self.drops += len(given_up)
        self.settled |= given_up
        if seq in self.settled:
            return Verdict.DUPLICATE
        self.settled.add(seq)
        return Verdict.NEW


def book() -> IdentityBook:
    return IdentityBook(lambda _: {}, vehicles_max=10)


@given(st.lists(st.tuples(seqs, seqs).map(lambda pair: (max(pair), min(pair)))))
def test_agrees_with_a_plain_set(batches: list[tuple[int, int]]) -> None:
    plain, ours = PlainBoot(), book()
    for seq, oldest_seq in batches:
        assert ours.admit("v", 1, seq, oldest_seq) is plain.admit(seq, oldest_seq)
        state = ours.state("v", 1)
        assert state is not None
        told = set(range(1, state.contiguous + 1))
        for first, last in state.ranges:
            told |= set(range(first, last + 1))
        assert told == plain.settled
        assert all(state.covers(s) == (s in plain.settled) for s in range(1, 42))
        assert all(a[1] + 1 < b[0] for a, b in zip(state.ranges, state.ranges[1:], strict=False))
    assert ours.vehicle_drops == plain.drops


@given(st.lists(seqs))
def test_packing_loses_nothing(batches: list[int]) -> None:
    state = BootState()
    for seq in batches:
        state.add(seq)
    assert BootState.unpack(state.contiguous, state.pack_ranges()) == state


def test_boots_are_bounded_and_an_older_one_is_refused() -> None:
    ours = book()
    for boot_id in (10, 20, 30, 40):
        assert ours.admit("v", boot_id, 1, 1) is Verdict.NEW
    assert ours.admit("v", 5, 1, 1) is Verdict.BOOT_FORGOTTEN
    assert ours.admit("v", 25, 1, 1) is Verdict.NEW
    assert ours.admit("v", 10, 1, 1) is Verdict.BOOT_FORGOTTEN
    assert ours.admit("v", 40, 1, 1) is Verdict.DUPLICATE


def test_a_new_boot_starts_afresh() -> None:
    ours = book()
    assert ours.admit("v", 1, 7, 7) is Verdict.NEW
    assert ours.vehicle_drops == 6
    assert ours.admit("v", 2, 1, 1) is Verdict.NEW
    assert ours.state("v", 2) == BootState(1)


def test_gaps_are_bounded() -> None:
    state = BootState()
    for n in range(identity.RANGES_MAX):
        assert state.add(3 + 2 * n) is Verdict.NEW
    beyond = 3 + 2 * identity.RANGES_MAX
    assert state.add(beyond) is Verdict.TOO_MANY_GAPS
    assert not state.covers(beyond)
    assert state.add(2) is Verdict.NEW  # closes a gap, so it needs no room
    assert state.add(1) is Verdict.NEW
    assert state.contiguous == 3
    assert state.add(beyond) is Verdict.NEW


def test_memory_is_bounded_after_a_save() -> None:
    saved: dict[str, dict[int, BootState]] = {}
    ours = IdentityBook(lambda v: saved.get(v, {}), vehicles_max=2)
    for vehicle in "abcd":
        ours.admit(vehicle, 1, 1, 1)
    assert ours.touched == 4
    saved.update(ours.unsaved())
    ours.saved()
    assert ours.touched == 0
    assert ours.admit("a", 1, 1, 1) is Verdict.DUPLICATE


def test_of_a_shared_fleet_holes_are_nobodys_loss_and_never_too_many() -> None:
    ours = IdentityBook(lambda _: {}, vehicles_max=10, shared=True)
    for n in range(3 * identity.RANGES_MAX):
        assert ours.admit("v", 1, 2 + 2 * n, 1) is Verdict.NEW
    state = ours.state("v", 1)
    assert state is not None
    assert len(state.ranges) == identity.SHARED_RANGES_MAX
    assert state.contiguous == 0  # what others have is not acknowledged here
    newest = 6 * identity.RANGES_MAX
    assert state.covers(newest)
    assert not state.covers(newest - 1)
    assert ours.admit("v", 1, newest + 2, newest) is Verdict.NEW
    assert state.contiguous == newest
    assert ours.vehicle_drops == 0
