"""Avro records one at a time, in both framings, by fastavro.

Single-object encoding (`C3 01`, 8 bytes of fingerprint little-endian, body) on MQTT and in the
spool, so that an offline gateway needs no registry. Confluent's wire format (`00`, 4 bytes of
schema id big-endian, body) on Kafka. Hot paths use `schemas.codec`, which decodes and encodes
whole polls as arrays; this module is what it must agree with, and what it falls back to.
"""

import io
import json
import struct
from functools import cache
from importlib import resources
from typing import Any

import fastavro
from fastavro.schema import fingerprint as avro_fingerprint
from fastavro.schema import to_parsing_canonical_form

from schemas.errors import ContractError, Reason
from schemas.strict import check_body, walker

SINGLE_OBJECT_MAGIC = b"\xc3\x01"
SINGLE_OBJECT_HEADER_BYTES = 10
CONFLUENT_MAGIC = b"\x00"
CONFLUENT_HEADER_BYTES = 5

NAMES = (
    "TelemetryBatch",
    "ScoreBatch",
    "Alert",
    "ModelRelease",
    "DeadLetter",
    "GatewayPosition",
    "GatewayStatus",
    "Ack",
    "VehicleLabel",
    "ModelChunk",
    "ModelTraffic",
    "ModelRequest",
    "ModelResponse",
    "ModelStats",
    "ModelEvent",
    "GatewayGap",
    "VehicleClock",
)

Record = dict[str, Any]


@cache
def schema_json(name: str) -> str:
    """The schema as stands in `schemas/avsc`, for a registry to keep."""
    return resources.files("schemas").joinpath("avsc", f"{name}.avsc").read_text("utf-8")


@cache
def parsed_schema(name: str) -> Any:
    """The schema as fastavro wants it."""
    return fastavro.parse_schema(json.loads(schema_json(name)))


@cache
def fingerprint(name: str) -> bytes:
    """CRC-64-AVRO (Rabin) of the parsing canonical form, 8 bytes little-endian as on the wire."""
    return fingerprint_of(schema_json(name))


def fingerprint_of(text: str) -> bytes:
    """`fingerprint` of any schema, given as JSON text."""
    canonical = to_parsing_canonical_form(json.loads(text))
    return bytes.fromhex(avro_fingerprint(canonical, "CRC-64-AVRO"))


@cache
def single_object_header(name: str) -> bytes:
    """The ten bytes before a body on MQTT and in the spool."""
    return SINGLE_OBJECT_MAGIC + fingerprint(name)


def confluent_header(schema_id: int) -> bytes:
    """The five bytes before a body on Kafka."""
    return CONFLUENT_MAGIC + struct.pack(">I", schema_id)


def encode_body(name: str, record: Record) -> bytes:
    """Avro binary of one record, without a frame.

    Raises:
        ContractError: The record does not fit the schema.
    """
    out = io.BytesIO()
    try:
        fastavro.schemaless_writer(out, parsed_schema(name), record, strict=True)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, struct.error) as error:
        raise ContractError(Reason.WRONG_SCHEMA, f"not a {name}: {error}") from error
    return out.getvalue()


def decode_body(name: str, body: bytes) -> Record:
    """The record in an unframed body; every byte must be used.

    Stricter than fastavro, see `schemas.strict`; never takes more memory than the body warrants.

    Raises:
        ContractError: TRUNCATED, or MALFORMED where the bytes are no such record.
    """
    check_body(walker(schema_json(name)), body)
    stream = io.BytesIO(body)
    try:
        record = fastavro.schemaless_reader(stream, parsed_schema(name), None)
    except EOFError as error:
        raise ContractError(Reason.TRUNCATED, f"{name} ends after {len(body)} bytes") from error
    except Exception as error:  # fastavro raises many kinds, such as for a time in year 10000
        raise ContractError(Reason.MALFORMED, f"not a {name}: {error!r}") from error
    if stream.tell() != len(body):
        raise ContractError(
            Reason.MALFORMED, f"{len(body) - stream.tell()} bytes behind the end of the {name}"
        )
    if not isinstance(record, dict):
        raise ContractError(Reason.MALFORMED, f"not a {name}")
    return record


def encode_single_object(name: str, record: Record) -> bytes:
    """One record framed for MQTT and the spool."""
    return single_object_header(name) + encode_body(name, record)


def single_object_body(name: str, payload: bytes) -> bytes:
    """The body behind a single-object header.

    Raises:
        ContractError: NOT_AVRO, TRUNCATED, or UNKNOWN_FINGERPRINT.
    """
    if payload[:2] != SINGLE_OBJECT_MAGIC:
        raise ContractError(
            Reason.NOT_AVRO, f"starts with {payload[:2].hex() or 'nothing'}, not with c301"
        )
    if len(payload) < SINGLE_OBJECT_HEADER_BYTES:
        raise ContractError(Reason.TRUNCATED, f"{len(payload)} bytes are no single object")
    if payload[2:10] != fingerprint(name):
        raise ContractError(
            Reason.UNKNOWN_FINGERPRINT,
            f"fingerprint {payload[2:10].hex()} is not {name}'s {fingerprint(name).hex()}",
        )
    return payload[SINGLE_OBJECT_HEADER_BYTES:]


def decode_single_object(name: str, payload: bytes) -> Record:
    """One record as it comes from MQTT or the spool. Raises ContractError."""
    return decode_body(name, single_object_body(name, payload))


def encode_confluent(name: str, schema_id: int, record: Record) -> bytes:
    """One record framed for Kafka."""
    return confluent_header(schema_id) + encode_body(name, record)


def decode_confluent(name: str, schema_id: int, payload: bytes) -> Record:
    """One record as it comes from Kafka.

    Raises:
        ContractError: NOT_AVRO, TRUNCATED, UNKNOWN_SCHEMA_ID or MALFORMED.
    """
    if payload[:1] != CONFLUENT_MAGIC:
        raise ContractError(Reason.NOT_AVRO, "does not start with Confluent's magic byte 0")
    if len(payload) < CONFLUENT_HEADER_BYTES:
        raise ContractError(Reason.TRUNCATED, f"{len(payload)} bytes are no Confluent frame")
    if payload[:CONFLUENT_HEADER_BYTES] != confluent_header(schema_id):
        found = struct.unpack(">I", payload[1:5])[0]
        raise ContractError(Reason.UNKNOWN_SCHEMA_ID, f"schema id {found} is not {name}'s")
    return decode_body(name, payload[CONFLUENT_HEADER_BYTES:])
