"""What belongs together and is written as one frame: rows of the priority lane with all their kin.

A frame is there whole or not at all, so an alert, its state and the scored position cannot part.
Replaying a change twice comes to the same as once: values are absolute, never differences.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from edge.identity import Boots, BootState
from edge.rows import AlertState, Lane, Priority, StoredPriority
from edge.spool.framing import CHANGE, frame
from edge.spool.packing import Packer, Unpacker


class Told(NamedTuple):
    """Damage of which the cloud was told: positions of a segment that cannot be read."""

    lane: Lane
    number: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Change:
    """All or nothing of it is in the spool.

    Attributes:
        rows: New records of the priority lane.
        marks: Marks that moved.
        alerts: Newest states; not yet published.
        published: States that MQTT holds, unless they changed since.
        identities: What is settled of some vehicles.
        drops: Batches given up so far, by reason.
        told: Damage that is accounted for.
    """

    rows: Sequence[Priority] = ()
    marks: Mapping[str, int] = field(default_factory=dict)
    alerts: Sequence[AlertState] = ()
    published: Sequence[AlertState] = ()
    identities: Sequence[tuple[str, bytes]] = ()
    drops: Mapping[str, int] = field(default_factory=dict)
    told: Sequence[Told] = ()

    def __bool__(self) -> bool:
        return any(
            (
                self.rows,
                self.marks,
                self.alerts,
                self.published,
                self.identities,
                self.drops,
                self.told,
            )
        )


def encode_change(change: Change, *, seed: int, flags: int, position: int) -> bytes:
    """The frame of a change."""
    packer = Packer()
    _pack_rows(packer, change.rows)
    _pack_numbers(packer, change.marks)
    for states in (change.alerts, change.published):
        packer.u32(len(states))
        for state in states:
            pack_alert(packer, state)
    packer.u32(len(change.identities))
    for vehicle_id, boots in change.identities:
        packer.text(vehicle_id)
        packer.blob(boots)
    _pack_numbers(packer, change.drops)
    pack_told(packer, change.told)
    return frame(packer.done(), seed=seed, flags=flags | CHANGE, position=position)


def decode_change(body: bytes) -> Change:
    """The inverse of `encode_change`."""
    unpacker = Unpacker(body)
    return Change(
        rows=_unpack_rows(unpacker),
        marks=_unpack_numbers(unpacker),
        alerts=[unpack_alert(unpacker) for _ in range(unpacker.u32())],
        published=[unpack_alert(unpacker) for _ in range(unpacker.u32())],
        identities=[(unpacker.text(), unpacker.bytes_()) for _ in range(unpacker.u32())],
        drops=_unpack_numbers(unpacker),
        told=unpack_told(unpacker),
    )


def decode_rows_of_change(body: bytes, position: int) -> list[StoredPriority]:
    """The rows alone, the first at a position."""
    rows = _unpack_rows(Unpacker(body))
    return [StoredPriority(at, *row) for at, row in enumerate(rows, position)]


def _pack_rows(packer: Packer, rows: Sequence[Priority]) -> None:
    packer.u32(len(rows))
    for row in rows:
        packer.text(row.kind)
        packer.text(row.message_key)
        packer.i64(row.received_ms)
        packer.blob(row.payload)
        packer.text(row.traceparent)


def _unpack_rows(unpacker: Unpacker) -> list[Priority]:
    return [
        Priority(
            unpacker.text(),  # type: ignore[arg-type]  # a kind of a later program stays a text
            unpacker.text_or_none(),
            unpacker.i64(),
            unpacker.bytes_(),
            unpacker.text_or_none(),
        )
        for _ in range(unpacker.u32())
    ]


def _pack_numbers(packer: Packer, numbers: Mapping[str, int]) -> None:
    packer.u32(len(numbers))
    for name, value in numbers.items():
        packer.text(name)
        packer.i64(value)


def _unpack_numbers(unpacker: Unpacker) -> dict[str, int]:
    return {unpacker.text(): unpacker.i64() for _ in range(unpacker.u32())}


def pack_alert(packer: Packer, state: AlertState) -> None:
    """One alert state."""
    packer.text(state.vehicle_id)
    packer.text(state.code)
    packer.text(state.state)
    packer.i64(state.changed)
    packer.blob(state.payload)


def unpack_alert(unpacker: Unpacker) -> AlertState:
    """The inverse of `pack_alert`."""
    return AlertState(
        unpacker.text(), unpacker.text(), unpacker.text(), unpacker.i64(), unpacker.bytes_()
    )


def pack_told(packer: Packer, told: Sequence[Told]) -> None:
    """A list of damages."""
    packer.u32(len(told))
    for lane, number, first, last in told:
        packer.text(lane)
        packer.i64(number, first, last)


def unpack_told(unpacker: Unpacker) -> list[Told]:
    """The inverse of `pack_told`."""
    return [
        Told(Lane(unpacker.text()), unpacker.i64(), unpacker.i64(), unpacker.i64())
        for _ in range(unpacker.u32())
    ]


def pack_boots(boots: Boots) -> bytes:
    """What is settled of a vehicle."""
    packer = Packer()
    packer.u32(len(boots))
    for boot_id, state in boots.items():
        packer.i64(boot_id, state.contiguous)
        packer.blob(state.pack_ranges())
    return packer.done()


def unpack_boots(data: bytes) -> Boots:
    """The inverse of `pack_boots`."""
    unpacker = Unpacker(data)
    boots: Boots = {}
    for _ in range(unpacker.u32()):
        boot_id = unpacker.i64()
        boots[boot_id] = BootState.unpack(unpacker.i64(), unpacker.bytes_())
    return boots
