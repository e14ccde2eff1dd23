"""What was measured, by the vehicles' own account: the truth that delivery is judged against."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from schemas.errors import SettingsError

FORMAT = 1


@dataclass(slots=True)
class BootAccount:
    """What one vehicle measured in one boot: batches 1..last_seq.

    Attributes:
        measured_ms: Wall time of each batch, when its last reading was taken.
        dropped_seq: Batches that the full buffer dropped before they were acknowledged.
        dropped_readings: Readings in these.
    """

    vehicle_id: str
    boot_id: int
    last_seq: int = 0
    readings: int = 0
    dropped_seq: list[int] = field(default_factory=list)
    dropped_readings: int = 0
    measured_ms: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FaultAccount:
    """A labelled fault. Event times are the vehicle's own, `start_wall_ms` is this machine's."""

    vehicle_id: str
    code: str
    signal: str | None
    start_event_ms: int
    end_event_ms: int | None
    start_wall_ms: int


@dataclass(slots=True)
class Ledger:
    """The account of one run.

    Attributes:
        seed: Of the run.
        boots: One for each vehicle and boot.
        faults: Injected, or known from the recording.
        measured: Readings measured.
        acknowledged: Readings that a gateway said are on its disk.
        dropped: Readings that full buffers dropped.
        held: Readings neither acknowledged nor dropped when the run ended.
        resent: Batches sent more than once.
    """

    seed: int
    boots: list[BootAccount] = field(default_factory=list)
    faults: list[FaultAccount] = field(default_factory=list)
    measured: int = 0
    acknowledged: int = 0
    dropped: int = 0
    held: int = 0
    resent: int = 0

    def save(self, path: Path) -> None:
        """Write it whole or not at all."""
        part = path.with_name(f"{path.name}.part")
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="utf-8") as out:
            json.dump({"format": FORMAT, **asdict(self)}, out)
            out.flush()
            os.fsync(out.fileno())
        part.replace(path)

    @staticmethod
    def load(path: Path) -> "Ledger":
        """Read what `save` wrote.

        Raises:
            SettingsError: There is none, or it is not of this format.
        """
        try:
            data = json.loads(path.read_text("utf-8"))
            if data.pop("format") != FORMAT:
                raise SettingsError(f"{path}: not a ledger of format {FORMAT}")
            boots = [BootAccount(**boot) for boot in data.pop("boots")]
            faults = [FaultAccount(**fault) for fault in data.pop("faults")]
            return Ledger(boots=boots, faults=faults, **data)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SettingsError(f"{path}: not a ledger: {error}") from error
