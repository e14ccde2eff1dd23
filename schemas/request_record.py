"""One request or response at a time, by fastavro: what the array codec must agree with.

It says whether a payload keeps the contract and, where not, for which reason. The array decoders
come here with every payload that they cannot vouch for.
"""

import io
import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import fastavro
import numpy as np
from numpy.typing import NDArray

from schemas.columns import EVENT_TIME_MS_MAX
from schemas.errors import ContractError, Reason
from schemas.records import (
    CONFLUENT_HEADER_BYTES,
    CONFLUENT_MAGIC,
    Record,
    confluent_header,
    schema_json,
)
from schemas.request_columns import (
    ANY_PARTITION,
    MAX_ID_BYTES,
    MAX_TOPIC_BYTES,
    AnswerableError,
    Envelope,
    Verdict,
)
from schemas.strict import Step, check_body, walker
from schemas.versions import without_logical_types

REQUEST = "ModelRequest"
RESPONSE = "ModelResponse"
REQUEST_PREFIX_FIELDS = 5
"""Fields of a request that stand in its `Envelope`; they are its first."""
RESPONSE_PREFIX_FIELDS = 6
"""Fields of a response that stand in its `Verdict`; they are its first."""


@dataclass(frozen=True, slots=True)
class Request:
    """One good request; the attributes are those of `RequestColumns`."""

    envelope: Envelope
    correlation_id: bytes
    vehicle_id: bytes
    deadline_ms: int
    rows: int
    values: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Response:
    """One response; the attributes are those of `ResponseColumns`."""

    verdict: Verdict
    correlation_id: bytes
    score_time_ms: int
    queue_us: int
    compute_us: int
    scores: NDArray[np.float32]
    reconstruction: NDArray[np.float32]


def decode_request(payload: bytes, schema_id: int, bytes_max: int) -> Request:
    """Decode one Avro request and check all that the contract says of it.

    Raises:
        AnswerableError: WRONG_SHAPE, OUT_OF_RANGE or IDENTITY, in a request that can be answered.
        ContractError: Any reason that a payload can be refused for.
    """
    record = _read(REQUEST, payload, schema_id, bytes_max)
    envelope = Envelope(**{name: record[name] for name in _names(REQUEST, REQUEST_PREFIX_FIELDS)})
    return checked_request(
        envelope,
        correlation_id=record["correlation_id"].encode("utf-8"),
        vehicle_id=record["vehicle_id"].encode("utf-8"),
        deadline_ms=record["deadline"],
        rows=record["rows"],
        values=np.array(record["features"], np.float32),
    )


def checked_request(
    envelope: Envelope,
    *,
    correlation_id: bytes,
    vehicle_id: bytes,
    deadline_ms: int,
    rows: int,
    values: NDArray[np.float32],
) -> Request:
    """A request, once its fields are what the contract allows. Raises as `decode_request`."""
    check_address(envelope, correlation_id)

    def refuse(reason: Reason, detail: str) -> AnswerableError:
        return AnswerableError(reason, detail, envelope=envelope, correlation_id=correlation_id)

    if len(vehicle_id) > MAX_ID_BYTES:
        raise refuse(Reason.IDENTITY, f"a vehicle_id of {len(vehicle_id)} bytes")
    if not 0 <= deadline_ms <= EVENT_TIME_MS_MAX:
        raise refuse(Reason.OUT_OF_RANGE, f"deadline {deadline_ms} ms")
    if rows < 1 or values.size < 1 or values.size % rows:
        raise refuse(Reason.WRONG_SHAPE, f"{values.size} features in {rows} rows")
    return Request(envelope, correlation_id, vehicle_id, deadline_ms, rows, values)


