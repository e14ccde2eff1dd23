"""Runs of equal rows in an array: the arithmetic of grouped data without a loop."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_T = TypeVar("_T", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Segments:
    """N items cut into G runs.

    Attributes:
        starts: First item of each run, ascending. Shape (G,).
        ends: Last item of each. Shape (G,).
        of: Run of each item. Shape (N,).
    """

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    of: NDArray[np.int64]

    @staticmethod
    def where(begins: NDArray[np.bool_]) -> "Segments":
        """Runs that begin where `begins` holds; the first item always begins one. N >= 1."""
        starts = np.flatnonzero(begins)
        ends = np.append(starts[1:], len(begins)) - 1
        return Segments(starts, ends, np.cumsum(begins) - 1)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Items of each run. Shape (G,)."""
        return self.ends - self.starts + 1

    @property
    def position(self) -> NDArray[np.int64]:
        """Place of each item in its run, from 0. Shape (N,)."""
        return np.arange(len(self.of)) - self.starts[self.of]

    def latest(
        self, values: NDArray[_T], where: NDArray[np.bool_], before: NDArray[_T]
    ) -> NDArray[_T]:
        """Value at the latest item of the run so far for which `where` holds.

        Args:
            values: Shape (N,).
            where: Shape (N,).
            before: What holds at the start of each run. Shape (G,).

        Returns:
            Shape (N,).
        """
        index = np.maximum.accumulate(np.where(where, np.arange(len(where)), -1))
        inside = index >= self.starts[self.of]
        return np.where(inside, values[index], before[self.of])


def changes(rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where a row differs from the one before; True at the first. Shape (N,), N >= 1."""
    begins = np.ones(len(rows), np.bool_)
    np.not_equal(rows[1:], rows[:-1], out=begins[1:])
    return begins
