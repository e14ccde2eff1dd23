"""Which batches of a vehicle are settled: pure, and bounded.

The identity of a batch is (vehicle, boot, seq). A batch is settled when it is on the disk of the
gateway (as telemetry or as a dead letter), or when the vehicle says that it no longer has it
(`oldest_seq`). Per boot that is one number, up to which all is settled, and a few ranges above it.

Gateways that share a fleet get a part of each vehicle's batches, so what one of them has is full
of holes that others fill. There a batch below `oldest_seq` is not called given up, and where there
are too many ranges the lowest is forgotten: its batches, all of them acknowledged, would be stored
again if they came again. Between gateways that may happen anyway; nothing is refused or lost.

What changes here must reach the disk in the same transaction as the batches it stands for; see
`edge.spool` for how that costs no extra write.
"""

import struct
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

BOOTS_KEPT = 4
"""Boots remembered per vehicle, the greatest `boot_id`s."""

RANGES_MAX = 1024
"""Ranges above the contiguous part that are remembered per boot."""

SHARED_RANGES_MAX = 256
"""The same where gateways share a fleet: holes are then the rule, for as many batches as a vehicle
has on the way at once."""

SeqRange = tuple[int, int]


class Verdict(Enum):
    """What becomes of a batch, by its identity alone."""

    NEW = "new"
    DUPLICATE = "duplicate"
    BOOT_FORGOTTEN = "boot-forgotten"
    TOO_MANY_GAPS = "too-many-gaps"


@dataclass(slots=True)
class BootState:
    """What is settled of one boot of one vehicle.

    Attributes:
        contiguous: All batches up to this one are settled; 0 when none is.
        ranges: Settled batches above that: both ends included, ascending, never adjacent,
            never more than RANGES_MAX; where gateways share a fleet, SHARED_RANGES_MAX.
    """

    contiguous: int = 0
    ranges: list[SeqRange] = field(default_factory=list)

    def covers(self, seq: int) -> bool:
        """Whether this batch is settled."""
        if seq <= self.contiguous:
            return True
        at = bisect_right(self.ranges, (seq, seq)) - 1
        return any(first <= seq <= last for first, last in self.ranges[max(at, 0) : at + 2])

    def add(self, seq: int, *, shared: bool = False) -> Verdict:
        """Settle one batch, if it is new and its gap can be remembered.

        Args:
            seq: Of the batch.
            shared: Other gateways have what is missing: make room by forgetting the lowest range.
        """
        if seq == self.contiguous + 1:
            self.contiguous = seq
            self._absorb()
            return Verdict.NEW
        if self.covers(seq):
            return Verdict.DUPLICATE
        if shared:
            del self.ranges[: max(0, len(self.ranges) - SHARED_RANGES_MAX + 1)]
        return self._add_above_gap(seq)

    def settle_below(self, seq: int) -> int:
        """Settle everything below `seq`; returns how many batches that newly settled."""
        if seq - 1 <= self.contiguous:
            return 0
        held = sum(
            min(last, seq - 1) - first + 1 for first, last in self.ranges if first <= seq - 1
        )
        missing = seq - 1 - self.contiguous - held
        self.contiguous = seq - 1
        self._absorb()
        return missing

    def _absorb(self) -> None:
        """Let the contiguous part swallow the ranges that it has reached."""
        done = 0
        for first, last in self.ranges:
            if first > self.contiguous + 1:
                break
            self.contiguous = max(self.contiguous, last)
            done += 1
        if done:
            del self.ranges[:done]

    def _add_above_gap(self, seq: int) -> Verdict:
        at = bisect_right(self.ranges, (seq, seq))
        joins_left = at > 0 and self.ranges[at - 1][1] == seq - 1
        joins_right = at < len(self.ranges) and self.ranges[at][0] == seq + 1
        if not (joins_left or joins_right) and len(self.ranges) >= RANGES_MAX:
            return Verdict.TOO_MANY_GAPS
        first = self.ranges[at - 1][0] if joins_left else seq
        last = self.ranges[at][1] if joins_right else seq
        self.ranges[at - joins_left : at + joins_right] = [(first, last)]
        return Verdict.NEW

    def pack_ranges(self) -> bytes:
        """The ranges as little-endian 64-bit pairs, for the spool."""
        flat = [end for pair in self.ranges for end in pair]
        return struct.pack(f"<{len(flat)}q", *flat)

    @classmethod
    def unpack(cls, contiguous: int, packed: bytes) -> "BootState":
        """The inverse of `pack_ranges`."""
        flat = struct.unpack(f"<{len(packed) // 8}q", packed)
        return cls(contiguous, list(zip(flat[::2], flat[1::2], strict=True)))


Boots = dict[int, BootState]


class IdentityBook:
    """The settled batches of all vehicles, a bounded number of them in memory.

    Not safe for several threads: the storing thread owns it.

    Args:
        load: Boots of a vehicle as last saved; empty for an unknown one.
        vehicles_max: Vehicles kept in memory after `saved`; between two saves there may be more
            by as many as were touched.
        shared: Other gateways get a part of each vehicle's batches.
    """

    def __init__(
        self, load: Callable[[str], Boots], *, vehicles_max: int, shared: bool = False
    ) -> None:
        self._load = load
        self._shared = shared
        self._vehicles_max = vehicles_max
        self._vehicles: dict[str, Boots] = {}
        self._touched: set[str] = set()
        self.vehicle_drops = 0

    def admit(self, vehicle_id: str, boot_id: int, seq: int, oldest_seq: int) -> Verdict:
        """Settle a batch and what its `oldest_seq` says, or say why not.

        A boot older than the BOOTS_KEPT greatest is refused: whether its batches are duplicates
        cannot be told any more. `vehicle_drops` grows by the batches that the vehicle gave up; of a
        shared fleet nobody can tell those from what another gateway has.
        """
        boots = self._boots(vehicle_id)
        state = boots.get(boot_id)
        if state is None:
            if len(boots) >= BOOTS_KEPT and boot_id < min(boots):
                return Verdict.BOOT_FORGOTTEN
            state = boots[boot_id] = BootState()
            if len(boots) > BOOTS_KEPT:
                del boots[min(boots)]
        self._touched.add(vehicle_id)
        if oldest_seq > state.contiguous + 1:
            missing = state.settle_below(min(oldest_seq, seq))
            self.vehicle_drops += 0 if self._shared else missing
        return state.add(seq, shared=self._shared)

    def state(self, vehicle_id: str, boot_id: int) -> BootState | None:
        """What is settled of a boot; None when it is not remembered."""
        return self._boots(vehicle_id).get(boot_id)

    def _boots(self, vehicle_id: str) -> Boots:
        boots = self._vehicles.get(vehicle_id)
        if boots is None:
            boots = self._vehicles[vehicle_id] = self._load(vehicle_id)
        return boots

    @property
    def touched(self) -> int:
        """Vehicles that changed since the last save."""
        return len(self._touched)

    def unsaved(self) -> list[tuple[str, Boots]]:
        """What has to be saved, vehicle by vehicle."""
        return [(vehicle_id, self._vehicles[vehicle_id]) for vehicle_id in self._touched]

    def saved(self) -> None:
        """All of `unsaved` is on disk: forget what is too much for memory."""
        self._touched.clear()
        excess = len(self._vehicles) - self._vehicles_max
        for vehicle_id in list(self._vehicles)[: max(excess, 0)]:
            del self._vehicles[vehicle_id]
