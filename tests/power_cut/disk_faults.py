"""How a disk refuses, and how a program dies at it: the same for files in memory and real ones."""

import errno
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES, errno.EDQUOT)


class KilledError(BaseException):
    """The program is dead; whatever it still tries is not done. Nothing may catch this."""


@dataclass(frozen=True, slots=True)
class Fault:
    """How an operation fails.

    Attributes:
        number: Of `errno`; None kills the program instead.
        share: Of an append, how much gets through all the same, 0..1.
    """

    number: int | None
    share: float = 0.0


Faults = Callable[[str, Path], Fault | None]
"""Asked before each operation: what it is, and on what; None lets it happen."""


def no_faults(_verb: str, _path: Path) -> Fault | None:
    """The disk of a good day."""
    return None


def failure(fault: Fault, path: Path) -> BaseException:
    """What the program sees of a fault."""
    if fault.number is None:
        return KilledError()
    return OSError(fault.number, os.strerror(fault.number), str(path))


@dataclass
class FaultPlan:
    """A disk that lets so many operations pass, then refuses so many.

    Attributes:
        passing: Operations that still pass.
        refusing: Operations that are refused then.
        fault: How.
        refused: Operations that were refused so far.
    """

    passing: int = 0
    refusing: int = 0
    fault: Fault = field(default_factory=lambda: Fault(errno.EIO))
    refused: int = 0

    def draw(self, rng: random.Random, *, kill: bool) -> None:
        """Refuse, or kill, at one of the next operations."""
        self.passing = rng.choice((0, 0, 1, 1, 2, 3, 5, 8))
        self.refusing = rng.choice((1, 1, 1, 2, 4))
        self.fault = Fault(None if kill else rng.choice(ERRORS), rng.choice((0.0, 0.5, 0.9, 1.0)))

    def heal(self) -> None:
        """The disk is well again."""
        self.refusing = 0

    def __call__(self, _verb: str, _path: Path) -> Fault | None:
        if not self.refusing:
            return None
        if self.passing:
            self.passing -= 1
            return None
        self.refusing -= 1
        self.refused += 1
        return self.fault


@dataclass
class AppointedPlan(FaultPlan):
    """A plan that nothing changes before it has come true."""

    def heal(self) -> None:
        """The disk is well again, if it has been ill."""
        if self.refused:
            super().heal()
