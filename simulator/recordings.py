"""Recorded drives from a CSV file (gzipped or not) to arrays, a trip a vehicle.

Columns are known by name; a column without a place in the wire contract is passed over. Rows that
the logger marks as a gap are left out, empty cells are absent signals. Values are never altered:
what a sensor could not have said is for the gateway to refuse.
"""

import csv
import gzip
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from schemas.errors import SettingsError
from schemas.signals import SIGNAL_NAMES

COLUMNS = {
    "rpm": "engine_speed",
    "speed_kmh": "speed",
    "throttle_pct": "tps",
    "load_pct": "engine_load",
    "coolant_c": "coolant_temperature",
    "ltft_pct": "long_term_fuel_trim",
    "stft_pct": "short_term_fuel_trim",
    "map_kpa": "map",
    "maf_gs": "maf",
    "iat_c": "intake_temp",
    "ambient_c": "air_temperature",
    "timing_deg": "timing_advance",
    "cat1_c": "catalyst_temperature1",
    "cat2_c": "catalyst_temperature2",
    "ecu_v": "low_voltage",
    "pedal_d_pct": "pedal_position",
}
"""Column of a recording to signal; the units are those of the wire contract."""

ROWS_MAX = 5_000_000


@dataclass(frozen=True, slots=True)
class RecordedFault:
    """A stretch that the recording labels as faulty; seconds since the trip's start."""

    code: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Trip:
    """One recorded drive.

    Attributes:
        name: As the recording calls it.
        t_s: Seconds since its start, ascending. Shape (N,).
        values: Columns as SIGNAL_NAMES. Shape (N, signals).
        faults: Labelled stretches.
    """

    name: str
    t_s: NDArray[np.float64]
    values: NDArray[np.float32]
    faults: tuple[RecordedFault, ...]

    @property
    def vehicle_id(self) -> str:
        """A name that fits into a topic."""
        return re.sub(r"[^A-Za-z0-9._-]+", "-", self.name)[:128]


def read_trips(path: Path) -> list[Trip]:
    """All trips of a file, in its order.

    Raises:
        SettingsError: The file is missing, is no such table, or has more than ROWS_MAX rows.
    """
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8")
    except (OSError, EOFError, ValueError) as error:
        raise SettingsError(f"{path}: cannot be read as a recording: {error}") from error
    return [_trip(name, rows) for name, rows in _by_trip(path, text)]


def _by_trip(path: Path, text: str) -> Iterator[tuple[str, list[dict[str, str]]]]:
    table = csv.DictReader(io.StringIO(text))
    known = COLUMNS.keys() & set(table.fieldnames or ())
    if not {"trip", "t_s"} <= set(table.fieldnames or ()) or not known:
        raise SettingsError(
            f"{path}: a recording has the columns trip, t_s and signals such as "
            f"{', '.join(sorted(COLUMNS)[:5])}; found: {', '.join(table.fieldnames or ['nothing'])}"
        )
    trips: dict[str, list[dict[str, str]]] = {}
    for number, row in enumerate(table):
        if number >= ROWS_MAX:
            raise SettingsError(f"{path}: more than {ROWS_MAX:,} rows")
        if row.get("gap", "0") not in {"1", "1.0"}:
            # A trip may be recorded once for each fault that was injected into it.
            name = "-".join(filter(None, (row["trip"], row.get("fault"))))
            trips.setdefault(name, []).append(row)
    yield from trips.items()


def _trip(name: str, rows: list[dict[str, str]]) -> Trip:
    try:
        t_s = np.array([float(row["t_s"]) for row in rows])
        values = np.full((len(rows), len(SIGNAL_NAMES)), np.nan, np.float32)
        for column in COLUMNS.keys() & rows[0].keys():
            cells = [float(row[column] or "nan") for row in rows]
            values[:, SIGNAL_NAMES.index(COLUMNS[column])] = cells
    except (ValueError, TypeError) as error:
        raise SettingsError(f"trip {name}: {error}") from error
    if np.any(np.diff(t_s) <= 0):
        raise SettingsError(f"trip {name}: t_s does not rise")
    return Trip(name, t_s, values, tuple(_faults(rows, t_s)))


def _faults(rows: list[dict[str, str]], t_s: NDArray[np.float64]) -> Iterator[RecordedFault]:
    """Runs of label 1."""
    labels = np.array([0, *(row.get("label") in {"1", "1.0"} for row in rows), 0], np.int8)
    starts = np.flatnonzero(np.diff(labels) == 1)
    ends = np.flatnonzero(np.diff(labels) == -1) - 1
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        yield RecordedFault(rows[start].get("fault") or "fault", float(t_s[start]), float(t_s[end]))
