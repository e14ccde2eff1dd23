"""Which stretch of stored telemetry rebuilds the scorer's memory: found by bisection.

By the gateway's own monotonic time, boot by boot, so that no jump of its clock can empty it.
"""

from collections.abc import Callable

from edge.spool import SpoolReader
from edge.timekeeper import Moment

MomentAt = Callable[[int], Moment | None]
"""When the first row at or behind a position was received; None where there is none."""


def moments(reader: SpoolReader) -> MomentAt:
    """The moments of a spool's telemetry. Raises as the reader."""

    def moment(position: int) -> Moment | None:
        rows = reader.telemetry(after=position - 1, rows_max=1, bytes_max=1)
        return Moment(rows[0].gateway_boot, rows[0].monotonic_ms) if rows else None

    return moment


def position_at(
    reached: Callable[[Moment], bool], *, first: int, last: int, moment_at: MomentAt
) -> int:
    """The first position in `first..last` whose row has reached something; `last + 1` if none has.

    Args:
        reached: Holds for every row behind one for which it holds.
        first: Lowest position to look at.
        last: Highest position to look at.
        moment_at: See `MomentAt`. A look may cost milliseconds, and there are as many as bits in
            the number of rows.
    """
    low, high = first, last + 1
    while low < high:
        middle = (low + high) // 2
        found = moment_at(middle)
        if found is not None and not reached(found):
            low = middle + 1
        else:
            high = middle
    return low


def history_start(history_ms: int, *, first: int, last: int, moment_at: MomentAt) -> int:
    """Where the last `history_ms` before the row at `last` begin.

    How long a machine was off between two of its boots is not known, so only the time since each
    boot counts: what is found is never less than was asked for.

    Args:
        history_ms: Time back from the row at `last`.
        first: Lowest position to look at.
        last: Newest row that counts.
        moment_at: See `MomentAt`.

    Returns:
        In `first..last + 1`; `first` where there is no more.
    """
    left_ms, at = history_ms, last
    while at >= first:
        newest = moment_at(at)
        if newest is None:
            return first
        boot, since_ms = newest.gateway_boot // 2, newest.monotonic_ms - left_ms
        since = _since(boot, max(0, since_ms))
        begin = position_at(since, first=first, last=at, moment_at=moment_at)
        if since_ms >= 0:
            return begin
        left_ms, at = -since_ms, begin - 1
    return first


def _since(boot: int, monotonic_ms: int) -> Callable[[Moment], bool]:
    """Whether a moment is of this boot or a later one, and so long after it.

    A boot has two numbers, before and after its clock became right; half of either is the same.
    """
    return lambda moment: (moment.gateway_boot // 2, moment.monotonic_ms) >= (boot, monotonic_ms)
