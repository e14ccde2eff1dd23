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


def position_at(moment: Moment, *, first: int, last: int, moment_at: MomentAt) -> int:
    """The first position in `first..last` received at or after a moment; `last + 1` if none was.

    Moments rise with the position.
    """
    low, high = first, last + 1
    while low < high:
        middle = (low + high) // 2
        found = moment_at(middle)
        if found is not None and found < moment:
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
        boot = newest.gateway_boot // 2 * 2
        if newest.monotonic_ms >= left_ms:
            since = Moment(boot, newest.monotonic_ms - left_ms)
            return _of_boot(since, first=first, last=at, moment_at=moment_at)
        left_ms -= newest.monotonic_ms
        at = position_at(Moment(boot, 0), first=first, last=at, moment_at=moment_at) - 1
    return first


def _of_boot(since: Moment, *, first: int, last: int, moment_at: MomentAt) -> int:
    """As `position_at`, of a boot whose number is one more for its later rows."""
    later = Moment(since.gateway_boot + 1, 0)
    border = position_at(later, first=first, last=last, moment_at=moment_at)
    found = position_at(since, first=first, last=border - 1, moment_at=moment_at)
    if found < border:
        return found
    since = since._replace(gateway_boot=later.gateway_boot)
    return position_at(since, first=border, last=last, moment_at=moment_at)
