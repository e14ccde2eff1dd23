"""What of a lane is in Kafka: all up to a position, and a few stretches above it. Pure."""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

RANGES_MAX = 64
"""Stretches above the contiguous part that a lane may have; each record of it carries them all."""

PositionRange = tuple[int, int]
"""First and last position, both included."""


class Gap(NamedTuple):
    """A stretch that is missing: first and last position, both included."""

    first: int
    last: int


@dataclass(slots=True)
class Ranges:
    """Positions that are done. Positions begin with 1.

    Attributes:
        contiguous: All up to here are done; 0 when none is.
        above: Done beyond that: both ends included, ascending, never adjacent.

    Example:
        >>> done = Ranges(4)
        >>> done.add(8, 9)
        >>> done.missing_after(0), done.end
        (Gap(first=5, last=7), 9)
        >>> done.add(5, 7)
        >>> done
        Ranges(contiguous=9, above=[])
    """

    contiguous: int = 0
    above: list[PositionRange] = field(default_factory=list)

    @classmethod
    def of(cls, contiguous: int, ranges: Iterable[PositionRange]) -> "Ranges":
        """From what a record says, whose ranges may touch or overlap."""
        done = cls(contiguous)
        for first, last in ranges:
            done.add(first, last)
        return done

    @property
    def end(self) -> int:
        """The highest position that is done; 0 when none is."""
        return self.above[-1][1] if self.above else self.contiguous

    @property
    def ahead(self) -> int:
        """How many positions above the contiguous part are done."""
        return sum(last - first + 1 for first, last in self.above)

    @property
    def full(self) -> bool:
        """Whether no further stretch may be begun; one that grows, or closes a gap, may be."""
        return len(self.above) >= RANGES_MAX

    def covers(self, position: int) -> bool:
        """Whether this position is done."""
        if position <= self.contiguous:
            return True
        at = bisect_left(self.above, (position + 1,)) - 1
        return at >= 0 and position <= self.above[at][1]

    def add(self, first: int, last: int) -> None:
        """Positions `first..last` are done, whether some of them were before or not."""
        if last < first:
            return
        kept: list[PositionRange] = []
        for one in self.above:
            if one[1] < first - 1 or one[0] > last + 1:
                kept.append(one)
            else:
                first, last = min(first, one[0]), max(last, one[1])
        if first <= self.contiguous + 1:
            self.contiguous = max(self.contiguous, last)
        else:
            kept.insert(bisect_left(kept, (first, last)), (first, last))
        self.above = [one for one in kept if one[0] > self.contiguous]

    def missing_after(self, position: int) -> Gap | None:
        """The first gap above a position that something above it closes; None without one."""
        first = max(position, self.contiguous) + 1
        for start, end in self.above:
            if first < start:
                return Gap(first, start - 1)
            first = max(first, end + 1)
        return None

    def up_to(self, position: int) -> "Ranges":
        """What of it is not above a position."""
        return Ranges(
            min(self.contiguous, position),
            [(first, min(last, position)) for first, last in self.above if first <= position],
        )

    def copy(self) -> "Ranges":
        """One that changes by itself."""
        return Ranges(self.contiguous, list(self.above))
