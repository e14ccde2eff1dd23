"""What time it is for this gateway, however its clock behaves, and what its stored times mean.

Each row of the spool says when it was received three times over: by the wall clock, by the time
since the boot, and by the number of the boot. That number is even until the wall clock is known
to be right, and one more from then on, so an odd number says that `received_ms` is true. From that
moment on the wall clock is no longer asked but for what keeps it right: true time is the moment at
which the machine booted, plus the time since. A clock that is set by hand, jumps or leaps back
changes nothing then, and rows from before the moment get their true time by the same sum.

While the time is not known, a clock that shows less than what is surely past (a true time of an
earlier boot, or this release) counts as that: 1970 helps nobody, and a Kafka that keeps records for
a week would drop them at once.

`(gateway_boot, monotonic_ms)` rises with the position in the spool, so time can be searched for.
"""

import threading
from dataclasses import dataclass
from typing import NamedTuple

from edge.clock import NOT_BEFORE_MS, Clock, Look, mark_number
from edge.marks import Mark
from edge.rows import Lane, StoredTelemetry
from edge.spool import Spool

MARK_BITS = 40

KNOWN_EVERY_MS = 60_000
"""The past is noted about so often."""

STEP_MS = 60_000
"""A clock that is kept right moves by less than this from one look to the next."""

STEPS_BELIEVED = 60
"""So many looks in a row must agree on a greater step before it is believed."""


class Stamp(NamedTuple):
    """A moment of this gateway, as rows hold it."""

    received_ms: int
    gateway_boot: int
    monotonic_ms: int


class Moment(NamedTuple):
    """The part of a `Stamp` that only rises."""

    gateway_boot: int
    monotonic_ms: int


def is_true(gateway_boot: int) -> bool:
    """Whether rows of this number have a true time of receipt."""
    return gateway_boot % 2 == 1


def known_ms(received_ms: int, gateway_boot: int) -> int:
    """A time of receipt where it is true, or of what knows no boot; 0 where it may be wrong."""
    return received_ms if is_true(gateway_boot) or not gateway_boot else 0


def same_boot(a: int, b: int) -> bool:
    """Whether two numbers are of one boot: before and after its clock became right."""
    return a // 2 == b // 2


def age_ms(row: Moment, now: Stamp) -> int:
    """How long ago a row was received, at least.

    For a row of an earlier boot whose time is not known, that is the time since this boot.
    """
    if same_boot(row.gateway_boot, now.gateway_boot):
        return max(0, now.monotonic_ms - row.monotonic_ms)
    return now.monotonic_ms


@dataclass(frozen=True, slots=True)
class Epoch:
    """What is known of the present boot.

    Attributes:
        gateway_boot: Number that rows get now.
        zero_ms: True wall time at which the monotonic time was 0; None: not known yet.
    """

    gateway_boot: int
    zero_ms: int | None = None

    def seen(self, look: Look) -> "Epoch":
        """The same after a look at a clock that is right."""
        zero_ms = look.wall_ms - look.monotonic_ms
        return Epoch(self.gateway_boot | 1, zero_ms)


def begin(mark: int, last: StoredTelemetry | None, *, boot: int, monotonic_ms: int) -> Epoch:
    """The epoch to go on with after a start.

    Args:
        mark: `Mark.GATEWAY_BOOT` as saved: number of the boot, and which one it was.
        last: Newest row of telemetry; it may be newer than the mark.
        boot: Which boot this one is, in MARK_BITS bits.
        monotonic_ms: Now.

    Returns:
        That of the same boot where it is the same, with what its newest row tells; otherwise a new
        one, whose number is greater than any before.
    """
    number = max(mark >> MARK_BITS, 0 if last is None else last.gateway_boot)
    again = mark > 0 and mark & ((1 << MARK_BITS) - 1) == boot
    following = Epoch((number | 1) + 1)
    if not again or (last is not None and monotonic_ms < _monotonic_ms(last, number)):
        return following
    if last is None or last.gateway_boot != number or not is_true(number):
        return Epoch(number & ~1)  # no row was stored with a true time in this boot
    return Epoch(number, last.received_ms - last.monotonic_ms)


