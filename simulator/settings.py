"""What a simulated fleet can be told, with units and limits; needs no MQTT library."""

from dataclasses import dataclass, field
from pathlib import Path

from schemas.errors import SettingsError

VEHICLES_MAX = 100_000
READINGS_PER_MESSAGE_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Disturbances:
    """What goes wrong on purpose, so that the way to the log can be tested; all off at first.

    Attributes:
        duplicate_share: Share of messages published twice.
        reorder_share: Share of messages published behind a later one.
        reboot_share: Share of vehicles that reboot once: boot_id rises, seq starts again at 1,
            and what the old boot had not delivered is delivered still.
        reboot_after_s: Seconds of driving before they do.
        clock_back_share: Share of vehicles whose clock jumps back once.
        clock_back_after_s: Seconds of driving before it does.
        clock_back_s: How far it jumps.
        unsynced_share: Share of vehicles that never learn the time.
    """

    duplicate_share: float = 0.0
    reorder_share: float = 0.0
    reboot_share: float = 0.0
    reboot_after_s: float = 10.0
    clock_back_share: float = 0.0
    clock_back_after_s: float = 10.0
    clock_back_s: float = 3_600.0
    unsynced_share: float = 0.0

    def shares(self) -> dict[str, float]:
        """Every setting that is a share."""
        return {
            "duplicate_share": self.duplicate_share,
            "reorder_share": self.reorder_share,
            "reboot_share": self.reboot_share,
            "clock_back_share": self.clock_back_share,
            "unsynced_share": self.unsynced_share,
        }


ALL_DISTURBANCES = Disturbances(
    duplicate_share=0.02,
    reorder_share=0.05,
    reboot_share=0.1,
    clock_back_share=0.1,
    unsynced_share=0.1,
)


@dataclass(frozen=True, slots=True)
class SimulatorSettings:
    """Settings of a fleet; constructing it checks nothing, `validate` does.

    Attributes:
        vehicles: Fleet size; with `replay` the most trips to play.
        rate_hz: Readings per second of each vehicle; with `replay` the file's own spacing holds.
        readings_per_message: Readings in a message.
        duration_s: Seconds of measuring; None: until stopped, or until the trips end.
        seed: The same seed gives the same measured values.
        name: Tells simulators on one broker apart: first part of client ids and vehicle ids.
        connections: MQTT connections that the vehicles share.
        replay: Recorded drives (CSV, may be gzipped) to play instead of simulating.
        speed: How many times faster than real time a replay runs; messages grow with it.
        fault_share: Share of the vehicles that a fault is injected into.
        fault_after_s: Seconds until faults begin; None: when told so (SIGUSR1, or the command
            topic).
        fault_codes: Faults to draw from, by code, comma-separated; empty: the whole catalogue.
        buffer_messages: Unacknowledged messages that a vehicle keeps. When full, the oldest is
            dropped and counted.
        vehicle_inflight_max: Messages of a vehicle sent and not acknowledged by a gateway.
        connection_inflight_max: The same for all vehicles of a connection.
        ack_timeout_s: Wait for a gateway's acknowledgement before sending again; doubles up to
            `ack_timeout_max_s`.
        ack_timeout_max_s: Longest such wait.
        drain_timeout_s: After measuring, wait so long for everything to be acknowledged.
        boot_id: First boot id of every vehicle; None: the time, so that it rises with each run.
        ledger: File to write what was measured to (JSON).
        ledger_messages_max: Messages whose publish time the ledger keeps; above it only counts.
        disturb: Provoke duplicates, reordering, reboots and clock jumps.
        disturbances: Which, and how much of each; left alone, `disturb` provokes some of all.
    """

    vehicles: int = 200
    rate_hz: float = 1.0
    readings_per_message: int = 1
    duration_s: float | None = None
    seed: int = 1
    name: str = "car"
    connections: int = 4
    replay: Path | None = None
    speed: float = 1.0
    fault_share: float = 0.1
    fault_after_s: float | None = None
    fault_codes: str = ""
    buffer_messages: int = 3_600
    vehicle_inflight_max: int = 20
    connection_inflight_max: int = 1_000
    ack_timeout_s: float = 5.0
    ack_timeout_max_s: float = 60.0
    drain_timeout_s: float = 60.0
    boot_id: int | None = None
    ledger: Path | None = None
    ledger_messages_max: int = 5_000_000
    disturb: bool = False
    disturbances: Disturbances = field(default_factory=Disturbances)

    def effective_disturbances(self) -> Disturbances:
        """`disturb` is the short way to ask for some of everything."""
        if self.disturb and self.disturbances == Disturbances():
            return ALL_DISTURBANCES
        return self.disturbances

    def validate(self) -> None:
        """Refuse settings that cannot work.

        Raises:
            SettingsError: Names the setting and what it may be.
        """
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise SettingsError(f"simulator {name} is {value}; it may be {low:g} to {high:g}")
        for name, share in self.disturbances.shares().items():
            if not 0 <= share <= 1:
                raise SettingsError(f"simulator {name} is {share}; it may be 0 to 1")
        if not self.name or set(self.name) & set("/+#\0"):
            raise SettingsError(f"simulator name {self.name!r} is empty or holds one of / + #")
        if self.ack_timeout_max_s < self.ack_timeout_s:
            raise SettingsError("simulator ack_timeout_max_s is below ack_timeout_s")


_RANGES: tuple[tuple[str, float, float], ...] = (
    ("vehicles", 1, VEHICLES_MAX),
    ("rate_hz", 0.01, 100.0),
    ("readings_per_message", 1, READINGS_PER_MESSAGE_MAX),
    ("duration_s", 0.0, 1e9),
    ("connections", 1, 64),
    ("speed", 0.01, 10_000.0),
    ("fault_share", 0.0, 1.0),
    ("fault_after_s", 0.0, 1e9),
    ("buffer_messages", 1, 10_000_000),
    ("vehicle_inflight_max", 1, 65_535),
    ("connection_inflight_max", 1, 65_535),
    ("ack_timeout_s", 0.01, 3_600.0),
    ("drain_timeout_s", 0.0, 86_400.0),
    ("boot_id", 0, 2**62),
    ("ledger_messages_max", 0, 100_000_000),
)
