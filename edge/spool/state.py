"""What the logs add up to: marks, alert states, identities, and what was given up.

The newest snapshot holds it as of one moment; the frames of the priority log since then are
applied again at each start.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import nlargest

from edge.rows import AlertState, Lane
from edge.spool.change import (
    Change,
    Told,
    pack_alert,
    pack_told,
    unpack_alert,
    unpack_told,
)
from edge.spool.packing import Packer, Unpacker

CLOSED_ALERTS_KEPT = 1_000
"""Closed alerts remembered, so that a broker which lost its memory is told again."""


@dataclass(slots=True)
class KeptAlert:
    """The newest state of an alert, and whether MQTT holds it."""

    state: AlertState
    published: bool = False


@dataclass(slots=True)
class State:
    """All that is not a row.

    Attributes:
        spool_id: Of the spool.
        marks: As the priority log and the snapshot hold them.
        alerts: By vehicle and code: those that are open, or were closed lately.
        identities: Packed boots of vehicles that changed since the snapshot.
        drops: Batches given up so far, by reason.
        told: Damage that is accounted for, of segments that are still there.
        lasts: Highest position ever given, of each lane.
    """

    spool_id: str
    marks: dict[str, int] = field(default_factory=dict)
    alerts: dict[tuple[str, str], KeptAlert] = field(default_factory=dict)
    identities: dict[str, bytes] = field(default_factory=dict)
    drops: dict[str, int] = field(default_factory=dict)
    told: set[Told] = field(default_factory=set)
    lasts: dict[Lane, int] = field(default_factory=lambda: dict.fromkeys(Lane, 0))

    def apply(self, change: Change) -> None:
        """Take over what is on the disk now."""
        merge(self.marks, change.marks)
        merge(self.drops, change.drops)
        self.identities.update(change.identities)
        self.told.update(change.told)
        for state in change.alerts:
            self.alerts[state.vehicle_id, state.code] = KeptAlert(state)
        for state in change.published:
            kept = self.alerts.get((state.vehicle_id, state.code))
            if kept is not None and kept.state[:4] == state[:4]:
                kept.published = True
        if change.alerts:
            self._forget_closed()

    def _forget_closed(self) -> None:
        closed = [kept.state.changed for kept in self.alerts.values() if _is_closed(kept)]
        if len(closed) <= CLOSED_ALERTS_KEPT:
            return
        oldest = nlargest(CLOSED_ALERTS_KEPT, closed)[-1]
        for key, kept in list(self.alerts.items()):
            if _is_closed(kept) and kept.published and kept.state.changed < oldest:
                del self.alerts[key]

    def copy(self) -> "State":
        """As it is now; what comes later does not change it."""
        return State(
            self.spool_id,
            dict(self.marks),
            {key: KeptAlert(kept.state, kept.published) for key, kept in self.alerts.items()},
            dict(self.identities),
            dict(self.drops),
            set(self.told),
            dict(self.lasts),
        )

    def encode(self) -> bytes:
        """All but the identities, for a snapshot."""
        packer = Packer()
        packer.text(self.spool_id)
        for numbers in (self.marks, self.drops, self.lasts):
            packer.u32(len(numbers))
            for name, value in numbers.items():
                packer.text(name)
                packer.i64(value)
        packer.u32(len(self.alerts))
        for kept in self.alerts.values():
            packer.u8(kept.published)
            pack_alert(packer, kept.state)
        pack_told(packer, sorted(self.told))
        return packer.done()


def decode_state(data: bytes) -> State:
    """The inverse of `State.encode`."""
    unpacker = Unpacker(data)
    state = State(unpacker.text())
    state.marks, state.drops = _numbers(unpacker), _numbers(unpacker)
    state.lasts |= {Lane(name): value for name, value in _numbers(unpacker).items()}
    for _ in range(unpacker.u32()):
        published = bool(unpacker.u8())
        alert = unpack_alert(unpacker)
        state.alerts[alert.vehicle_id, alert.code] = KeptAlert(alert, published)
    state.told = set(unpack_told(unpacker))
    return state


def merge(numbers: dict[str, int], newer: Mapping[str, int]) -> None:
    """Numbers of the spool only rise."""
    for name, value in newer.items():
        numbers[str(name)] = max(numbers.get(name, 0), value)


def _is_closed(kept: KeptAlert) -> bool:
    return kept.state.state == "CLOSED"


def _numbers(unpacker: Unpacker) -> dict[str, int]:
    return {unpacker.text(): unpacker.i64() for _ in range(unpacker.u32())}
