"""How much goes into one transaction, learned from how long transactions take. Pure.

A transaction takes a while however little is in it: the round trips to the brokers. What it takes
beyond that is for its content, and whoever comes next waits for it. On an uplink of 20 kB/s a slice
that is right for a data centre would outlast the transaction's time-out, and never come through;
on one with two seconds of latency small slices would never keep up. So the way is measured.
"""

from dataclasses import dataclass

SLICE_BYTES_MIN = 16 * 1024
LONGEST_S = 15.0
"""A transaction that takes longer is too large, whatever the round trips seem to be: brokers abort
it after twice that."""

_SMALL_BYTES = 2 * SLICE_BYTES_MIN
_FORGET = 1.02
"""The quickest transaction is forgotten by so much with each later one: ways change."""


@dataclass(slots=True)
class RoundTrips:
    """How long a transaction takes with next to nothing in it.

    Attributes:
        quickest_s: Of the latest small transactions; 0 before the first.
    """

    quickest_s: float = 0.0

    def took(self, duration_s: float, *, used: int) -> None:
        """A transaction with so many bytes was committed.

        Only small ones tell. Where the way has become longer, slices shrink until they are small,
        and then do.
        """
        if used <= _SMALL_BYTES:
            slower_s = self.quickest_s * _FORGET if self.quickest_s else duration_s
            self.quickest_s = min(slower_s, duration_s)


@dataclass(slots=True)
class Slice:
    """How many bytes of a lane go into a transaction: twice as many, or half, by how it went.

    Attributes:
        size: Bytes of payload for the next one.
        most: Never more than this, nor less than SLICE_BYTES_MIN, unless this is less.
        share: It may take this many times the round trips in addition to them,
        slack_s: or so long, if that is more.
    """

    size: int
    most: int
    share: float
    slack_s: float

    def took(self, duration_s: float, *, used: int, round_trips_s: float) -> None:
        """A transaction with `used` bytes of this lane was committed, or given up, after a while.

        One allows more only where it used up what was allowed, and twice as much would do.
        """
        if not used:
            return
        allowed_s = max(self.slack_s, self.share * round_trips_s)
        spent_s = duration_s - round_trips_s
        if spent_s > allowed_s or duration_s > LONGEST_S:
            self.fell_through()
        elif spent_s <= allowed_s / 2 and duration_s <= LONGEST_S / 2 and used >= self.size:
            self.size = min(self.most, self.size * 2)

    def fell_through(self) -> None:
        """A transaction was not committed: what was allowed may have been too much."""
        self.size = max(min(SLICE_BYTES_MIN, self.most), self.size // 2)
