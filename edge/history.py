"""Which stretch of stored telemetry rebuilds the scorer's memory: found by bisection."""

from collections.abc import Callable


def position_at(
    time_ms: int, *, first: int, last: int, received_ms: Callable[[int], int | None]
) -> int:
    """The first position in `first..last` received at or after a time; `last + 1` if none was.

    Receive times nearly rise with the position. Where the gateway's clock stepped back the
    result may lie anywhere between the two stretches that fit.

    Args:
        time_ms: Wall time of the gateway.
        first: Lowest position to look at.
        last: Highest position to look at.
        received_ms: When the row at a position was received; None for no row there or behind it.
    """
    low, high = first, last + 1
    while low < high:
        middle = (low + high) // 2
        found = received_ms(middle)
        if found is not None and found < time_ms:
            low = middle + 1
        else:
            high = middle
    return low
