"""The spool against a plain list, and against a disk that refuses."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from spool_parts import HastyFiles

from edge.identity import IdentityBook, Verdict
from edge.marks import Mark
from edge.rows import AlertState, Kind, Lane, Priority, Telemetry
from edge.spool import Spool, SpoolLimits
from edge.spool import spool as spool_module
from edge.spool import state as state_module
from schemas.errors import SettingsError

EVERYTHING = 1 << 40
SMALL = SpoolLimits(bytes_max=EVERYTHING, segment_bytes=600, reserve_bytes=0)


def telemetry(seq: int, *, vehicle: str = "v", boot: int = 1, oldest: int = 1) -> Telemetry:
    return Telemetry(vehicle, boot, seq, oldest, 1_000 + seq, b"batch %d" % seq)


def priority(number: int) -> Priority:
    return Priority(Kind.LABEL, "v", 1_000, b"label %d" % number)


def alert(state: str, changed: int, vehicle: str = "v") -> AlertState:
    return AlertState(vehicle, "anomaly", state, changed, b"alert")


class SpoolMachine(RuleBasedStateMachine):
    """Appends, repeats, forwards, scores, trims and reopens, against lists."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.path = self.directory / "spool"
        self.spool = Spool(self.path, now_ms=0, limits=SMALL, files=HastyFiles())
        self.book = self.spool.identity_book(vehicles_max=2)
        self.rows: list[Telemetry] = []
        self.first = 1
        self.letters: list[Priority] = []
        self.first_letter = 1
        self.settled: set[tuple[str, int]] = set()
        self.forwarded = 0
        self.scored = 0

    @initialize(checkpoint=st.sampled_from([1, 5, 1_000]))
    def choose_checkpoint(self, checkpoint: int) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(spool_module, "CHECKPOINT_MESSAGES", checkpoint)

    @rule(
        batches=st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 30)), max_size=8),
        labels=st.integers(0, 2),
    )
    def store(self, batches: list[tuple[str, int]], labels: int) -> None:
        new = []
        for vehicle, seq in batches:
            verdict = self.book.admit(vehicle, 1, seq, 1)
            assert (verdict is Verdict.DUPLICATE) == ((vehicle, seq) in self.settled)
            if verdict is Verdict.NEW:
                self.settled.add((vehicle, seq))
                new.append(telemetry(seq, vehicle=vehicle))
        letters = [priority(len(self.letters) + n) for n in range(labels)]
        self.spool.store(new, letters, self.book)
        self.rows += new
        self.letters += letters

    @rule(vehicle=st.sampled_from("abcd"), seq=st.integers(1, 30))
    def settle_as_dead_letter(self, vehicle: str, seq: int) -> None:
        if self.book.admit(vehicle, 1, seq, 1) is Verdict.NEW:
            self.settled.add((vehicle, seq))
            letter = priority(len(self.letters))
            self.spool.store([], [letter], self.book, save_identity=True)
            self.letters.append(letter)

    @rule(share=st.floats(0, 1))
    def forward(self, share: float) -> None:
        self.forwarded += round((len(self.rows) - self.forwarded) * share)
        self.spool.marks.note(Mark.FORWARDED_TELEMETRY, self.forwarded)
        self.spool.marks.note(Mark.FORWARDED_PRIORITY, len(self.letters))

    @rule(share=st.floats(0, 1))
    def score(self, share: float) -> None:
        self.scored += round((len(self.rows) - self.scored) * share)
        letter = priority(len(self.letters))
        self.spool.store_alerts([letter], [alert("OPEN", self.scored)], scored=self.scored)
        self.letters.append(letter)

    @rule(through=st.integers(0, 60))
    def trim(self, through: int) -> None:
        before = self.first
        self.spool.trim(Lane.TELEMETRY, through=through)
        reader = self.spool.reader()
        self.first = reader.first_position(Lane.TELEMETRY) or len(self.rows) + 1
        assert before <= self.first
        assert self.first - 1 <= max(before - 1, min(through, self.forwarded, self.scored))

    @rule()
    def take_snapshot(self) -> None:
        self.spool.take_snapshot()

    @rule(clean=st.booleans())
    def reopen(self, clean: bool) -> None:
        if clean:
            self.spool.save(self.book)
        self.spool.close()
        self.spool = Spool(self.path, now_ms=0, limits=SMALL, files=HastyFiles())
        assert self.spool.moved_aside is None
        self.book = self.spool.identity_book(vehicles_max=2)
        assert self.spool.marks[Mark.SCORED] == self.spool.marks.durable(Mark.SCORED)
        assert self.spool.marks[Mark.FORWARDED_TELEMETRY] <= self.forwarded

    @invariant()
    def holds_what_the_lists_hold(self) -> None:
        reader = self.spool.reader()
        rows = reader.telemetry(after=0, rows_max=EVERYTHING, bytes_max=EVERYTHING)
        assert [row.position for row in rows] == list(range(self.first, len(self.rows) + 1))
        assert [(r.vehicle_id, r.seq, r.payload) for r in rows] == [
            (r.vehicle_id, r.seq, r.payload) for r in self.rows[self.first - 1 :]
        ]
        letters = reader.priority(after=0, rows_max=EVERYTHING, bytes_max=EVERYTHING)
        assert [letter.payload for letter in letters] == [p.payload for p in self.letters]
        assert self.spool.last(Lane.TELEMETRY) == len(self.rows)
        reader.close()

    def teardown(self) -> None:
        self.spool.close()
        self.patch.undo()
        shutil.rmtree(self.directory)


SpoolMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestSpoolMachine = SpoolMachine.TestCase


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "spool"


def fresh_book(spool: Spool) -> IdentityBook:
    return spool.identity_book(vehicles_max=10)


def stored(spool: Spool, count: int) -> None:
    spool.store([telemetry(n) for n in range(1, count + 1)], [], fresh_book(spool))


def test_positions_go_on_after_everything_was_trimmed(path: Path) -> None:
    spool = Spool(path, now_ms=0)
    book = fresh_book(spool)
    for seq in (1, 2, 3):
        book.admit("v", 1, seq, 1)
    spool.store([telemetry(n) for n in (1, 2, 3)], [priority(1)], book)
    spool.marks.note(Mark.FORWARDED_TELEMETRY, 3)
    spool.marks.note(Mark.FORWARDED_PRIORITY, 1)
    spool.marks.note(Mark.SCORED, 3)
    spool.save(book)
    spool.close()
    spool = Spool(path, now_ms=0)
    spool.take_snapshot()
    spool.store_priority([priority(2)], {Mark.FORWARDED_PRIORITY: 2})
    spool.take_snapshot()
    assert spool.trim(Lane.TELEMETRY, through=3) == 1
    assert spool.trim(Lane.PRIORITY, through=2) >= 1
    spool.close()
    spool = Spool(path, now_ms=0)
    assert spool.reader().first_position(Lane.TELEMETRY) is None
    assert spool.last(Lane.TELEMETRY) == 3
    assert spool.last(Lane.PRIORITY) == 2
    assert fresh_book(spool).admit("v", 1, 3, 1) is Verdict.DUPLICATE
    spool.close()


def test_reads_are_bounded_by_rows_and_by_bytes(path: Path) -> None:
    spool = Spool(path, now_ms=0)
    stored(spool, 9)
    reader = spool.reader()
    assert len(reader.telemetry(after=2, rows_max=3, bytes_max=EVERYTHING)) == 3
    assert len(reader.telemetry(after=2, rows_max=9, bytes_max=8)) == 2
    assert reader.telemetry(after=9, rows_max=9, bytes_max=8) == []
    assert reader.received_ms(5) == 1_005
    assert reader.first_position(Lane.TELEMETRY) == 1
    reader.close()
    spool.close()


def test_one_process_at_a_time(path: Path) -> None:
    spool = Spool(path, now_ms=0)
    with pytest.raises(SettingsError, match="in use"):
        Spool(path, now_ms=0)
    spool.close()
    Spool(path, now_ms=0).close()


def test_a_hint_never_goes_back_over_what_was_stored(path: Path) -> None:
    spool = Spool(path, now_ms=0)
    stored(spool, 9)
    spool.marks.note(Mark.SCORED, 3)
    spool.store_alerts([priority(1)], [alert("OPEN", 7)], scored=7)
    spool.marks.note(Mark.SCORED, 5)
    assert spool.marks[Mark.SCORED] == 7
    spool.close()
    spool = Spool(path, now_ms=0)
    assert spool.marks[Mark.SCORED] == 7
    spool.close()


def test_an_alert_stays_unpublished_until_its_newest_state_is_out(path: Path) -> None:
    spool = Spool(path, now_ms=0)
    reader = spool.reader()
    opened, closed = alert("OPEN", 1), alert("CLOSED", 2)
    spool.store_alerts([priority(1)], [opened], scored=1)
    assert reader.alerts(unpublished_only=True) == [opened]
    spool.store_alerts([priority(2)], [closed], scored=2)
    spool.alerts_published([opened])
    assert reader.alerts(unpublished_only=True) == [closed]
    spool.alerts_published([closed])
    assert reader.alerts(unpublished_only=True) == []
    assert reader.alerts(unpublished_only=False) == [closed]
    reader.close()
    spool.close()


def test_closed_alerts_are_forgotten_at_a_limit(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "CLOSED_ALERTS_KEPT", 2)
    spool = Spool(path, now_ms=0)
    reader = spool.reader()
    for n in range(1, 6):
        state = alert("CLOSED", n, vehicle=f"v{n}")
        spool.store_alerts([priority(n)], [state], scored=n)
        spool.alerts_published([state])
    spool.store_alerts([priority(9)], [alert("OPEN", 9, vehicle="x")], scored=9)
    kept = {state.vehicle_id for state in reader.alerts(unpublished_only=False)}
    assert kept == {"v4", "v5", "x"} | ({"v3"} & kept)
    assert len(kept) <= 4
    reader.close()
    spool.close()


def test_waiting_ends_when_a_lane_grows(path: Path) -> None:
    spool = Spool(path, now_ms=0)
    assert not spool.wait_beyond({Lane.TELEMETRY: 0}, timeout_s=0.0)
    stored(spool, 1)
    assert spool.wait_beyond({Lane.TELEMETRY: 0}, timeout_s=0.0)
    assert not spool.wait_beyond({Lane.TELEMETRY: 1, Lane.PRIORITY: 0}, timeout_s=0.0)
    assert spool.depth() == 1
    assert spool.size_bytes() > 0
    spool.close()