def check_address(envelope: Envelope, correlation_id: bytes) -> None:
    """That a response can be sent. Raises ContractError (IDENTITY or OUT_OF_RANGE)."""
    named = {"model": envelope.model, "version": envelope.version}
    for name, text in named.items():
        size = len(text.encode("utf-8"))
        if size > MAX_ID_BYTES:
            raise ContractError(Reason.IDENTITY, f"a {name} of {size} bytes")
    size = len(envelope.reply_topic.encode("utf-8"))
    if size > MAX_TOPIC_BYTES:
        raise ContractError(Reason.IDENTITY, f"a reply_topic of {size} bytes")
    if envelope.reply_partition < ANY_PARTITION:
        raise ContractError(Reason.OUT_OF_RANGE, f"reply_partition {envelope.reply_partition}")
    if len(correlation_id) > MAX_ID_BYTES:
        raise ContractError(Reason.IDENTITY, f"a correlation_id of {len(correlation_id)} bytes")


def decode_response(payload: bytes, schema_id: int, bytes_max: int) -> Response:
    """Decode one Avro response. Raises ContractError."""
    record = _read(RESPONSE, payload, schema_id, bytes_max)
    return Response(
        verdict=Verdict(
            **{name: record[name] for name in _names(RESPONSE, RESPONSE_PREFIX_FIELDS)}
        ),
        correlation_id=record["correlation_id"].encode("utf-8"),
        score_time_ms=record["score_time"],
        queue_us=record["queue_us"],
        compute_us=record["compute_us"],
        scores=np.array(record["scores"], np.float32),
        reconstruction=np.array(record["reconstruction"], np.float32),
    )


@dataclass(frozen=True, slots=True)
class Prefix:
    """The first fields of a payload: their values, and the bytes of frame and fields."""

    values: Record
    octets: bytes


def read_prefix(name: str, fields: int, payload: bytes) -> Prefix | None:
    """The first fields of a payload in Confluent's frame; None where they are not sound."""
    walk, schema = _prefix_schema(name, fields)
    body = payload[CONFLUENT_HEADER_BYTES:]
    try:
        end = walk(body, 0)
        values: Any = fastavro.schemaless_reader(io.BytesIO(body[:end]), schema, None)
    except ContractError:
        return None
    return Prefix(dict(values), payload[: CONFLUENT_HEADER_BYTES + end])


def envelope_of(values: Record) -> Envelope | None:
    """The envelope in the first fields of a request; None where it cannot be answered."""
    envelope = Envelope(**values)
    try:
        check_address(envelope, b"")
    except ContractError:
        return None
    return envelope


def _read(name: str, payload: bytes, schema_id: int, bytes_max: int) -> Record:
    if len(payload) > bytes_max:
        raise ContractError(Reason.OVERSIZED, f"{len(payload)} bytes, {bytes_max} are allowed")
    if payload[:1] != CONFLUENT_MAGIC:
        raise ContractError(Reason.NOT_AVRO, "does not start with Confluent's magic byte 0")
    if len(payload) < CONFLUENT_HEADER_BYTES:
        raise ContractError(Reason.TRUNCATED, f"{len(payload)} bytes are no Confluent frame")
    if payload[:CONFLUENT_HEADER_BYTES] != confluent_header(schema_id):
        found = int.from_bytes(payload[1:CONFLUENT_HEADER_BYTES], "big")
        raise ContractError(Reason.UNKNOWN_SCHEMA_ID, f"schema id {found} is not {name}'s")
    body = payload[CONFLUENT_HEADER_BYTES:]
    check_body(walker(schema_json(name)), body)
    try:
        record: Any = fastavro.schemaless_reader(io.BytesIO(body), _schema(name), None)
    except Exception as error:  # fastavro raises many kinds; none is expected behind the walk
        raise ContractError(Reason.MALFORMED, f"not a {name}: {error!r}") from error
    return dict(record)


@cache
def _schema(name: str) -> Any:
    return fastavro.parse_schema(without_logical_types(json.loads(schema_json(name))))


@cache
def _names(name: str, fields: int) -> tuple[str, ...]:
    return tuple(field["name"] for field in json.loads(schema_json(name))["fields"][:fields])


@cache
def _prefix_schema(name: str, fields: int) -> tuple[Step, Any]:
    schema = without_logical_types(json.loads(schema_json(name)))
    schema = schema | {"name": f"{name}Prefix", "fields": schema["fields"][:fields]}
    return walker(json.dumps(schema)), fastavro.parse_schema(schema)
