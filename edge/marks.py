"""How far each part of the gateway has come: numbers that are saved with the next write."""

import threading
from collections.abc import Mapping
from enum import StrEnum


class Mark(StrEnum):
    """The numbers of the spool beside its rows."""

    FORWARDED_PRIORITY = "forwarded_priority"
    FORWARDED_TELEMETRY = "forwarded_telemetry"
    POSITIONS_OFFSET = "positions_offset"
    """Offset in `gateway.positions` from which this spool's records are to be sought."""
    RELEASE_REFUSED = "release_refused"
    """Offset plus one in `model.releases` up to which broken releases have their dead letter."""
    TRAFFIC_REFUSED = "traffic_refused"
    """The same of `model.traffic`."""
    SCORED = "scored"
    IDENTITY = "identity"
    GIVEN_UP = "given_up"
    """Position of telemetry up to which the spool let go of what was not sent; see edge.gaps."""
    VEHICLE_DROPS = "vehicle_drops"
    GATEWAY_BOOT = "gateway_boot"
    """Number of this machine's boot, and which boot that was; see `edge.timekeeper`."""
    KNOWN_MS = "known_ms"
    """A true time that is past; an unset clock cannot be right before it."""

    @classmethod
    def forwarded(cls, lane: str) -> "Mark":
        """The mark of what is known to be in Kafka, of one lane."""
        return cls(f"forwarded_{lane}")


class Marks:
    """Numbers in memory that reach the disk with the next transaction, whoever makes it.

    Only hints may be `note`d: after a crash the disk may hold an older value, and whoever reads
    it then must come to the same end. What must be on the disk at once goes through the spool.
    """

    def __init__(self, values: Mapping[str, int]) -> None:
        self._lock = threading.Lock()
        self._values = {mark: values.get(mark, 0) for mark in Mark}
        self._durable = dict(self._values)

    def __getitem__(self, mark: Mark) -> int:
        return self._values[mark]

    def durable(self, mark: Mark) -> int:
        """The value that the disk is known to hold."""
        return self._durable[mark]

    def note(self, mark: Mark, value: int) -> None:
        """Set a hint, which may only rise; it is saved with the next transaction."""
        with self._lock:
            self._values[mark] = max(self._values[mark], value)

    def moved(self) -> dict[Mark, int]:
        """The hints that the disk does not know yet."""
        with self._lock:
            return {m: value for m, value in self._values.items() if value != self._durable[m]}

    def written(self, values: Mapping[Mark, int]) -> None:
        """These values are on the disk; a hint that rose meanwhile stays."""
        with self._lock:
            self._durable.update(values)
            for mark, value in values.items():
                self._values[mark] = max(self._values[mark], value)
