"""The schemas of every release, so that data written with an older one stays readable.

`schemas/released/<version>/` holds what that version of Motorcade spoke; a folder is added with
each release that changes a schema and never edited. A writer is known by its fingerprint on
MQTT and by its registry id on Kafka.
"""

import io
import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import fastavro

from schemas.errors import ContractError
from schemas.records import Record, decode_body, fingerprint_of, parsed_schema, schema_json
from schemas.strict import Step, check_body, walker


@dataclass(frozen=True, slots=True)
class Writer:
    """A schema that telemetry may have been written with.

    Attributes:
        schema: For fastavro, logical types left out: times stay integers of milliseconds.
        walk: Its strict walk.
        current: Whether it is the schema of this version.
    """

    schema: Any
    walk: Step
    current: bool


@cache
def versions() -> tuple[str, ...]:
    """Versions with schemas of their own, in order of text."""
    root = resources.files("schemas").joinpath("released")
    return tuple(sorted(entry.name for entry in root.iterdir() if entry.is_dir()))


@cache
def released_json(version: str, name: str) -> str:
    """The schema of a record as that version spoke it.

    Raises:
        FileNotFoundError: That version has no such schema.
    """
    path = resources.files("schemas").joinpath("released", version, f"{name}.avsc")
    return path.read_text("utf-8")


@cache
def writer(version: str | None) -> Writer:
    """The TelemetryBatch of a version; None is the current one."""
    current = schema_json("TelemetryBatch")
    text = current if version is None else released_json(version, "TelemetryBatch")
    same = fingerprint_of(text) == fingerprint_of(current)
    return Writer(
        schema=fastavro.parse_schema(without_logical_types(json.loads(text))),
        walk=walker(text),
        current=same,
    )


@cache
def versions_by_fingerprint() -> dict[bytes, str | None]:
    """Fingerprint on the wire to the version that can read it; None is the current one."""
    known: dict[bytes, str | None] = {
        fingerprint_of(released_json(version, "TelemetryBatch")): version for version in versions()
    }
    return known | {fingerprint_of(schema_json("TelemetryBatch")): None}


def decode_any_version(name: str, body: bytes) -> Record:
    """A record of this version or an earlier one; what an earlier one lacked has its default.

    Fields are only ever added at the end, and every byte must be used, so a body fits one alone.

    Raises:
        ContractError: It fits none; the error is that of the current version.
    """
    try:
        return decode_body(name, body)
    except ContractError:
        for version in reversed(versions()):
            record = _decode_released(version, name, body)
            if record is not None:
                return record
        raise


def _decode_released(version: str, name: str, body: bytes) -> Record | None:
    """None where it is no record of that version."""
    try:
        text = released_json(version, name)
        check_body(walker(text), body)
    except (FileNotFoundError, ContractError):
        return None
    stream = io.BytesIO(body)
    record = fastavro.schemaless_reader(
        stream, fastavro.parse_schema(json.loads(text)), parsed_schema(name)
    )
    return record if isinstance(record, dict) and stream.tell() == len(body) else None


def without_logical_types(node: Any) -> Any:
    """A schema whose times stay integers of milliseconds."""
    if isinstance(node, dict):
        return {
            key: without_logical_types(value) for key, value in node.items() if key != "logicalType"
        }
    if isinstance(node, list):
        return [without_logical_types(item) for item in node]
    return node
