"""True times of what a vehicle measured before its clock was right, by records of `vehicle.clocks`.

A `VehicleClock` says of one boot of a vehicle when its uptime was 0. It is known some time after
the boot, so what was written before keeps the times that the vehicle showed, and whoever reads it
later corrects them here. Pure; times are integers of milliseconds.
"""

from collections.abc import Mapping
from typing import Any

SYNCED_NEVER = -1
"""`synced_from_seq` of a boot whose clock was not right yet."""


def true_time_ms(clock: Mapping[str, Any], uptime_ms: int) -> int:
    """When a reading was measured, by its uptime; right to the record's `error_ms`.

    Args:
        clock: The `VehicleClock` of the reading's boot.
        uptime_ms: Of the reading: `uptime_ms` of its batch, and as much as its event time is behind
            that of the batch's first.

    Example:
        >>> true_time_ms({"zero_time": 1_790_000_000_000}, 2_500)
        1790000002500
    """
    return int(clock["zero_time"]) + uptime_ms


def corrected_time_ms(clock: Mapping[str, Any] | None, seq: int, event_time_ms: int) -> int:
    """The true time of something that says its event time but not its uptime, such as an alert.

    Args:
        clock: The `VehicleClock` of its boot; None where there is none.
        seq: Of the batch that it is about.
        event_time_ms: By the vehicle's clock.

    Returns:
        `event_time_ms` itself where the vehicle knew the time, or nobody knows better. What was
        measured before a jump of a clock that was not right is off by the jump.

    Example:
        >>> clock = {"offset_ms": 1_790_000_000_000, "synced_from_seq": 9}
        >>> corrected_time_ms(clock, 8, 5_000), corrected_time_ms(clock, 9, 1_790_000_006_000)
        (1790000005000, 1790000006000)
    """
    if clock is None or SYNCED_NEVER != clock["synced_from_seq"] <= seq:
        return event_time_ms
    return event_time_ms + int(clock["offset_ms"])
