"""Boots, sequence numbers, held batches and the account of every vehicle. Pure: told the time."""

from collections.abc import Iterable

import numpy as np

from schemas.codec import Framing, encode_telemetry
from schemas.records import Record
from simulator.delivery import Held, Outbox
from simulator.ledger import BootAccount, FaultAccount, Ledger
from simulator.measured import Fault, Measured
from simulator.settings import SimulatorSettings


class FleetAccounts:
    """What each vehicle measured, holds and was told is safe.

    Args:
        settings: Of the fleet.
        vehicle_ids: By number.
        signals: Columns of what is measured.
        boot_id: Of the first boot of all; later boots count up from it.
    """

    def __init__(
        self,
        settings: SimulatorSettings,
        vehicle_ids: tuple[str, ...],
        signals: tuple[str, ...],
        *,
        boot_id: int,
    ) -> None:
        self.ledger = Ledger(settings.seed)
        self._times_left = settings.ledger_messages_max
        self.vehicle_ids = vehicle_ids
        self._signals = signals
        self._keys = [name.encode() for name in vehicle_ids]
        self.outboxes = [
            Outbox(
                capacity=settings.buffer_messages,
                window=settings.vehicle_inflight_max,
                resend_after_ms=round(settings.ack_timeout_s * 1000),
                resend_max_ms=round(settings.ack_timeout_max_s * 1000),
            )
            for _ in vehicle_ids
        ]
        self._boots = [BootAccount(name, boot_id) for name in vehicle_ids]
        self._accounts = {
            (name, boot_id): b for name, b in zip(vehicle_ids, self._boots, strict=True)
        }
        self.ledger.boots.extend(self._boots)

    def take(self, measured: Measured, wall_ms: int) -> list[int]:
        """Number, encode and hold one tick's batches. Returns the vehicles that have new ones."""
        vehicles: list[int] = measured.vehicle.tolist()
        for vehicle, new_boot in zip(vehicles, measured.new_boot.tolist(), strict=True):
            if new_boot:
                self._reboot(vehicle)
        counts = measured.counts.tolist()
        seqs, oldest = [], []
        for vehicle, readings in zip(vehicles, counts, strict=True):
            seq = self._number(vehicle, readings, wall_ms)
            seqs.append(seq)
            oldest.append(self.outboxes[vehicle].oldest_seq(self._boots[vehicle].boot_id, seq))
        payloads = encode_telemetry(
            [self._keys[vehicle] for vehicle in vehicles],
            np.array([self._boots[vehicle].boot_id for vehicle in vehicles], np.int64),
            np.array(seqs, np.int64),
            np.array(oldest, np.int64),
            measured.uptime_ms,
            measured.clock_synced,
            measured.counts,
            measured.event_time_ms,
            measured.values,
            signals=self._signals,
            framing=Framing.SINGLE_OBJECT,
        )
        for vehicle, seq, readings, payload in zip(vehicles, seqs, counts, payloads, strict=True):
            self._hold(vehicle, Held(self._boots[vehicle].boot_id, seq, readings, payload))
        return vehicles

    def acknowledge(self, vehicle: int, ack: Record) -> None:
        """A gateway has batches on its disk."""
        ranges = [(entry["first"], entry["last"]) for entry in ack["ranges"]]
        self.outboxes[vehicle].acknowledge(ack["boot_id"], ack["seq"], ranges)

    def add_faults(self, faults: Iterable[Fault], wall_ms: int) -> None:
        """Enter faults into the ledger."""
        for fault in faults:
            self.ledger.faults.append(
                FaultAccount(
                    self.vehicle_ids[fault.vehicle],
                    fault.code,
                    fault.signal,
                    fault.start_event_ms,
                    fault.end_event_ms,
                    wall_ms,
                )
            )

    @property
    def acknowledged(self) -> int:
        """Readings acknowledged end to end so far."""
        return sum(outbox.acknowledged_readings for outbox in self.outboxes)

    @property
    def held(self) -> int:
        """Batches neither acknowledged nor dropped."""
        return sum(map(len, self.outboxes))

    def close(self) -> Ledger:
        """The final account."""
        self.ledger.acknowledged = self.acknowledged
        self.ledger.held = self.ledger.measured - self.ledger.acknowledged - self.ledger.dropped
        return self.ledger

    def _reboot(self, vehicle: int) -> None:
        old = self._boots[vehicle]
        new = BootAccount(old.vehicle_id, old.boot_id + 1)
        self._boots[vehicle] = new
        self._accounts[new.vehicle_id, new.boot_id] = new
        self.ledger.boots.append(new)

    def _number(self, vehicle: int, readings: int, wall_ms: int) -> int:
        boot = self._boots[vehicle]
        boot.last_seq += 1
        boot.readings += readings
        if self._times_left > 0:
            self._times_left -= 1
            boot.measured_ms.append(wall_ms)
        self.ledger.measured += readings
        return boot.last_seq

    def _hold(self, vehicle: int, batch: Held) -> None:
        dropped = self.outboxes[vehicle].add(batch)
        if dropped is not None:
            account = self._accounts[self.vehicle_ids[vehicle], dropped.boot_id]
            account.dropped_seq.append(dropped.seq)
            account.dropped_readings += dropped.readings
            self.ledger.dropped += dropped.readings
