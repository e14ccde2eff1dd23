"""Crash points: a recording, an operation of it, and what the power cut left, all from one seed.

Point K of seed N is always the same crash. As many points as the recordings have operations
visit each operation once; more of them visit it again, with another outcome.
"""

import random
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import gcd

from disk_operations import Image, Operation, described
from memory_files import Kernel
from platter import FileSystem, Playback
from spool_course import SpoolCourse
from spool_driver import BrokenPromiseError, Moment, OpenSpool, SpoolDriver
from spool_promise import Breach, Wrong

RECORDINGS = 12
STEPS = 60
STEPS_AFTER = 4
CUTS_MAX = 3
AROUND = 6
TOLD_MAX = 8
FAULTS = (0.0, 0.1, 0.3)
KILLS = (0.0, 0.0, 0.05, 0.15)
FAULTS_AFTER = 0.1
KILLS_AFTER = 0.05


@dataclass(frozen=True, slots=True)
class PowerCut:
    """Where the power went.

    Attributes:
        log: The operations of the program that ran.
        at: Number of the operation that was under way; `len(log)` when none was.
        kind: Rules of the file system.
    """

    log: Sequence[Operation]
    at: int
    kind: FileSystem

    def told(self) -> Iterator[str]:
        """The operations around it, for a person."""
        yield f"power cut in operation {self.at} of {len(self.log)}, rules: {self.kind.value}"
        for number in range(max(self.at - AROUND, 0), min(self.at + AROUND + 1, len(self.log))):
            mark = "->" if number == self.at else "  "
            yield f"{mark} {number:5} {described(self.log[number])}"


@dataclass(slots=True)
class Failure:
    """Promises that were broken.

    Attributes:
        recording: Which recording.
        point: Which crash point; None when it showed in the recording itself, without a crash.
        breaches: What was broken.
        cuts: The power cuts that led to it, in order.
    """

    recording: int
    point: int | None = None
    breaches: list[Breach] = field(default_factory=list)
    cuts: list[PowerCut] = field(default_factory=list)

    def told(self) -> Iterator[str]:
        """All of it, for a person."""
        yield f"recording {self.recording}, " + (
            "without a power cut:" if self.point is None else f"point {self.point}:"
        )
        for cut in self.cuts:
            yield from (f"  {line}" for line in cut.told())
        for breach in self.breaches[:TOLD_MAX]:
            yield f"  {breach.wrong.value}: {breach.text}"
        if len(self.breaches) > TOLD_MAX:
            yield f"  and {len(self.breaches) - TOLD_MAX} more"


class Recording:
    """A course that is driven on files that keep a record.

    Args:
        rng: Decides everything.
        open_spool: Opens the spool.
        image: What is on the disk to begin with; None for nothing.
        moment: What is promised to begin with.
    """

    def __init__(
        self,
        rng: random.Random,
        open_spool: OpenSpool,
        image: Image | None = None,
        moment: Moment | None = None,
    ) -> None:
        self._rng = rng
        kernel = Kernel() if image is None else Kernel.booted(image)
        image = image or Image({}, set(kernel.directories))
        self.driver = SpoolDriver(kernel, open_spool, moment)
        self.log = kernel.log
        self._playback = Playback(image, dict(kernel.names), self.log)

    def drive(self, steps: int, *, faults: float, kills: float) -> None:
        """Open the spool and take steps. Raises BrokenPromiseError."""
        self.driver.open()
        SpoolCourse(self.driver, self._rng).run(steps, faults=faults, kills=kills)

    def crash(self, cut: PowerCut, rng: random.Random) -> tuple[Image, Moment]:
        """What a power cut leaves on the disk, and what is promised of it."""
        return self._playback.during(cut.at).crash(rng, cut.kind), self.driver.moment(cut.at)


class CrashPoints:
    """The crash points of a seed.

    Args:
        seed: Decides everything.
        open_spools: Ways to open a spool, such as with segments of several sizes.
        recordings: Courses to drive.
    """

    def __init__(
        self, seed: int, open_spools: Sequence[OpenSpool], *, recordings: int = RECORDINGS
    ) -> None:
        self._seed = seed
        self.failures: list[Failure] = []
        self._places: list[tuple[int, int]] = []
        self._recordings: list[tuple[Recording, OpenSpool]] = []
        for number in range(recordings):
            self._record(number, open_spools[number % len(open_spools)])
        rng = random.Random(f"{seed}")
        self._first = rng.randrange(len(self._places))
        self._stride = next(
            stride
            for stride in iter(lambda: rng.randrange(1, len(self._places) + 1), None)
            if gcd(stride, len(self._places)) == 1
        )

    @property
    def operations(self) -> int:
        """Places where the power can go."""
        return len(self._places)

    def count(self, wrong: Wrong) -> int:
        """Broken promises of one kind so far."""
        return sum(
            breach.wrong is wrong for failure in self.failures for breach in failure.breaches
        )

    def _record(self, number: int, open_spool: OpenSpool) -> None:
        rng = random.Random(f"{self._seed} recording {number}")
        recording = Recording(rng, open_spool)
        failure = Failure(number)
        with _noticed(failure, self.failures):
            recording.drive(STEPS, faults=rng.choice(FAULTS), kills=rng.choice(KILLS))
        self._recordings.append((recording, open_spool))
        self._places += [(number, at) for at in range(len(recording.log) + 1)]

    def run(self, points: Iterable[int]) -> None:
        """Crash at these points; what fails is in `failures`."""
        for place, point in sorted((self._place(point), point) for point in points):
            self._crash(point, *place)

    def _place(self, point: int) -> tuple[int, int]:
        """Recording and operation of a point."""
        return self._places[(self._first + point * self._stride) % len(self._places)]

    def _crash(self, point: int, number: int, at: int) -> None:
        rng = random.Random(f"{self._seed} point {point}")
        recording, open_spool = self._recordings[number]
        failure = Failure(number, point)
        with _noticed(failure, self.failures):
            for cuts_left in reversed(range(rng.randint(1, CUTS_MAX))):
                cut = PowerCut(recording.log, at, rng.choice(tuple(FileSystem)))
                failure.cuts.append(cut)
                image, moment = recording.crash(cut, rng)
                recording = Recording(rng, open_spool, image, moment)
                recording.drive(
                    STEPS_AFTER if cuts_left else 1, faults=FAULTS_AFTER, kills=KILLS_AFTER
                )
                at = rng.randint(0, len(recording.log))


@contextmanager
def _noticed(failure: Failure, failures: list[Failure]) -> Iterator[None]:
    """Keep what is broken, and go on with the next point."""
    try:
        yield
    except BrokenPromiseError as error:
        failure.breaches = error.breaches
        failures.append(failure)
    except Exception as error:  # noqa: BLE001 - whatever it is, nobody reads this spool any more
        told = "".join(traceback.format_exception(error, limit=-6)).rstrip()
        failure.breaches = [Breach(Wrong.LOST, f"the spool fails: {told}")]
        failures.append(failure)
