"""Gap records: what a gateway had and will not deliver, told to the cloud; pure.

One for each vehicle, boot and run of batches. A run with holes may stand for several, with the
number of batches that it stands for, so that one let-go is never more than GAPS_MAX records.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from edge.rows import Kind, Priority
from schemas.records import encode_single_object

GAPS_MAX = 2_000
"""Records of one let-go. Beyond it runs of a boot become one, then vehicles become 'unknown'."""

UNKNOWN = -1


class GapReason(StrEnum):
    """Why something will not be delivered."""

    QUOTA = "quota"
    """The spool had reached `spool_bytes_max`."""
    FREE_SPACE = "free-space"
    """The disk had less than `disk_free_min_bytes` left."""
    DAMAGED = "damaged"
    """It could not be read any more."""
    REFUSED = "refused"
    """Kafka will never take it."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A run of batches.

    Attributes:
        vehicle_id: None where it is unknown.
        boot_id: UNKNOWN where it is.
        first_seq: Both ends included; UNKNOWN where it is.
        last_seq: See `first_seq`.
        batches: How many of the run are missing; UNKNOWN where it is.
        bytes: Of the spool.
    """

    vehicle_id: str | None
    boot_id: int
    first_seq: int
    last_seq: int
    batches: int
    bytes: int


@dataclass(frozen=True, slots=True)
class GapWriter:
    """Makes the rows of the priority lane.

    Attributes:
        gateway_id: Written into each record.
        spool_id: Written into each record.
    """

    gateway_id: str
    spool_id: str

    def row(self, gap: Gap, reason: GapReason, *, now_ms: int) -> Priority:
        """The row of a gap that was made or found at a time of the gateway's clock."""
        record = {
            "gateway_id": self.gateway_id,
            "spool_id": self.spool_id,
            "time": now_ms,
            "reason": reason.value,
            "vehicle_id": gap.vehicle_id,
            "boot_id": gap.boot_id,
            "first_seq": gap.first_seq,
            "last_seq": gap.last_seq,
            "batches": gap.batches,
            "bytes": gap.bytes,
        }
        payload = encode_single_object("GatewayGap", record)
        return Priority(Kind.GAP, gap.vehicle_id, now_ms, payload)

    def rows(self, gaps: Sequence[Gap], reason: GapReason, *, now_ms: int) -> list[Priority]:
        """The rows of several."""
        return [self.row(gap, reason, now_ms=now_ms) for gap in gaps]


def gaps_of(batches: Iterable[tuple[str, int, int, int]], *, gaps_max: int = GAPS_MAX) -> list[Gap]:
    """Gaps for batches that go.

    Args:
        batches: (vehicle, boot, seq, bytes) of each.
        gaps_max: Most gaps that may come of them.

    Example:
        >>> gaps_of([("a", 1, 4, 10), ("a", 1, 6, 10), ("a", 1, 5, 10)])
        [Gap(vehicle_id='a', boot_id=1, first_seq=4, last_seq=6, batches=3, bytes=30)]
    """
    sizes: dict[tuple[str, int], dict[int, int]] = {}
    for vehicle_id, boot_id, seq, size in batches:
        sizes.setdefault((vehicle_id, boot_id), {})[seq] = size
    runs = [run for key, seqs in sizes.items() for run in _runs(*key, seqs)]
    if len(runs) > gaps_max:
        runs = [_one(*key, sorted(seqs), seqs) for key, seqs in sizes.items()]
    if len(runs) > gaps_max:
        runs = [*runs[: gaps_max - 1], _nameless(runs[gaps_max - 1 :])]
    return runs


def _runs(vehicle_id: str, boot_id: int, sizes: dict[int, int]) -> list[Gap]:
    seqs = sorted(sizes)
    begins = [0, *(at for at in range(1, len(seqs)) if seqs[at] != seqs[at - 1] + 1)]
    ends = [*begins[1:], len(seqs)]
    return [
        _one(vehicle_id, boot_id, seqs[begin:end], sizes)
        for begin, end in zip(begins, ends, strict=True)
    ]


def _one(vehicle_id: str, boot_id: int, seqs: Sequence[int], sizes: dict[int, int]) -> Gap:
    size = sum(sizes[seq] for seq in seqs)
    return Gap(vehicle_id, boot_id, seqs[0], seqs[-1], len(seqs), size)


def _nameless(gaps: Sequence[Gap]) -> Gap:
    batches, size = sum(gap.batches for gap in gaps), sum(gap.bytes for gap in gaps)
    return Gap(None, UNKNOWN, UNKNOWN, UNKNOWN, batches, size)
