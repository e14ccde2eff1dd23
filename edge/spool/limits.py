"""How much of the disk the spool may take, and what goes first: pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge.gaps import GapReason
from edge.spool.segment import Segment

SEGMENT_BYTES = 8 * 1024 * 1024
SEGMENTS_MIN = 16
"""A quota is cut into at least so many segments, so that little goes at once."""

RESERVE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class SpoolLimits:
    """Limits of a spool.

    Attributes:
        bytes_max: Bytes that it may take. More may be taken by records that never go.
        free_bytes_min: What is to stay free on the disk.
        segment_bytes: A segment that is this long is followed by another.
        reserve_bytes: Size of a file that is deleted when the disk is full, so that what must be
            written before telemetry may go can be; 0 for none.
    """

    bytes_max: int
    free_bytes_min: int = 0
    segment_bytes: int = SEGMENT_BYTES
    reserve_bytes: int = RESERVE_BYTES

    @classmethod
    def of(cls, bytes_max: int, free_bytes_min: int) -> "SpoolLimits":
        """Limits with segments that fit the quota."""
        segment_bytes = max(1, min(SEGMENT_BYTES, bytes_max // SEGMENTS_MIN))
        return cls(bytes_max, free_bytes_min, segment_bytes, min(RESERVE_BYTES, segment_bytes))


@dataclass(slots=True)
class Quota:
    """The quota that holds now: never less than what was unsent when it was set.

    So a lower `bytes_max` discards nothing. While what is unsent drains, the quota comes down.

    Attributes:
        bytes_max: As configured.
        effective: As it holds now.
    """

    bytes_max: int
    effective: int

    def drained(self, unsent_bytes: int) -> None:
        """So much is unsent now."""
        self.effective = max(self.bytes_max, min(self.effective, unsent_bytes))


@dataclass(frozen=True, slots=True)
class Lack:
    """Room that is missing.

    Attributes:
        reason: What for.
        bytes: How much.
    """

    reason: GapReason
    bytes: int


def lack(
    *, stored: int, wanted: int, quota: int, free: int, free_min: int, is_starved: bool
) -> Lack | None:
    """What is missing to store `wanted` bytes more; None when nothing is.

    Args:
        stored: Bytes of the spool now.
        wanted: Bytes to come.
        quota: Bytes that it may take.
        free: Bytes free on the disk.
        free_min: Bytes that are to stay free.
        is_starved: The disk said that it is full.
    """
    over_quota = stored + wanted - quota
    over_disk = wanted + free_min - free
    if is_starved or over_disk > max(0, over_quota):
        return Lack(GapReason.FREE_SPACE, max(over_disk, wanted))
    return Lack(GapReason.QUOTA, over_quota) if over_quota > 0 else None


def spare(segments: Sequence[Segment], *, through: int) -> list[Segment]:
    """Segments in front of which all rows are at or before a position."""
    taken: list[Segment] = []
    for segment in segments:
        if segment.last > through:
            break
        taken.append(segment)
    return taken


def unsent_bytes(segments: Sequence[Segment], is_sent: Callable[[Segment], bool]) -> int:
    """Bytes of segments that hold anything unsent."""
    return sum(segment.end for segment in segments if segment.has_rows and not is_sent(segment))
