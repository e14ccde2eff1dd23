"""The signals of a vehicle: COVESA VSS 6.0 names, units and ranges, read from the Avro schema.

The schema `TelemetryBatch` is the one place where a signal is declared; this module only reads
it. Signal order is the order of the schema's fields.
"""

import json
from dataclasses import dataclass

from schemas.records import schema_json


@dataclass(frozen=True, slots=True)
class Signal:
    """One measured quantity.

    Attributes:
        name: Field name: the VSS leaf in snake case, with as much of the branch as makes it
            unique.
        vss: Full VSS path.
        unit: VSS unit.
        minimum: Least value that a sound sensor can report, in `unit`.
        maximum: Greatest such value.
        quantum: Usual step of the sensor, in `unit`; bounds scales from below.
        catalog: 'standard' or 'obd-overlay' (both COVESA's), or 'overlay' (ours).
    """

    name: str
    vss: str
    unit: str
    minimum: float
    maximum: float
    quantum: float
    catalog: str


def _read() -> tuple[Signal, ...]:
    batch = json.loads(schema_json("TelemetryBatch"))
    readings = next(field for field in batch["fields"] if field["name"] == "readings")
    return tuple(
        Signal(
            name=field["name"],
            vss=field["vss"],
            unit=field["unit"],
            minimum=float(field["min"]),
            maximum=float(field["max"]),
            quantum=float(field["quantum"]),
            catalog=field["vss_catalog"],
        )
        for field in readings["type"]["items"]["fields"]
        if "vss" in field
    )


SIGNALS: tuple[Signal, ...] = _read()
SIGNAL_NAMES: tuple[str, ...] = tuple(signal.name for signal in SIGNALS)
SIGNAL_BY_NAME: dict[str, Signal] = {signal.name: signal for signal in SIGNALS}
