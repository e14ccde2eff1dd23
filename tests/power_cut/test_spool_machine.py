"""The spool against plain dictionaries, by rules in any order: hypothesis drives, and shrinks.

Beside what a gateway does on good days there are refusals, kills, power cuts by the simulated disk,
and bytes that go bad. After each rule the whole spool is judged (`spool_promise`).
"""

import random
from collections.abc import Callable

from disk_faults import ERRORS, Fault, FaultPlan, KilledError
from disk_operations import Image
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from memory_files import ROOT, Kernel
from platter import FileSystem, Playback
from spool_driver import Moment, OpenSpool, SpoolDriver
from spool_promise import NO_CALL, Promise, Seen, damaged, judged
from spool_shapes import SHAPES, UNLIMITED, small_spools

from edge.identity import Verdict
from edge.marks import Mark
from edge.rows import AlertState, Kind, Lane, Priority, Telemetry
from edge.spool import SpoolError

Batches = list[tuple[str, int]]

BATCHES = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 25)), min_size=1, max_size=6)
SHARES = st.floats(0, 1)
TRIES_MAX = 10


class SpoolMachine(RuleBasedStateMachine):
    """One spool through good and bad days."""

    def __init__(self) -> None:
        super().__init__()
        self.small = small_spools()
        self.small.__enter__()
        self.plan = FaultPlan()
        self.number = 0
        self.has_rotten = False

    @initialize(open_spool=st.sampled_from((*SHAPES[:2], UNLIMITED)))
    def begin(self, open_spool: OpenSpool) -> None:
        self.open_spool = open_spool
        self.boot(Image({}, {ROOT}), Moment(0, Promise(), (NO_CALL,)))

    def boot(self, image: Image, moment: Moment) -> None:
        """The machine begins with what the disk holds."""
        self.kernel = Kernel.booted(image)
        self.playback = Playback(image, dict(self.kernel.names), self.kernel.log)
        self.driver = SpoolDriver(self.kernel, self.open_spool, moment)
        self.start()

    def start(self) -> None:
        """A program begins; again, if the disk refuses that or kills it."""
        try:
            self.driver.open(self.plan)
        except (KilledError, SpoolError):
            self.plan.heal()
            self.driver.open(self.plan)

    def insist(self, call: Callable[[], bool]) -> bool:
        """Until the disk takes it; False when a killed program begins anew, and leaves it."""
        try:
            for _ in range(TRIES_MAX):
                if call():
                    return True
            raise AssertionError("refused for ever")
        except KilledError:
            self.plan.heal()
            self.start()
            return False
        finally:
            self.plan.heal()

    def payload(self) -> bytes:
        self.number += 1
        return b"<%d>" % self.number

    def label(self) -> Priority:
        return Priority(Kind.LABEL, "a", 1_000, self.payload())

    # -- good days

    @rule(batches=BATCHES, labels=st.integers(0, 2), size=st.integers(0, 300))
    def store(self, batches: Batches, labels: int, size: int) -> None:
        rows: list[Telemetry] = []
        for vehicle, seq in batches:
            row = Telemetry(vehicle, 1, seq, 1, 1_000, self.payload() + bytes(size))
            verdict = self.driver.admit(row)
            is_settled = (vehicle, 1, seq) in self.driver.promise.settled
            assert verdict is Verdict.NEW or is_settled or row[:3] in [r[:3] for r in rows]
            if verdict is Verdict.NEW:
                rows.append(row)
        letters = tuple(self.label() for _ in range(labels))
        self.insist(lambda: self.driver.store(tuple(rows), letters))

    @rule(batch=st.tuples(st.sampled_from("abc"), st.integers(1, 25)))
    def settle_as_dead_letter(self, batch: tuple[str, int]) -> None:
        row = Telemetry(batch[0], 1, batch[1], 1, 1_000, b"")
        if self.driver.admit(row) is Verdict.NEW:
            letter = Priority(Kind.DEAD_LETTER, "a", 1_000, self.payload())
            settles = frozenset({row[:3]})
            self.insist(lambda: self.driver.store((), (letter,), settles))

    @rule(share=SHARES, state=st.sampled_from(("OPEN", "CLOSED")), vehicle=st.sampled_from("abc"))
    def score(self, share: float, state: str, vehicle: str) -> None:
        scored = self.driver.promise.marks[Mark.SCORED]
        scored += round((self.driver.spool.last(Lane.TELEMETRY) - scored) * share)
        alert = AlertState(vehicle, "anomaly", state, scored, self.payload())
        row = Priority(Kind.ALERT, vehicle, 1_000, self.payload())
        self.insist(lambda: self.driver.store_alerts((row,), (alert,), scored))

    @rule()
    def publish(self) -> None:
        states = tuple(self.driver.promise.alerts.values())
        self.insist(lambda: self.driver.alerts_published(states))

    @rule(share=SHARES, saved=st.booleans())
    def forward(self, share: float, saved: bool) -> None:
        for lane in Lane:
            known = self.driver.spool.marks[Mark.forwarded(lane)]
            last = self.driver.spool.last(lane)
            self.driver.note(Mark.forwarded(lane), known + round((last - known) * share))
        if saved:
            self.insist(lambda: self.driver.save(identities=False))

    @rule(lane=st.sampled_from(Lane), share=SHARES)
    def trim(self, lane: Lane, share: float) -> None:
        through = round(self.driver.spool.last(lane) * share)
        before = self.driver.spool.reader().first_position(lane)
        self.insist(lambda: self.driver.trim(lane, through))
        after = self.driver.spool.reader().first_position(lane)
        if self.open_spool is UNLIMITED and before is not None and after is not None:
            assert after <= max(before, through + 1)

    @rule(snapshot=st.booleans())
    def tend(self, snapshot: bool) -> None:
        self.insist(lambda: self.driver.tend(snapshot=snapshot))

    @rule(clean=st.booleans())
    def reopen(self, clean: bool) -> None:
        if clean:
            self.insist(lambda: self.driver.save(identities=True))
        if self.insist(self.closed):
            self.start()

    def closed(self) -> bool:
        self.driver.close()
        return True

    # -- bad days

    @rule(passing=st.integers(0, 8), refusing=st.integers(1, 3), number=st.sampled_from(ERRORS))
    def refuse_soon(self, passing: int, refusing: int, number: int) -> None:
        self.plan.passing, self.plan.refusing = passing, refusing
        self.plan.fault = Fault(number, 0.5)

    @rule(passing=st.integers(0, 8))
    def kill_soon(self, passing: int) -> None:
        self.plan.passing, self.plan.refusing, self.plan.fault = passing, 1, Fault(None, 0.7)

    @rule(share=SHARES, kind=st.sampled_from(FileSystem), seed=st.integers(0, 2**32))
    def cut_the_power(self, share: float, kind: FileSystem, seed: int) -> None:
        self.plan.heal()
        at = round(len(self.kernel.log) * share)
        image = self.playback.during(at).crash(random.Random(seed), kind)
        self.boot(image, self.driver.moment(at))

    # Once: two damages in one place may look like a power cut.
    @precondition(lambda self: not (self.plan.refusing or self.has_rotten))
    @rule(seed=st.integers(0, 2**32))
    def let_a_bit_rot(self, seed: int) -> None:
        self.insist(lambda: self.driver.save(identities=True))
        self.driver.close()
        files = {
            path: bytes(self.kernel.contents[inode]) for path, inode in self.kernel.names.items()
        }
        rng = random.Random(seed)
        path = rng.choice([path for path, content in files.items() if content])
        self.has_rotten = True
        content = bytearray(files[path])
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        files[path] = bytes(content)
        self.kernel = Kernel.booted(Image(files, set(self.kernel.directories)))
        spool = self.open_spool(self.kernel.files(self.plan), self.kernel.root)
        breaches, promise = damaged(self.driver.promise, spool, rotten=path)
        assert not breaches, breaches
        spool.close()
        image = Image(
            {name: bytes(self.kernel.contents[inode]) for name, inode in self.kernel.names.items()},
            set(self.kernel.directories),
        )
        self.boot(image, Moment(0, promise, (NO_CALL,)))

    @invariant()
    def holds_what_it_promised(self) -> None:
        if hasattr(self, "driver"):
            breaches, _ = judged(self.driver.promise, NO_CALL, Seen.of(self.driver.spool))
            assert not breaches, breaches

    def teardown(self) -> None:
        self.small.__exit__(None, None, None)


SpoolMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=25, deadline=None)
TestSpoolMachine = SpoolMachine.TestCase
