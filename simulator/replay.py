"""Recorded drives as a source: the same path as simulated ones, at their own event time. Pure.

Fed `speed` times faster than recorded, so a batch holds more readings; their spacing in event
time stays as it was. The drives end, by their own clock, about when the replay begins, and their
clock is marked as not synced, since it tells another time than now.
"""

import numpy as np
from numpy.typing import NDArray

from schemas.signals import SIGNAL_NAMES
from simulator.faults import Injector, chosen, draw_injections
from simulator.measured import Fault, Measured
from simulator.recordings import Trip
from simulator.settings import SimulatorSettings

PERIOD_S = 0.5
BATCH_READINGS_MAX = 500
_UPTIME_AT_START_MS = 1_000


class ReplayedFleet:
    """Recorded trips, each a vehicle; all begin together.

    Args:
        settings: `speed`, `vehicles` (at most), `fault_share`, `seed`.
        trips: At least one.
    """

    def __init__(self, settings: SimulatorSettings, trips: list[Trip]) -> None:
        self._trips = trips[: settings.vehicles]
        self.vehicle_ids = tuple(trip.vehicle_id for trip in self._trips)
        self.period_s = PERIOD_S
        self._settings = settings
        self._rng = np.random.default_rng([settings.seed, 1])
        self.signals = SIGNAL_NAMES
        noise = np.random.default_rng([settings.seed, 3])
        self._faults = Injector(len(self._trips), SIGNAL_NAMES, noise)
        self._faulty: set[int] = set()
        self._at = [0] * len(self._trips)
        self._shown_s = 0.0
        self._length_ms = round(1000 * max(float(trip.t_s[-1]) for trip in self._trips))
        self._start_ms = 0
        self._begun: list[Fault] = []

    def tick(self, number: int, wall_ms: int) -> Measured | None:
        """What the trips hold up to the tick's time; None when all are over."""
        if number == 0:
            self._start_ms = wall_ms - self._length_ms
        if all(at >= len(trip.t_s) for at, trip in zip(self._at, self._trips, strict=True)):
            return None
        before_s = self._shown_s
        self._shown_s = (number + 1) * self.period_s * self._settings.speed
        self._begun = self._beginning(before_s, self._shown_s)
        parts = [self._part(vehicle) for vehicle in range(len(self._trips))]
        self._make_faulty(parts)
        return self._measured(parts)

    def inject(self) -> list[Fault]:
        """Choose trips that go on for a while, by the seed, and make them faulty from here on."""
        measured = [self._signals_left(vehicle, trip) for vehicle, trip in enumerate(self._trips)]
        drawn = draw_injections(
            measured, self._settings.fault_share, self._rng, chosen(self._settings.fault_codes)
        )
        self._faults.start(drawn, self._shown_s)
        self._faulty |= {injection.vehicle for injection in drawn}
        return [
            Fault(
                injection.vehicle,
                injection.kind.code,
                next(iter(injection.kind.signals), None),
                self._event_ms(self._shown_s),
                severity=injection.severity,
            )
            for injection in drawn
        ]

    def recorded_faults(self) -> list[Fault]:
        """Labelled stretches that begin in what the last tick gave."""
        return self._begun

    def _signals_left(self, vehicle: int, trip: Trip) -> frozenset[str]:
        """Signals in which a fault could begin now; none when the trip is over or faulty."""
        if self._at[vehicle] >= len(trip.t_s) or vehicle in self._faulty:
            return frozenset()
        present = ~np.isnan(trip.values).all(axis=0)
        return frozenset(name for name, here in zip(SIGNAL_NAMES, present, strict=True) if here)

    def _event_ms(self, t_s: float) -> int:
        return self._start_ms + round(t_s * 1000)

    def _beginning(self, after_s: float, until_s: float) -> list[Fault]:
        return [
            Fault(
                vehicle,
                fault.code,
                None,
                self._event_ms(fault.start_s),
                self._event_ms(fault.end_s),
            )
            for vehicle, trip in enumerate(self._trips)
            for fault in trip.faults
            if after_s < fault.start_s + 1e-9 <= until_s
        ]

    def _part(self, vehicle: int) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """The next rows of a trip; never more than a batch may hold."""
        trip, start = self._trips[vehicle], self._at[vehicle]
        end = int(np.searchsorted(trip.t_s, self._shown_s, side="left"))
        end = max(start, min(end, start + BATCH_READINGS_MAX))
        self._at[vehicle] = end
        return trip.t_s[start:end], trip.values[start:end].copy()

    def _make_faulty(self, parts: list[tuple[NDArray[np.float64], NDArray[np.float32]]]) -> None:
        """Apply the injected faults row by row, for some remember the reading before."""
        longest = max(len(t_s) for t_s, _ in parts)
        for row in range(longest):
            vehicles = np.array([v for v, (t_s, _) in enumerate(parts) if row < len(t_s)], np.int64)
            values = np.stack([parts[v][1][row] for v in vehicles])
            times = np.array([parts[v][0][row] for v in vehicles], np.float32)
            self._faults.apply(values, vehicles, times)
            for place, vehicle in enumerate(vehicles):
                parts[vehicle][1][row] = values[place]

    def _measured(self, parts: list[tuple[NDArray[np.float64], NDArray[np.float32]]]) -> Measured:
        full = [vehicle for vehicle, (t_s, _) in enumerate(parts) if len(t_s)]
        times = [np.rint(parts[vehicle][0] * 1000).astype(np.int64) for vehicle in full]
        none = np.empty(0, np.int64)
        return Measured(
            vehicle=np.array(full, np.int64),
            new_boot=np.zeros(len(full), np.bool_),
            uptime_ms=np.array([t[0] + _UPTIME_AT_START_MS for t in times], np.int64),
            clock_synced=np.zeros(len(full), np.bool_),
            counts=np.array([len(t) for t in times], np.int64),
            event_time_ms=np.concatenate([none, *times]) + self._start_ms,
            values=np.concatenate(
                [
                    np.empty((0, len(SIGNAL_NAMES)), np.float32),
                    *(parts[vehicle][1] for vehicle in full),
                ]
            ),
        )
