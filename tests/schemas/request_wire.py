"""Requests and responses by fastavro, and how the array codec's answers are compared with them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.errors import ContractError
from schemas.records import confluent_header, encode_body
from schemas.request_json import decode_json_request
from schemas.request_record import Request, Response, decode_request, decode_response
from schemas.requests import (
    MAX_REQUEST_BYTES,
    AnswerableError,
    RejectedRequest,
    RequestColumns,
    ResponseColumns,
)

SCHEMA_ID = 7


@dataclass
class Wire:
    """A request as a client writes it; everything may be wrong."""

    model: str = "anomaly"
    version: str = ""
    reply_topic: str = ""
    reply_partition: int = -1
    reconstruction: bool = False
    correlation_id: str = "c-1"
    vehicle_id: str = "car-1"
    deadline: int = 0
    rows: int = 1
    features: list[float] = field(default_factory=lambda: [1.0, 2.0])

    def payload(self, schema_id: int = SCHEMA_ID) -> bytes:
        return confluent_header(schema_id) + encode_body("ModelRequest", vars(self))


def by_record(payload: bytes, bytes_max: int = MAX_REQUEST_BYTES) -> Request | ContractError:
    """What the authority says."""
    try:
        if payload[:1] == b"{":
            return decode_json_request(payload, bytes_max)
        return decode_request(payload, SCHEMA_ID, bytes_max)
    except ContractError as error:
        return error


def response_by_record(payload: bytes) -> Response | ContractError:
    try:
        return decode_response(payload, SCHEMA_ID, MAX_REQUEST_BYTES)
    except ContractError as error:
        return error


def facts(found: Request | ContractError) -> Any:
    """Comparable to the bit."""
    if isinstance(found, ContractError):
        return refusal(found)
    return (
        found.envelope,
        found.correlation_id,
        found.vehicle_id,
        found.deadline_ms,
        found.rows,
        found.values.tobytes(),
    )


def refusal(error: ContractError) -> Any:
    if isinstance(error, AnswerableError):
        return (error.reason, error.detail, error.envelope, error.correlation_id)
    return (error.reason, error.detail)


def assert_requests_same(payloads: Sequence[bytes], columns: RequestColumns) -> None:
    """That the columns say what the authority says of each payload."""
    expected = [facts(by_record(payload)) for payload in payloads]
    found: list[Any] = [None] * len(payloads)
    for number, index in enumerate(columns.index.tolist()):
        start = columns.starts[number]
        found[index] = (
            columns.envelopes[columns.envelope[number]],
            columns.correlation_ids[number],
            columns.vehicle_ids[number],
            columns.deadline_ms[number],
            columns.rows[number],
            columns.values[start : start + columns.counts[number]].tobytes(),
        )
    _put_rejected(found, columns.rejected)
    assert found == expected
    assert columns.index.tolist() == sorted(columns.index.tolist())


def assert_responses_same(payloads: Sequence[bytes], columns: ResponseColumns) -> None:
    expected = [response_facts(response_by_record(payload)) for payload in payloads]
    found: list[Any] = [None] * len(payloads)
    for number, index in enumerate(columns.index.tolist()):
        start, cell = columns.starts[number], columns.cell_starts[number]
        found[index] = (
            columns.verdicts[columns.verdict[number]],
            columns.correlation_ids[number],
            columns.score_time_ms[number],
            columns.queue_us[number],
            columns.compute_us[number],
            columns.scores[start : start + columns.counts[number]].tobytes(),
            columns.reconstruction[cell : cell + columns.cells[number]].tobytes(),
        )
    _put_rejected(found, columns.rejected)
    assert found == expected


def response_facts(found: Response | ContractError) -> Any:
    if isinstance(found, ContractError):
        return refusal(found)
    return (
        found.verdict,
        found.correlation_id,
        found.score_time_ms,
        found.queue_us,
        found.compute_us,
        found.scores.tobytes(),
        found.reconstruction.tobytes(),
    )


def _put_rejected(found: list[Any], rejected: Sequence[RejectedRequest]) -> None:
    for each in rejected:
        assert found[each.index] is None
        found[each.index] = refusal(each.error)
    assert [each.index for each in rejected] == sorted(each.index for each in rejected)
