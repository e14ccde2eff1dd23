"""One TelemetryBatch at a time, by fastavro: what the array decoder must agree with.

It says whether a payload keeps the contract and, where not, for which reason. `schemas.decode`
comes here with every payload that it cannot vouch for.
"""

import io
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import fastavro

from schemas.columns import (
    EVENT_TIME_MS_MAX,
    EVENT_TIME_MS_MIN,
    MAX_PAYLOAD_BYTES,
    MAX_READINGS,
    MAX_VEHICLE_ID_BYTES,
    UPTIME_MS_MAX,
    Framing,
)
from schemas.errors import ContractError, Reason
from schemas.records import (
    CONFLUENT_HEADER_BYTES,
    CONFLUENT_MAGIC,
    SINGLE_OBJECT_HEADER_BYTES,
    SINGLE_OBJECT_MAGIC,
    Record,
    confluent_header,
    single_object_header,
)
from schemas.signals import SIGNALS
from schemas.strict import check_body
from schemas.versions import Writer, versions_by_fingerprint, writer

ID_FORBIDDEN = b"/+#\0"
"""What would break or widen an MQTT topic that the id stands in."""


@dataclass(frozen=True, slots=True)
class Reception:
    """What a receiver of telemetry knows and allows.

    Attributes:
        framing: What stands before the body.
        schema_id: Registry id of the current schema; needed for CONFLUENT.
        schema_ids: Further registry ids and the released version that each stands for.
        bytes_max: Largest payload, frame included.
        readings_max: Most readings in one batch.
    """

    framing: Framing
    schema_id: int | None = None
    schema_ids: Mapping[int, str] | None = None
    bytes_max: int = MAX_PAYLOAD_BYTES
    readings_max: int = MAX_READINGS


def frame(framing: Framing, schema_id: int | None, name: str = "TelemetryBatch") -> bytes:
    """The bytes before the body of a record in the current schema.

    Raises:
        ValueError: CONFLUENT without a schema id.
    """
    if framing is Framing.SINGLE_OBJECT:
        return single_object_header(name)
    if framing is Framing.NONE:
        return b""
    if schema_id is None:
        raise ValueError("Confluent framing needs a schema_id")
    return confluent_header(schema_id)


def decode_record(payload: bytes, reception: Reception) -> Record:
    """Decode one payload and check all that the contract says of it.

    Returns:
        The record in the current schema, `event_time` in integer milliseconds.

    Raises:
        ContractError: Any reason that a telemetry payload can be refused for.
    """
    if len(payload) > reception.bytes_max:
        raise ContractError(
            Reason.OVERSIZED, f"{len(payload)} bytes, {reception.bytes_max} are allowed"
        )
    source, body = _unframe(payload, reception)
    check_body(source.walk, body)
    record = _read(source, body)
    _check_identity(record)
    _check_times(record)
    if len(record["readings"]) > reception.readings_max:
        raise ContractError(
            Reason.OVERSIZED,
            f"{len(record['readings'])} readings, {reception.readings_max} are allowed",
        )
    for reading in record["readings"]:
        _check_values(reading)
    return record


def _unframe(payload: bytes, reception: Reception) -> tuple[Writer, bytes]:
    if reception.framing is Framing.SINGLE_OBJECT:
        return _unframe_single_object(payload)
    if reception.framing is Framing.CONFLUENT:
        return _unframe_confluent(payload, reception)
    return writer(None), payload


def _unframe_single_object(payload: bytes) -> tuple[Writer, bytes]:
    if payload[:2] != SINGLE_OBJECT_MAGIC:
        start = payload[:2].hex() or "nothing"
        raise ContractError(Reason.NOT_AVRO, f"starts with {start}, not with c301")
    if len(payload) < SINGLE_OBJECT_HEADER_BYTES:
        raise ContractError(Reason.TRUNCATED, f"{len(payload)} bytes are no single object")
    found = payload[2:SINGLE_OBJECT_HEADER_BYTES]
    known = versions_by_fingerprint()
    if found not in known:
        raise ContractError(
            Reason.UNKNOWN_FINGERPRINT, f"fingerprint {found.hex()} is no known TelemetryBatch's"
        )
    return writer(known[found]), payload[SINGLE_OBJECT_HEADER_BYTES:]


def _unframe_confluent(payload: bytes, reception: Reception) -> tuple[Writer, bytes]:
    if payload[:1] != CONFLUENT_MAGIC:
        raise ContractError(Reason.NOT_AVRO, "does not start with Confluent's magic byte 0")
    if len(payload) < CONFLUENT_HEADER_BYTES:
        raise ContractError(Reason.TRUNCATED, f"{len(payload)} bytes are no Confluent frame")
    found = struct.unpack(">I", payload[1:CONFLUENT_HEADER_BYTES])[0]
    older = reception.schema_ids or {}
    if found != reception.schema_id and found not in older:
        raise ContractError(
            Reason.UNKNOWN_SCHEMA_ID, f"schema id {found} is no known TelemetryBatch's"
        )
    version = None if found == reception.schema_id else older[found]
    return writer(version), payload[CONFLUENT_HEADER_BYTES:]


def _read(source: Writer, body: bytes) -> Record:
    reader = None if source.current else writer(None).schema
    try:
        record: Any = fastavro.schemaless_reader(io.BytesIO(body), source.schema, reader)
    except Exception as error:  # fastavro raises many kinds; none is expected behind the walk
        raise ContractError(Reason.MALFORMED, f"not a TelemetryBatch: {error!r}") from error
    return dict(record)


def _check_identity(record: Record) -> None:
    vehicle_id = record["vehicle_id"].encode("utf-8")
    boot_id, seq, oldest_seq = record["boot_id"], record["seq"], record["oldest_seq"]
    faults = (
        (not vehicle_id, "an empty vehicle_id"),
        (len(vehicle_id) > MAX_VEHICLE_ID_BYTES, f"a vehicle_id of {len(vehicle_id)} bytes"),
        (any(byte in ID_FORBIDDEN for byte in vehicle_id), "a vehicle_id with /, +, # or NUL"),
        (boot_id < 0, f"boot_id {boot_id}"),
        (seq < 1, f"seq {seq}"),
        (not 1 <= oldest_seq <= seq, f"oldest_seq {oldest_seq} at seq {seq}"),
        (not record["readings"], "no readings"),
    )
    for broken, detail in faults:
        if broken:
            raise ContractError(Reason.IDENTITY, detail)


def _check_times(record: Record) -> None:
    if not 0 <= record["uptime_ms"] <= UPTIME_MS_MAX:
        raise ContractError(Reason.OUT_OF_RANGE, f"uptime_ms {record['uptime_ms']}")
    for reading in record["readings"]:
        if not EVENT_TIME_MS_MIN <= reading["event_time"] <= EVENT_TIME_MS_MAX:
            raise ContractError(Reason.OUT_OF_RANGE, f"event_time {reading['event_time']} ms")


def _check_values(reading: Record) -> None:
    for signal in SIGNALS:
        value = reading[signal.name]
        if value is None or signal.minimum <= value <= signal.maximum:
            continue
        if not math.isfinite(value):
            raise ContractError(Reason.NOT_FINITE, f"{signal.name} is {value}")
        raise ContractError(
            Reason.OUT_OF_RANGE,
            f"{signal.name} {value:g} {signal.unit} is not in "
            f"{signal.minimum:g}..{signal.maximum:g}",
        )
