"""Vehicles as rows: interning, eviction, and the order of batches.

Bounded: at `max_vehicles` the least recently seen vehicles give up their rows, a sixteenth at a
time; whatever is kept by row begins anew when a row is given again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ContractError, Reason

_UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class Interned:
    """Rows of the vehicles of M messages.

    Attributes:
        rows: Shape (M,).
        new: Messages whose vehicle was given its row just now, one a vehicle.
    """

    rows: NDArray[np.int64]
    new: list[int]


@dataclass(frozen=True, slots=True)
class Order:
    """M messages put into the order in which they take effect.

    Attributes:
        by_vehicle: Messages grouped by vehicle, in order of arrival. Shape (M,).
        stale: Whether a message is a duplicate or older than what was seen. Shape (M,).
        boots: Whether the vehicle's history begins with the message. Shape (M,).
    """

    by_vehicle: NDArray[np.int64]
    stale: NDArray[np.bool_]
    boots: NDArray[np.bool_]


class VehicleTable:
    """Rows 0 .. max_vehicles - 1 for vehicles, and the newest (boot_id, seq) of each.

    Args:
        max_vehicles: >= 1; about 40 bytes each and the id.
    """

    def __init__(self, max_vehicles: int) -> None:
        if max_vehicles < 1:
            raise ContractError(Reason.MALFORMED, f"max_vehicles is {max_vehicles}")
        self.max_vehicles = max_vehicles
        self._row_of: dict[bytes, int] = {}
        self._ids: list[bytes | None] = [None] * max_vehicles
        self._free = list(range(max_vehicles - 1, -1, -1))
        self._seen = np.zeros(max_vehicles, np.int64)
        self._poll = 0
        self._boot_id = np.full(max_vehicles, _UNKNOWN, np.int64)
        self._seq = np.zeros(max_vehicles, np.int64)

    def __len__(self) -> int:
        return len(self._row_of)

    def __contains__(self, vehicle_id: bytes) -> bool:
        return vehicle_id in self._row_of

    def row(self, vehicle_id: bytes) -> int | None:
        """The row of a vehicle, if it has one."""
        return self._row_of.get(vehicle_id)

    def intern(self, vehicle_ids: Sequence[bytes]) -> Interned:
        """Give every vehicle its row.

        Args:
            vehicle_ids: M of them, at most `max_vehicles` different ones.

        Raises:
            ContractError: OVERSIZED: more vehicles than rows.
        """
        if not fits(vehicle_ids, self.max_vehicles):
            raise ContractError(
                Reason.OVERSIZED, f"a poll of more than {self.max_vehicles} vehicles"
            )
        self._poll += 1
        known = map(self._row_of.get, vehicle_ids, repeat(_UNKNOWN))
        rows = np.fromiter(known, np.int64, len(vehicle_ids))
        unknown = np.flatnonzero(rows == _UNKNOWN)
        if not unknown.size:
            self._seen[rows] = self._poll
            return Interned(rows, [])
        self._seen[rows[rows != _UNKNOWN]] = self._poll
        return Interned(rows, self._admit(vehicle_ids, unknown, rows))

    def order(
        self, rows: NDArray[np.int64], boot_id: NDArray[np.int64], seq: NDArray[np.int64]
    ) -> Order:
        """Group messages by vehicle, tell stale ones, and remember the newest of each vehicle.

        A message is stale unless its (boot_id, seq) is greater than every one of the vehicle
        before it. A gap in seq is none of this class's business.

        Args:
            rows: Of each message. Shape (M,).
            boot_id: Shape (M,), >= 0.
            seq: Shape (M,), >= 1.
        """
        by_vehicle = _grouped(rows)
        row, boot, number = rows[by_vehicle], boot_id[by_vehicle], seq[by_vehicle]
        first = np.ones(len(row), np.bool_)
        np.not_equal(row[1:], row[:-1], out=first[1:])
        old_boot, old_number = np.empty_like(boot), np.empty_like(number)
        old_boot[1:], old_number[1:] = boot[:-1], number[:-1]
        old_boot[first], old_number[first] = self._boot_id[row[first]], self._seq[row[first]]
        newer = (boot > old_boot) | ((boot == old_boot) & (number > old_number))
        if newer.all():
            stale, boots = np.zeros(len(row), np.bool_), boot > old_boot
            last = np.append(first[1:], True)
        else:
            stale = self._stale(row, boot, number)
            boots, last = self._boots_among(row, boot, ~stale)
        self._boot_id[row[last]] = boot[last]
        self._seq[row[last]] = number[last]
        return Order(by_vehicle, _scattered(by_vehicle, stale), _scattered(by_vehicle, boots))

    def forget(self, vehicle_ids: Iterable[bytes]) -> list[int]:
        """Give up the rows of these vehicles; unknown ones are skipped. Returns the rows."""
        rows = [row for name in vehicle_ids if (row := self._row_of.get(name)) is not None]
        for row in rows:
            self._release(row)
        return rows

    def forget_order(self) -> None:
        """Take whatever comes next from each vehicle as its first, so that the log may replay."""
        self._boot_id[:] = _UNKNOWN
        self._seq[:] = 0

    def _admit(
        self, vehicle_ids: Sequence[bytes], unknown: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> list[int]:
        names = dict.fromkeys(vehicle_ids[i] for i in unknown.tolist())
        if len(names) > len(self._free):
            self._evict(max(len(names) - len(self._free), self.max_vehicles // 16))
        new = []
        for message in unknown.tolist():
            name = vehicle_ids[message]
            row = self._row_of.get(name)
            if row is None:
                row = self._free.pop()
                self._row_of[name] = row
                self._ids[row] = name
                self._seen[row] = self._poll
                new.append(message)
            rows[message] = row
        return new

    def _evict(self, count: int) -> None:
        """Release the longest unseen; those of the running poll stay."""
        taken = np.fromiter(self._row_of.values(), np.int64, len(self._row_of))
        old = taken[self._seen[taken] < self._poll]
        count = min(count, len(old))
        if count < len(old):
            old = old[np.argpartition(self._seen[old], count)[:count]]
        for row in old.tolist():
            self._release(row)

    def _release(self, row: int) -> None:
        name = self._ids[row]
        if name is not None:
            del self._row_of[name]
        self._ids[row] = None
        self._boot_id[row] = _UNKNOWN
        self._seq[row] = 0
        self._free.append(row)

    def _stale(
        self, row: NDArray[np.int64], boot: NDArray[np.int64], number: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Exact staleness of grouped messages, when some are out of order."""
        old_boot, old_number = self._boot_id[row], self._seq[row]
        stale = (boot < old_boot) | ((boot == old_boot) & (number <= old_number))
        rank = _dense_rank(boot, number)
        # Ranks rise from vehicle to vehicle, so that one running maximum serves all.
        rank += row_groups(row) * (len(row) + 1)
        highest = np.maximum.accumulate(rank)
        stale[1:] |= rank[1:] <= highest[:-1]
        return np.asarray(stale, np.bool_)

    def _boots_among(
        self, row: NDArray[np.int64], boot: NDArray[np.int64], fresh: NDArray[np.bool_]
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Which fresh messages boot, and which are the last of their vehicle."""
        boots = np.zeros(len(row), np.bool_)
        at = np.flatnonzero(fresh)
        if not at.size:
            return boots, at
        first = np.ones(len(at), np.bool_)
        np.not_equal(row[at][1:], row[at][:-1], out=first[1:])
        old = np.empty(len(at), np.int64)
        old[1:] = boot[at][:-1]
        old[first] = self._boot_id[row[at][first]]
        boots[at] = boot[at] > old
        return boots, at[np.append(first[1:], True)]


def fits(vehicle_ids: Sequence[bytes], max_vehicles: int) -> bool:
    """Whether these are at most so many different vehicles."""
    return len(vehicle_ids) <= max_vehicles or len(set(vehicle_ids)) <= max_vehicles


def row_groups(row: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of the group of each of N grouped rows, from 0."""
    group = np.zeros(len(row), np.int64)
    np.cumsum(row[1:] != row[:-1], out=group[1:])
    return group


def _grouped(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Stable order by row: a plain sort of unique keys is several times a stable argsort."""
    keys = (rows << 32) | np.arange(len(rows))
    keys.sort()
    return keys & 0xFFFFFFFF


def _dense_rank(boot: NDArray[np.int64], number: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rank by (boot, number), equal ones alike."""
    order = np.lexsort((number, boot))
    steps = np.zeros(len(order), np.int64)
    same_boot = boot[order][1:] == boot[order][:-1]
    steps[1:] = ~(same_boot & (number[order][1:] == number[order][:-1]))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.cumsum(steps)
    return rank


def _scattered(order: NDArray[np.int64], flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Flags of sorted messages, back in order of arrival."""
    back = np.empty_like(flags)
    back[order] = flags
    return back
