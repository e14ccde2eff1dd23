"""Current schemas and released ones read each other's data: parts update at different times."""

import copy
import json
from collections.abc import Callable
from importlib import resources
from typing import Any

import avro.schema
import pytest
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType

from schemas.records import NAMES, schema_json
from schemas.versions import released_json, versions

Schema = dict[str, Any]
MEANING = ("vss", "unit", "logicalType")
"""Properties that Avro ignores when it resolves schemas, and that change what a number means."""


def incompatibilities(current: Schema, released: Schema) -> list[str]:
    """Why data cannot pass both ways between two schemas without loss; empty where it can."""
    pairs = {"read released data": (current, released), "be read there": (released, current)}
    out = [f"cannot {what}" for what, pair in pairs.items() if not readable(*pair)]
    return out + lost("", current, released)


def readable(reader: Schema, writer: Schema) -> bool:
    checker = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]
    result = checker.get_compatibility(
        avro.schema.parse(json.dumps(reader)), avro.schema.parse(json.dumps(writer))
    )
    return bool(result.compatibility is SchemaCompatibilityType.compatible)


def lost(path: str, current: Any, released: Any) -> list[str]:
    """Released fields that are gone or mean something else, which Avro itself would accept."""
    now, then = fields_of(current), fields_of(released)
    out = [f"{path}{name} is gone" for name in then if name not in now]
    for name in then.keys() & now.keys():
        out += [
            f"{path}{name} changes its {key}"
            for key in MEANING
            if properties(now[name]).get(key) != properties(then[name]).get(key)
        ]
        out += lost(f"{path}{name}.", now[name]["type"], then[name]["type"])
    return out


def fields_of(schema: Any) -> dict[str, Schema]:
    """Fields of a record, or of the records that an array or a union holds."""
    if isinstance(schema, list):
        return {name: field for branch in schema for name, field in fields_of(branch).items()}
    if not isinstance(schema, dict):
        return {}
    if schema["type"] == "array":
        return fields_of(schema["items"])
    return {field["name"]: field for field in schema.get("fields", [])}


def properties(field: Schema) -> Schema:
    kind = field["type"]
    return {**(kind if isinstance(kind, dict) else {}), **field}


def test_there_is_a_release() -> None:
    assert "0.1.0" in versions()


def released_names(version: str) -> tuple[str, ...]:
    """Records that a version had; each of them is still there."""
    folder = resources.files("schemas").joinpath("released", version)
    return tuple(sorted(entry.name.removesuffix(".avsc") for entry in folder.iterdir()))


@pytest.mark.parametrize(
    ("version", "name"), [(each, name) for each in versions() for name in released_names(each)]
)
def test_current_and_released_schemas_read_each_other(version: str, name: str) -> None:
    assert name in NAMES
    released = released_json(version, name)
    assert incompatibilities(json.loads(schema_json(name)), json.loads(released)) == []


def signals_of(batch: Schema) -> list[Schema]:
    readings = next(field for field in batch["fields"] if field["name"] == "readings")
    fields: list[Schema] = readings["type"]["items"]["fields"]
    return fields


def changed(change: Callable[[list[Schema]], None]) -> list[str]:
    """What is wrong with the telemetry schema after a change to its readings."""
    released = json.loads(schema_json("TelemetryBatch"))
    current = copy.deepcopy(released)
    change(signals_of(current))
    return incompatibilities(current, released)


NEW_SIGNAL = {
    "name": "fuel_level",
    "type": ["null", "float"],
    "default": None,
    "vss": "Vehicle.Powertrain.FuelSystem.RelativeLevel",
    "unit": "percent",
}


def test_a_new_signal_that_may_be_absent_is_compatible() -> None:
    assert changed(lambda fields: fields.append(NEW_SIGNAL)) == []
    assert changed(lambda fields: fields.insert(1, NEW_SIGNAL)) == []


def test_a_new_signal_without_a_default_is_not() -> None:
    without = {key: value for key, value in NEW_SIGNAL.items() if key != "default"}
    assert changed(lambda fields: fields.append(without)) == ["cannot read released data"]


def test_removing_a_signal_is_not() -> None:
    def remove(fields: list[Schema]) -> None:
        del fields[1]

    assert changed(remove) == ["readings.speed is gone"]


def test_renaming_a_signal_is_not() -> None:
    assert changed(lambda fields: fields[1].update(name="velocity")) == ["readings.speed is gone"]


def test_another_unit_is_not() -> None:
    assert changed(lambda fields: fields[1].update(unit="m/s")) == [
        "readings.speed changes its unit"
    ]


ANOTHER_TYPE: list[Schema] = [
    {"type": "string", "default": ""},
    {"type": ["null", "string"]},
    {"type": "float", "default": 0},
]


@pytest.mark.parametrize("change", ANOTHER_TYPE, ids=lambda change: str(change["type"]))
def test_another_type_is_not(change: Schema) -> None:
    assert changed(lambda fields: fields[1].update(change)) != []


def test_a_wider_type_is_not_since_older_readers_cannot_narrow_it() -> None:
    assert changed(lambda fields: fields[1].update(type=["null", "double"])) == [
        "cannot be read there"
    ]
