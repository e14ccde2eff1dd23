"""Telemetry gathered for training: bounded, in the order measured, without repeats. Pure."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.columns import TelemetryColumns
from schemas.errors import SettingsError

Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Readings:
    """R readings, sorted by vehicle, boot and seq.

    Attributes:
        vehicle_ids: Vehicles, by their number in `vehicle`.
        vehicle: Number of each reading's vehicle, ascending. Shape (R,).
        segment: Number of the stretch (vehicle and boot), ascending. Shape (R,).
        first: Whether it is the first reading of its message. Shape (R,).
        time_ms: Feature time: monotonic within a stretch. Shape (R,).
        event_time_ms: By the vehicle's clock. Shape (R,).
        values: Columns in the order of `signals`; NaN where absent. Shape (R, S).
        signals: Names of the columns.
    """

    vehicle_ids: tuple[str, ...]
    vehicle: Int64
    segment: Int64
    first: NDArray[np.bool_]
    time_ms: Int64
    event_time_ms: Int64
    values: NDArray[np.float32]
    signals: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.vehicle)

    def of(self, rows: NDArray[np.bool_]) -> "Readings":
        """The readings where `rows` is true; vehicle numbers stay."""
        return Readings(
            self.vehicle_ids,
            self.vehicle[rows],
            self.segment[rows],
            self.first[rows],
            self.time_ms[rows],
            self.event_time_ms[rows],
            self.values[rows],
            self.signals,
        )

    def without(self, vehicle_ids: Iterable[str]) -> "Readings":
        """All readings but those of these vehicles."""
        unwanted = set(vehicle_ids)
        numbers = [i for i, name in enumerate(self.vehicle_ids) if name in unwanted]
        return self.of(~np.isin(self.vehicle, numbers))

    @property
    def vehicles(self) -> int:
        """Vehicles that have readings."""
        return len(np.unique(self.vehicle))


@dataclass(frozen=True, slots=True)
class _Chunk:
    """One poll, a row a reading: vehicle, boot, seq, place in the message, time, event time."""

    facts: Int64
    values: NDArray[np.float32]


class ReadingCollector:
    """Gathers polls in log order, and never holds more than `max_readings` after a poll.

    When there are more, whole vehicles go, those with the highest seeded hash first, and their
    later readings are ignored: what stays is a fair sample of vehicles, the same for the same log
    and seed. Of a single vehicle that alone exceeds the limit the first readings stay.
    """

    def __init__(self, signals: tuple[str, ...], *, max_readings: int, seed: int) -> None:
        if max_readings < 1:
            raise SettingsError(f"max_readings must be 1 or more, not {max_readings}")
        self._signals = signals
        self._max_readings = max_readings
        self._priority: Callable[[bytes], int] = lambda vehicle_id: _priority(seed, vehicle_id)
        self._numbers: dict[bytes, int] = {}
        self._dropped: set[bytes] = set()
        self._chunks: list[_Chunk] = []
        self._held = 0
        self.seen = 0

    @property
    def dropped_vehicles(self) -> int:
        """Vehicles left out for the limit."""
        return len(self._dropped)

    def add(self, columns: TelemetryColumns) -> None:
        """Take a decoded poll whose columns are this collector's signals."""
        self.seen += len(columns.event_time_ms)
        numbers = self._numbers
        vehicle = np.array(
            [numbers.setdefault(name, len(numbers)) for name in columns.vehicle_ids], np.int64
        )
        kept = np.array([name not in self._dropped for name in columns.vehicle_ids], np.bool_)
        chunk = _chunk(columns, vehicle)
        if not kept.all():
            rows = np.repeat(kept, columns.counts)
            chunk = _Chunk(chunk.facts[rows], chunk.values[rows])
        self._chunks.append(chunk)
        self._held += len(chunk.facts)
        if self._held > self._max_readings:
            self._shrink()

    def _shrink(self) -> None:
        facts = np.concatenate([chunk.facts for chunk in self._chunks])
        count = np.bincount(facts[:, 0], minlength=len(self._numbers))
        names = sorted((n for n in self._numbers if n not in self._dropped), key=self._priority)
        held = np.cumsum([count[self._numbers[name]] for name in names])
        # One vehicle always stays, cut to the limit below.
        keep = max(1, int(np.searchsorted(held, self._max_readings, side="right")))
        self._dropped.update(names[keep:])
        numbers = [self._numbers[name] for name in names[:keep]]
        self._chunks = [_keep(chunk, numbers) for chunk in self._chunks]
        self._cut()

    def _cut(self) -> None:
        left, chunks = self._max_readings, []
        for chunk in self._chunks:
            if left > 0 and len(chunk.facts):
                chunks.append(_Chunk(chunk.facts[:left], chunk.values[:left]))
                left -= len(chunks[-1].facts)
        self._chunks = chunks
        self._held = self._max_readings - left

    def readings(self) -> Readings:
        """All that is held, sorted and without repeats.

        A batch that the log holds twice (a device without end-to-end acknowledgement) counts
        once.
        """
        facts = np.concatenate([np.empty((0, 6), np.int64), *(c.facts for c in self._chunks)])
        values = np.concatenate(
            [np.empty((0, len(self._signals)), np.float32), *(c.values for c in self._chunks)]
        )
        order = np.lexsort((facts[:, 3], facts[:, 2], facts[:, 1], facts[:, 0]))
        facts, values = facts[order], values[order]
        fresh = np.ones(len(facts), bool)
        fresh[1:] = (facts[1:, :4] != facts[:-1, :4]).any(axis=1)
        facts, values = facts[fresh], values[fresh]
        new_stretch = np.zeros(len(facts), np.int64)
        new_stretch[1:] = (facts[1:, :2] != facts[:-1, :2]).any(axis=1)
        return Readings(
            vehicle_ids=tuple(name.decode() for name in self._numbers),
            vehicle=facts[:, 0],
            segment=np.cumsum(new_stretch),
            first=facts[:, 3] == 0,
            time_ms=facts[:, 4],
            event_time_ms=facts[:, 5],
            values=values,
            signals=self._signals,
        )


def _priority(seed: int, vehicle_id: bytes) -> int:
    digest = hashlib.blake2b(f"{seed}/".encode() + vehicle_id, digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def _keep(chunk: _Chunk, numbers: list[int]) -> _Chunk:
    rows = np.isin(chunk.facts[:, 0], numbers)
    return _Chunk(chunk.facts[rows], chunk.values[rows])


def _chunk(columns: TelemetryColumns, vehicle: Int64) -> _Chunk:
    message = np.repeat(np.arange(len(columns.counts)), columns.counts)
    row = np.arange(len(message))
    start = columns.starts[message]
    event_time_ms = columns.event_time_ms
    facts = np.stack(
        [
            vehicle[message],
            columns.boot_id[message],
            columns.seq[message],
            row - start,
            columns.uptime_ms[message] + event_time_ms - event_time_ms[start],
            event_time_ms,
        ],
        axis=1,
    )
    return _Chunk(facts, np.array(columns.values, np.float32))
