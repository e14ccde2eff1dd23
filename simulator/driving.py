"""A simulated fleet as a source: physics, faults, and what units and clocks do to it. Pure.

Works on arrays over all vehicles, one reading of each a tick.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from simulator.faults import Injector, chosen, draw_injections
from simulator.measured import Fault, Int64, Measured
from simulator.physics import SIMULATED_SIGNALS, FleetState
from simulator.sensors import Sensors
from simulator.settings import SimulatorSettings


class SimulatedFleet:
    """Vehicles `car-00000` ... that drive for ever; `car` is the settings' `name`.

    Args:
        settings: Of the fleet.
    """

    def __init__(self, settings: SimulatorSettings) -> None:
        count = settings.vehicles
        self.vehicle_ids = tuple(f"{settings.name}-{number:05d}" for number in range(count))
        self.period_s = 1.0 / settings.rate_hz
        self._settings = settings
        self._rng = np.random.default_rng([settings.seed, 1])
        self.signals = SIMULATED_SIGNALS
        physics = np.random.default_rng([settings.seed, 2])
        self._state = FleetState(count, physics)
        self._sensors = Sensors(count, physics)
        self._faults = Injector(count, self.signals, np.random.default_rng([settings.seed, 3]))
        self._faulty: set[int] = set()
        self._every = np.arange(count)
        self._disturbed = _Disturbances(settings, self._rng)
        batch = settings.readings_per_message
        self._filled = np.zeros(count, np.int64)
        self._values = np.full((count, batch, len(SIMULATED_SIGNALS)), np.nan, np.float32)
        self._event_ms = np.zeros((count, batch), np.int64)
        self._uptime_ms = np.zeros(count, np.int64)
        self._boot_ms = np.zeros(count, np.int64)
        self._offset_ms = np.zeros(count, np.int64)
        self._rebooted = np.zeros(count, np.bool_)
        self._start_ms = 0
        self._now_s = 0.0

    def tick(self, number: int, wall_ms: int) -> Measured | None:
        """One reading of every vehicle; a batch of those whose batch is full or must end."""
        if number == 0:
            self._begin(wall_ms)
        self._now_s = number * self.period_s
        ended = self._disturb()
        self._state.step(self.period_s)
        values = self._sensors.read(self._state.truth(), self._now_s)
        self._faults.apply(values, self._every, np.full(len(values), self._now_s, np.float32))
        now_ms = self._start_ms + round(self._now_s * 1000)
        self._note(values, now_ms)
        full = np.flatnonzero(self._filled >= self._settings.readings_per_message)
        parts = [part for part in (ended, self._take(full)) if len(part.vehicle)]
        return _joined(parts) if parts else _joined([self._take(full)])

    def inject(self) -> list[Fault]:
        """Choose sound vehicles by the seed and make them faulty from the next tick on."""
        at_s = self._now_s + self.period_s
        start_ms = self._start_ms + round(at_s * 1000)
        everything = frozenset(self.signals)
        measured = [
            frozenset[str]() if vehicle in self._faulty else everything
            for vehicle in range(len(self.vehicle_ids))
        ]
        drawn = draw_injections(
            measured, self._settings.fault_share, self._rng, chosen(self._settings.fault_codes)
        )
        self._faults.start(drawn, at_s)
        self._faulty |= {injection.vehicle for injection in drawn}
        return [
            Fault(
                injection.vehicle,
                injection.kind.code,
                next(iter(injection.kind.signals), None),
                start_ms + int(self._offset_ms[injection.vehicle]),
                severity=injection.severity,
            )
            for injection in drawn
        ]

    def recorded_faults(self) -> list[Fault]:
        """None: all are injected."""
        return []

    def _begin(self, wall_ms: int) -> None:
        self._start_ms = wall_ms
        self._boot_ms[:] = wall_ms - 1_000
        self._offset_ms[self._disturbed.unsynced] = -wall_ms

    def _disturb(self) -> Measured:
        """Boots and clock leaps that are due; batches under way end before them."""
        boots, leaps = self._disturbed.due(self._now_s)
        ended = self._take(np.flatnonzero((boots | leaps) & (self._filled > 0)))
        now_ms = self._start_ms + round(self._now_s * 1000)
        self._boot_ms[boots] = now_ms - 1_000
        self._rebooted |= boots
        self._offset_ms[leaps] -= self._disturbed.leap_ms
        return ended

    def _note(self, values: NDArray[np.float32], now_ms: int) -> None:
        first = self._filled == 0
        self._uptime_ms[first] = now_ms - self._boot_ms[first]
        self._values[self._every, self._filled] = values
        self._event_ms[self._every, self._filled] = now_ms + self._offset_ms
        self._filled += 1

    def _take(self, vehicles: Int64) -> Measured:
        """The batches of these vehicles, which are then empty."""
        counts = self._filled[vehicles]
        held = np.arange(self._values.shape[1])[None, :] < counts[:, None]
        taken = Measured(
            vehicle=vehicles,
            new_boot=self._rebooted[vehicles],
            uptime_ms=self._uptime_ms[vehicles],
            clock_synced=~self._disturbed.unsynced[vehicles],
            counts=counts,
            event_time_ms=self._event_ms[vehicles][held],
            values=self._values[vehicles][held],
        )
        self._filled[vehicles] = 0
        self._rebooted[vehicles] = False
        return taken


class _Disturbances:
    """Which vehicles boot again or leap back in time, half-way, each once."""

    def __init__(self, settings: SimulatorSettings, rng: np.random.Generator) -> None:
        count = settings.vehicles
        wanted = settings.effective_disturbances()
        self._boots = rng.random(count) < wanted.reboot_share
        self._leaps = rng.random(count) < wanted.clock_back_share
        self._boots_at_s = wanted.reboot_after_s
        self._leaps_at_s = wanted.clock_back_after_s
        self.leap_ms = round(wanted.clock_back_s * 1000)
        self.unsynced = rng.random(count) < wanted.unsynced_share

    def due(self, now_s: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        nobody = np.zeros_like(self._boots)
        boots, leaps = nobody, nobody
        if now_s >= self._boots_at_s:
            boots, self._boots = self._boots, nobody
        if now_s >= self._leaps_at_s:
            leaps, self._leaps = self._leaps, nobody
        return boots, leaps


def _joined(parts: Sequence[Measured]) -> Measured:
    """One tick's batches, the earlier part first."""
    return Measured(
        vehicle=np.concatenate([part.vehicle for part in parts]),
        new_boot=np.concatenate([part.new_boot for part in parts]),
        uptime_ms=np.concatenate([part.uptime_ms for part in parts]),
        clock_synced=np.concatenate([part.clock_synced for part in parts]),
        counts=np.concatenate([part.counts for part in parts]),
        event_time_ms=np.concatenate([part.event_time_ms for part in parts]),
        values=np.concatenate([part.values for part in parts]),
    )
