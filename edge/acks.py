"""End-to-end acknowledgements: which batches are on the disk, told to the vehicles.

Coalesced: one record per vehicle and boot, at most once per interval. It goes out with QoS 0; one
that is lost is made good by the next, or by the answer to what the vehicle then sends again.
"""

from collections.abc import Callable

from edge.identity import BootState
from schemas.records import encode_single_object

RANGES_TOLD_MAX = 64
"""Ranges in one acknowledgement at most, the lowest ones; the rest follows as they close up."""


def ack_payload(
    gateway_id: str, boot_id: int, state: BootState | None, answered: set[int]
) -> bytes:
    """The Ack of one boot, as single-object Avro.

    Args:
        gateway_id: Who stored.
        boot_id: Of which boot.
        state: What is settled of it; None when the boot is no longer remembered.
        answered: Batches that are settled and that `state` may not tell.
    """
    contiguous = 0 if state is None else state.contiguous
    ranges = [] if state is None else list(state.ranges[:RANGES_TOLD_MAX])
    untold = sorted(seq for seq in answered if state is None or not state.covers(seq))
    ranges += [(seq, seq) for seq in untold]
    record = {
        "gateway_id": gateway_id,
        "boot_id": boot_id,
        "seq": contiguous,
        "ranges": [{"first": first, "last": last} for first, last in ranges],
    }
    return encode_single_object("Ack", record)


PART_MIN = 50
PARTS_MAX = 8
PART_PAUSE_S = 0.005


class AckBook:
    """Collects what is to be acknowledged, and says when.

    A round is told in parts, of at least PART_MIN and at most an eighth of it: told at once, the
    acknowledgements of a thousand vehicles would hold up the messages behind them, and an alert.

    Args:
        gateway_id: Written into each record.
        interval_s: Tells the least time between two rounds.
    """

    def __init__(self, gateway_id: str, *, interval_s: Callable[[], float]) -> None:
        self._gateway_id = gateway_id
        self._interval_s = interval_s
        self._waiting: dict[tuple[str, int], set[int]] = {}
        self._round: list[tuple[tuple[str, int], set[int]]] = []
        self._part = PART_MIN
        self._due_s = 0.0

    def add(self, vehicle_id: str, boot_id: int, seq: int) -> None:
        """A batch is settled on the disk; its vehicle wants to know."""
        self._waiting.setdefault((vehicle_id, boot_id), set()).add(seq)

    def wait_s(self, now_s: float, *, idle_s: float) -> float:
        """Time until the next part; `idle_s` when there is nothing to tell."""
        if self._round:
            return min(PART_PAUSE_S, idle_s)
        return max(0.0, min(self._due_s - now_s, idle_s)) if self._waiting else idle_s

    def due(
        self, now_s: float, state: Callable[[str, int], BootState | None]
    ) -> list[tuple[str, bytes]]:
        """The next part of the acknowledgements to send now, as (vehicle, payload); clears them.

        Args:
            now_s: Monotonic time.
            state: What is settled of a vehicle's boot.
        """
        if not self._round and not self._begin_round(now_s):
            return []
        part, self._round = self._round[: self._part], self._round[self._part :]
        return [
            (vehicle_id, ack_payload(self._gateway_id, boot_id, state(vehicle_id, boot_id), seqs))
            for (vehicle_id, boot_id), seqs in part
        ]

    def _begin_round(self, now_s: float) -> bool:
        if not self._waiting or now_s < self._due_s:
            return False
        self._due_s = now_s + self._interval_s()
        self._round = list(self._waiting.items())
        self._waiting = {}
        self._part = max(PART_MIN, -(-len(self._round) // PARTS_MAX))
        return True