def _monotonic_ms(last: StoredTelemetry, number: int) -> int:
    return last.monotonic_ms if same_boot(last.gateway_boot, number) else 0


class Timekeeper:
    """The time of this gateway. `tick` belongs to one thread; all else may be asked from any.

    Args:
        clock: Of the machine.
        spool: Keeps the number of the boot; its last row may tell what an earlier life knew.

    Raises:
        SpoolError, SpoolDamagedError: The spool cannot be read.
    """

    def __init__(self, clock: Clock, spool: Spool) -> None:
        self._clock = clock
        self._spool = spool
        self._boot = mark_number(clock.boot_mark())
        self._synced = False
        self._steps = 0
        self._lock = threading.Lock()
        self._epoch = begin(
            spool.marks[Mark.GATEWAY_BOOT],
            _last_row(spool),
            boot=self._boot,
            monotonic_ms=clock.monotonic_ms(),
        )
        self._past_ms = max(NOT_BEFORE_MS, spool.marks[Mark.KNOWN_MS])
        self._note()
        self.tick()

    @property
    def synced(self) -> bool:
        """Whether the wall clock was known to be right at the last look."""
        return self._synced

    @property
    def known(self) -> bool:
        """Whether true time is known, be it that the wall clock is wrong again."""
        return self._epoch.zero_ms is not None

    def now(self) -> Stamp:
        """The present moment; its time is true if its number says so."""
        epoch = self._epoch
        monotonic_ms = self._clock.monotonic_ms()
        if epoch.zero_ms is not None:
            return Stamp(epoch.zero_ms + monotonic_ms, epoch.gateway_boot, monotonic_ms)
        wall_ms = max(self._clock.wall_ms(), self._past_ms + monotonic_ms)
        return Stamp(wall_ms, epoch.gateway_boot, monotonic_ms)

    def wall_ms(self) -> int:
        """True time where it is known, otherwise what the wall clock shows, at least the past."""
        return self.now().received_ms

    def is_present(self, gateway_boot: int) -> bool:
        """Whether a row's number is of the present boot."""
        return same_boot(gateway_boot, self._epoch.gateway_boot)

    def true_ms(self, row: Moment) -> int | None:
        """When a row of the present boot was received, in truth; None: not known."""
        epoch = self._epoch
        if epoch.zero_ms is None or not same_boot(row.gateway_boot, epoch.gateway_boot):
            return None
        return epoch.zero_ms + row.monotonic_ms

    def tick(self) -> None:
        """Look at the clock; call it about once a second."""
        synced = self._clock.synced()
        with self._lock:
            look = Look(self._clock.wall_ms(), self._clock.monotonic_ms(), synced)
            self._synced = synced
            if synced and self._believable(look):
                self._epoch = self._epoch.seen(look)
                self._note()
            if self.known and self.wall_ms() >= self._spool.marks[Mark.KNOWN_MS] + KNOWN_EVERY_MS:
                self._spool.marks.note(Mark.KNOWN_MS, self.wall_ms())

    def _believable(self, look: Look) -> bool:
        """Whether a clock that says it is right does not jump."""
        zero_ms = self._epoch.zero_ms
        step_ms = 0 if zero_ms is None else look.wall_ms - look.monotonic_ms - zero_ms
        self._steps = self._steps + 1 if abs(step_ms) > STEP_MS else 0
        if self._steps > STEPS_BELIEVED:
            self._steps = 0
        return self._steps == 0

    def _note(self) -> None:
        value = self._epoch.gateway_boot << MARK_BITS | self._boot
        self._spool.marks.note(Mark.GATEWAY_BOOT, value)


def _last_row(spool: Spool) -> StoredTelemetry | None:
    """The newest row of telemetry; None where it was let go."""
    reader = spool.reader()
    try:
        rows = reader.telemetry(after=spool.last(Lane.TELEMETRY) - 1, rows_max=1, bytes_max=1)
    finally:
        reader.close()
    return rows[0] if rows else None
