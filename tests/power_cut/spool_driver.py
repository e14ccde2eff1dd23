"""Drives a spool on recorded files, and keeps by when it had promised what.

After each call that returned, the spool is read and judged; so the recording itself is a test. A
call that failed, or in which the program was killed, may be on the disk or not, until a later
call returns.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from disk_faults import Faults, no_faults
from disk_operations import Operation
from spool_promise import (
    NO_CALL,
    VEHICLES_MAX,
    Breach,
    Call,
    Promise,
    Seen,
    best_judged,
    has_happened,
    judged,
)

from edge.identity import Verdict
from edge.marks import Mark
from edge.rows import AlertState, Lane, Priority, Telemetry
from edge.spool import Spool, SpoolError
from edge.spool.files import Files


class FaultyFiles(Files, Protocol):
    """A disk whose faults can be chosen."""

    faults: Faults


class Disk(Protocol):
    """What outlives the programs that work on it.

    Attributes:
        root: A directory that is there.
        log: What was done so far, if that is recorded.
    """

    @property
    def root(self) -> Path: ...

    @property
    def log(self) -> Sequence[Operation]: ...

    def files(self, faults: Faults) -> FaultyFiles:
        """The disk as the next program has it."""


LOOK_EVERY = 5
"""Calls after which the whole spool is looked at, and not only what is new."""

OpenSpool = Callable[[Files, Path], Spool]
"""Opens a spool on files, somewhere below a directory that is there."""


class BrokenPromiseError(AssertionError):
    """The spool does not hold what it said it would.

    Attributes:
        breaches: Each promise that is broken.
    """

    def __init__(self, breaches: list[Breach]) -> None:
        super().__init__("\n".join(f"{breach.wrong.value}: {breach.text}" for breach in breaches))
        self.breaches = breaches


@dataclass(frozen=True, slots=True)
class Moment:
    """From an operation on, this is promised, and one of these calls may have happened besides."""

    at: int
    promise: Promise
    calls: tuple[Call, ...]


class SpoolDriver:
    """A spool, its identities, and the history of its promises.

    Args:
        disk: The files and, perhaps, their recording.
        open_spool: Opens the spool on files.
        moment: What is promised to begin with.
    """

    def __init__(self, disk: Disk, open_spool: OpenSpool, moment: Moment | None = None) -> None:
        first = moment or Moment(0, Promise(), (NO_CALL,))
        self.disk = disk
        self.promise = first.promise
        self.history = [replace(first, at=len(disk.log))]
        self._unsure = tuple(call for call in first.calls if call is not NO_CALL)
        self._open_spool = open_spool
        self._calls = 0

    def open(self, faults: Faults = no_faults) -> None:
        """Open the spool, as a program does that has just begun, and judge what it shows."""
        self.files = self.disk.files(faults)
        self.spool = self._open_spool(self.files, self.disk.root)
        self._settle((NO_CALL, *self._unsure))
        self.book = self.spool.identity_book(vehicles_max=VEHICLES_MAX)

    def close(self) -> None:
        """Let go of the spool, without a word to the disk."""
        self.spool.close()

    def do(self, call: Call, act: Callable[[], object]) -> bool:
        """Make a call, and judge the spool when it returns; False when the disk refused.

        Raises:
            KilledError: The program died in it; `open` again.
            BrokenPromiseError: What the spool shows is not what it promised.
        """
        if call not in self._unsure:
            self._unsure = (*self._unsure, call)
        self._note((NO_CALL, *self._unsure))
        try:
            act()
        except SpoolError:
            return False
        self._returned(call)
        return True

    def _settle(self, calls: tuple[Call, ...]) -> None:
        """Which of the calls have happened is told by what is seen.

        Of the others, what is on the disk may show after the next power cut: nothing of it was
        acknowledged, and what is written from now on takes its place.
        """
        breaches, promise = best_judged(self.promise, calls, Seen.of(self.spool))
        hidden = tuple(call for call in self._unsure if not has_happened(call, promise))
        self._promised(breaches, promise, hidden)

    def _returned(self, call: Call) -> None:
        """A call returned: it has happened; those that failed before it may still show one day."""
        self._calls += 1
        look_at_all = self._calls % LOOK_EVERY == 0
        seen = Seen.of(self.spool) if look_at_all else Seen.news(self.spool, self.promise)
        breaches, promise = judged(self.promise, call, seen)
        self._promised(breaches, promise, tuple(each for each in self._unsure if each != call))

    def _promised(self, breaches: list[Breach], promise: Promise, unsure: tuple[Call, ...]) -> None:
        if breaches:
            raise BrokenPromiseError(breaches)
        self.promise, self._unsure = promise, unsure
        self._note((NO_CALL, *unsure))

    def _note(self, calls: tuple[Call, ...]) -> None:
        moment = Moment(len(self.disk.log), self.promise, calls)
        if self.history[-1].at == moment.at:
            self.history[-1] = moment
        else:
            self.history.append(moment)

    def moment(self, at: int) -> Moment:
        """What is promised while the operation `at` is under way."""
        return next(moment for moment in reversed(self.history) if moment.at <= at)

    def admit(self, row: Telemetry) -> Verdict:
        """Let the identities decide on a batch, and remember what its vehicle gave up."""
        boot = row.vehicle_id, row.boot_id
        upto = max(self.promise.forgone.get(boot, 0), min(row.oldest_seq, row.seq) - 1)
        self.promise = replace(self.promise, forgone={**self.promise.forgone, boot: upto})
        self._note(self.history[-1].calls)
        return self.book.admit(row.vehicle_id, row.boot_id, row.seq, row.oldest_seq)

    # -- the calls of a spool

    def store(
        self,
        telemetry: tuple[Telemetry, ...],
        priority: tuple[Priority, ...],
        settles: frozenset[tuple[str, int, int]] = frozenset(),
    ) -> bool:
        """`Spool.store`; `settles` are the identities of dead letters."""
        return self.do(
            Call("store", telemetry, priority, settles=settles),
            lambda: self.spool.store(telemetry, priority, self.book, save_identity=bool(settles)),
        )

    def store_alerts(
        self, priority: tuple[Priority, ...], states: tuple[AlertState, ...], scored: int
    ) -> bool:
        """`Spool.store_alerts`."""
        return self.do(
            Call("store_alerts", (), priority, states, {Mark.SCORED: scored}),
            lambda: self.spool.store_alerts(priority, states, scored=scored),
        )

    def store_priority(self, priority: tuple[Priority, ...], marks: Mapping[Mark, int]) -> bool:
        """`Spool.store_priority`."""
        return self.do(
            Call("store_priority", (), priority, marks=marks),
            lambda: self.spool.store_priority(priority, marks),
        )

    def alerts_published(self, states: tuple[AlertState, ...]) -> bool:
        """`Spool.alerts_published`."""
        return self.do(
            Call("alerts_published", publishes=frozenset(states)),
            lambda: self.spool.alerts_published(states),
        )

    def save(self, *, identities: bool) -> bool:
        """`Spool.save`."""
        return self.do(Call("save"), lambda: self.spool.save(self.book if identities else None))

    def trim(self, lane: Lane, through: int) -> bool:
        """`Spool.trim`."""
        return self.do(Call("trim"), lambda: self.spool.trim(lane, through=through))

    def tend(self, *, snapshot: bool) -> bool:
        """`Spool.tend`, or the snapshot that it takes now and then."""
        return self.do(Call("tend"), self.spool.take_snapshot if snapshot else self.spool.tend)

    def note(self, mark: Mark, value: int) -> None:
        """Set a hint, as the forwarder does."""
        self.spool.marks.note(mark, value)
        noted = {**self.promise.noted, mark: max(self.promise.noted[mark], value)}
        self.promise = replace(self.promise, noted=noted)
        self._note(self.history[-1].calls)
