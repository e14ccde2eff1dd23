"""Records read from Kafka as plain values: times stay integers of milliseconds."""

import io
import json
import struct
from functools import cache
from typing import Any

import fastavro

from schemas.errors import ContractError, Reason
from schemas.records import CONFLUENT_HEADER_BYTES, Record, confluent_header, schema_json
from schemas.strict import check_body, walker


def _without_logical_types(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {
            key: _without_logical_types(value)
            for key, value in schema.items()
            if key != "logicalType"
        }
    if isinstance(schema, list):
        return [_without_logical_types(item) for item in schema]
    return schema


@cache
def plain_schema(name: str) -> Any:
    """The schema of a record without logical types, so that `timestamp-millis` reads as int."""
    return fastavro.parse_schema(_without_logical_types(json.loads(schema_json(name))))


def decode_plain(name: str, schema_id: int, payload: bytes | None) -> Record:
    """One record in Confluent's frame, times as integers of milliseconds.

    Raises:
        ContractError: It is not such a record of that schema id (see `schemas.strict`).
    """
    if payload is None or payload[:1] != b"\x00":
        raise ContractError(Reason.NOT_AVRO, f"no {name} in Confluent's frame")
    if payload[:CONFLUENT_HEADER_BYTES] != confluent_header(schema_id):
        raise ContractError(Reason.UNKNOWN_SCHEMA_ID, f"not the schema id of {name}, {schema_id}")
    body = payload[CONFLUENT_HEADER_BYTES:]
    check_body(walker(schema_json(name)), body)
    try:
        record = fastavro.schemaless_reader(io.BytesIO(body), plain_schema(name), None)
    except (EOFError, ValueError, IndexError, KeyError, struct.error, OverflowError) as error:
        raise ContractError(Reason.MALFORMED, f"not a {name}: {error!r}") from error
    if not isinstance(record, dict):
        raise ContractError(Reason.MALFORMED, f"not a {name}")
    return record
