"""Drive a fleet: measure on time, send what is due, and hold the rest until it is safe."""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from simulator.fleet_accounts import FleetAccounts
from simulator.ledger import Ledger
from simulator.measured import Fault, Source
from simulator.publisher import Publisher
from simulator.settings import SimulatorSettings
from transport.settings import MqttSettings

CONNECT_TIMEOUT_S = 30.0
PUMP_S = 0.01
PROGRESS_S = 0.5
STOPPED_DRAIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How a run goes: readings, but for `held` (batches) and `faults`."""

    measured: int
    acknowledged: int
    held: int
    dropped: int
    resent: int
    faults: int
    draining: bool


OnProgress = Callable[[Progress], None]


def source_of(settings: SimulatorSettings) -> Source:
    """The fleet that the settings ask for. Raises SettingsError."""
    settings.validate()
    if settings.replay is None:
        from simulator.driving import SimulatedFleet

        return SimulatedFleet(settings)
    from simulator.recordings import read_trips
    from simulator.replay import ReplayedFleet

    return ReplayedFleet(settings, read_trips(settings.replay))


def run(
    settings: SimulatorSettings,
    mqtt: MqttSettings,
    *,
    stop: threading.Event,
    inject: threading.Event | None = None,
    finish: threading.Event | None = None,
    on_progress: OnProgress = lambda _: None,
) -> Ledger:
    """Drive until the duration is over, the recording ends, or told to stop; then drain.

    Args:
        settings: The fleet.
        mqtt: The broker; it must answer at first, later it may come and go.
        stop: Ends measuring; draining is then short.
        inject: Set by others to have faults injected; cleared when that is done.
        finish: Set by others when the drive shall end as if its duration were over.
        on_progress: Told twice a second, and at the end.

    Returns:
        The account; also written to `settings.ledger`.

    Raises:
        SettingsError: The settings, the recording or the broker's answer.
        TransientError: No broker at the start.
    """
    source = source_of(settings)
    rng = random.Random(settings.seed)
    boot_id = _wall_ms() if settings.boot_id is None else settings.boot_id
    accounts = FleetAccounts(settings, source.vehicle_ids, source.signals, boot_id=boot_id)
    publisher = Publisher(settings, mqtt, accounts, rng)
    drive = _Drive(
        settings,
        source,
        accounts,
        publisher=publisher,
        inject=inject or threading.Event(),
        on_progress=on_progress,
    )
    publisher.start()
    try:
        publisher.wait_connected(CONNECT_TIMEOUT_S)
        drive.measure(stop, finish or threading.Event())
        drive.drain(STOPPED_DRAIN_S if stop.is_set() else settings.drain_timeout_s)
    finally:
        publisher.stop()
        ledger = accounts.close()
        if settings.ledger is not None:
            ledger.save(settings.ledger)
    return ledger


class _Drive:
    """The loop: one tick a period, the pump in between."""

    def __init__(
        self,
        settings: SimulatorSettings,
        source: Source,
        accounts: FleetAccounts,
        *,
        publisher: Publisher,
        inject: threading.Event,
        on_progress: OnProgress,
    ) -> None:
        self._settings = settings
        self._source = source
        self._accounts = accounts
        self._publisher = publisher
        self._inject = inject
        self._on_progress = on_progress
        self._told_s = 0.0
        self._injected_by_itself = False

    def measure(self, stop: threading.Event, finish: threading.Event) -> None:
        """Measure on time; a tick that comes late is made up for, none is left out."""
        began_s = time.monotonic()
        number = 0
        while not stop.is_set() and not finish.is_set():
            elapsed_s = time.monotonic() - began_s
            due_s = number * self._source.period_s
            if self._is_over(due_s):
                return
            if elapsed_s >= due_s:
                self._start_faults(elapsed_s)
                if not self._tick(number):
                    return
                number += 1
            self._turn(draining=False)
            if elapsed_s < due_s:
                stop.wait(min(PUMP_S, due_s - elapsed_s))

    def drain(self, timeout_s: float) -> None:
        """Go on sending until all is acknowledged, or for `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        while self._accounts.held and time.monotonic() < deadline_s:
            self._turn(draining=True)
            time.sleep(PUMP_S)
        self._tell(draining=True)

    def _is_over(self, due_s: float) -> bool:
        duration_s = self._settings.duration_s
        return duration_s is not None and due_s >= duration_s

    def _tick(self, number: int) -> bool:
        wall_ms = _wall_ms()
        measured = self._source.tick(number, wall_ms)
        if measured is None:
            return False
        if len(measured.vehicle):
            self._accounts.take(measured, wall_ms)
        recorded = self._source.recorded_faults()
        self._accounts.add_faults(recorded, wall_ms)
        self._label(recorded)
        return True

    def _start_faults(self, elapsed_s: float) -> None:
        after_s = self._settings.fault_after_s
        due = not self._injected_by_itself and after_s is not None and after_s <= elapsed_s
        if due or self._inject.is_set():
            self._injected_by_itself |= due
            self._inject.clear()
            faults = self._source.inject()
            self._accounts.add_faults(faults, _wall_ms())
            self._label(faults)

    def _label(self, faults: list[Fault]) -> None:
        if faults:
            self._publisher.label(faults)

    def _turn(self, *, draining: bool) -> None:
        self._publisher.pump(time.monotonic_ns() // 1_000_000)
        if time.monotonic() - self._told_s >= PROGRESS_S:
            self._tell(draining=draining)

    def _tell(self, *, draining: bool) -> None:
        self._told_s = time.monotonic()
        ledger = self._accounts.ledger
        self._on_progress(
            Progress(
                measured=ledger.measured,
                acknowledged=self._accounts.acknowledged,
                held=self._accounts.held,
                dropped=ledger.dropped,
                resent=ledger.resent,
                faults=len(ledger.faults),
                draining=draining,
            )
        )


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
