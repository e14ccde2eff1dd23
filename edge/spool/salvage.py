"""Whose rows a damaged place held: pure.

The batches of a boot are numbered. So the neighbours of a damaged place tell what is missing of
each vehicle; when that is as many batches as rows are lost, these are the ones. Otherwise the gap
is told without names.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from edge.gaps import UNKNOWN, Gap
from edge.spool.recovery import Damage


class Neighbour(NamedTuple):
    """A good row of the segment."""

    position: int
    vehicle_id: str
    boot_id: int
    seq: int


def nameless(damage: Damage) -> Gap:
    """The gap of rows of which only the number is known."""
    rows = damage.last - damage.first + 1
    return Gap(None, UNKNOWN, UNKNOWN, UNKNOWN, rows, damage.bytes)


def unsent_part(damage: Damage, *, settled: int) -> Damage:
    """The damage without the rows that need not be delivered any more; may be empty."""
    return replace(damage, first=max(damage.first, settled + 1))


def gaps_of_damage(
    damage: Damage, good: Iterable[Neighbour], was_settled: Callable[[str, int, int], bool]
) -> list[Gap]:
    """Gaps for the rows that are lost.

    Args:
        damage: Which.
        good: The good rows of the segment, by position.
        was_settled: Whether a batch (vehicle, boot, seq) was ever stored; what never was is a
            hole of the vehicle's own, and then the numbers say nothing.

    Example:
        >>> from edge.rows import Lane
        >>> lost = Damage(Lane.TELEMETRY, 1, 11, 12, 300)
        >>> good = [Neighbour(10, "a", 1, 5), Neighbour(13, "a", 1, 8)]
        >>> gaps_of_damage(lost, good, lambda *batch: True)
        [Gap(vehicle_id='a', boot_id=1, first_seq=6, last_seq=7, batches=2, bytes=300)]
    """
    before: dict[tuple[str, int], int] = {}
    behind: dict[tuple[str, int], int] = {}
    for position, vehicle_id, boot_id, seq in good:
        key = vehicle_id, boot_id
        if position < damage.first:
            before[key] = max(seq, before.get(key, 0))
        else:
            behind[key] = min(seq, behind.get(key, seq))
    missing = [
        (key, before[key] + 1, behind[key] - 1)
        for key in before.keys() & behind.keys()
        if behind[key] > before[key] + 1
    ]
    rows = damage.last - damage.first + 1
    if sum(last - first + 1 for _, first, last in missing) != rows:
        return [nameless(damage)]
    if not all(
        was_settled(*key, s) for key, first, last in missing for s in range(first, last + 1)
    ):
        return [nameless(damage)]
    return _named(sorted(missing), damage.bytes // rows)


def _named(missing: Sequence[tuple[tuple[str, int], int, int]], row_bytes: int) -> list[Gap]:
    return [
        Gap(vehicle_id, boot_id, first, last, last - first + 1, (last - first + 1) * row_bytes)
        for (vehicle_id, boot_id), first, last in missing
    ]
