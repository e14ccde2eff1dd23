"""A poll of requests into columns. Hot: everything here works on arrays.

Array code vouches for what it understands in full: Avro in the current schema, ASCII, its features
one block. Every other payload, good or bad, goes to `schemas.request_record` or, if it is JSON, to
`schemas.request_json`: the result is the same as if all had gone there.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from schemas import varint
from schemas.columns import EVENT_TIME_MS_MAX
from schemas.errors import ContractError
from schemas.heads import Cursor, framed
from schemas.poll import Bools, Bytes, Floats, Longs, Poll, by_length, join, spans, strings
from schemas.prefixes import find_prefixes
from schemas.records import confluent_header
from schemas.request_columns import (
    MAX_ID_BYTES,
    MAX_REQUEST_BYTES,
    Envelope,
    RejectedRequest,
    RequestColumns,
)
from schemas.request_json import decode_json_request
from schemas.request_record import (
    REQUEST,
    REQUEST_PREFIX_FIELDS,
    Request,
    decode_request,
    envelope_of,
)

FEW_PAYLOADS = 16
FEW_BYTES = 4_000
"""A poll within both is decoded one by one: the fixed cost of the arrays is some 0.3 ms."""

LARGE_FLOATS = 1_024
"""Arrays from this size on are copied one at a time."""

FLOAT_BYTES = 4
_INT_MAX = (1 << 31) - 1
_ASCII_MAX = 127
_JSON_START = b"{"


def decode_requests(
    payloads: Sequence[bytes], *, schema_id: int, max_bytes: int = MAX_REQUEST_BYTES
) -> RequestColumns:
    """Decode a whole poll of requests.

    A payload that breaks the contract is rejected whole and takes nothing else with it. Memory:
    one copy of the payloads, and another of the features.

    Args:
        payloads: N of them, as received.
        schema_id: Registry id of the ModelRequest schema.
        max_bytes: A larger payload is OVERSIZED, frame included.

    Returns:
        The good requests as columns, in the order of the input, and the rejected.
    """
    if len(payloads) <= FEW_PAYLOADS and sum(map(len, payloads)) <= FEW_BYTES:
        return _decode_each(payloads, range(len(payloads)), schema_id, max_bytes)
    poll = join(payloads, max_bytes)
    columns, doubtful = _decode_plain(payloads, poll, schema_id)
    if doubtful.size == 0:
        return columns
    return _merge(columns, _decode_each(payloads, doubtful.tolist(), schema_id, max_bytes))


def _decode_plain(
    payloads: Sequence[bytes], poll: Poll, schema_id: int
) -> tuple[RequestColumns, Longs]:
    """Decode what the array code understands; the rest is returned by number."""
    plain = framed(poll, confluent_header(schema_id)) & (poll.lengths > 0)
    found = find_prefixes(
        payloads, poll, plain, name=REQUEST, fields=REQUEST_PREFIX_FIELDS, make=envelope_of
    )
    cursor = Cursor(poll, found.behind, found.number >= 0)
    correlation_at, correlation_bytes = cursor.string(MAX_ID_BYTES)
    vehicle_at, vehicle_bytes = cursor.string(MAX_ID_BYTES)
    deadline_ms = cursor.long(0, EVENT_TIME_MS_MAX)
    rows = cursor.long(1, _INT_MAX)
    counts, at = cursor.floats()
    good = cursor.good & (cursor.at == poll.starts + poll.lengths)
    good &= (counts >= 1) & (counts % np.maximum(rows, 1) == 0)
    for where, size in ((correlation_at, correlation_bytes), (vehicle_at, vehicle_bytes)):
        good &= ascii_only(poll.octets, where, np.where(good, size, 0))
    index = np.flatnonzero(good)
    counts = counts[index]
    columns = RequestColumns(
        index=index,
        envelopes=found.values,
        envelope=found.number[index],
        correlation_ids=strings(poll.octets, correlation_at[index], correlation_bytes[index]),
        vehicle_ids=strings(poll.octets, vehicle_at[index], vehicle_bytes[index]),
        deadline_ms=deadline_ms[index],
        rows=rows[index],
        counts=counts,
        starts=np.cumsum(counts) - counts,
        values=cut_floats(poll, at[index], counts),
        rejected=[],
    )
    return columns, np.flatnonzero(~good)


def ascii_only(octets: Bytes, at: Longs, lengths: Longs) -> Bools:
    """Which strings are ASCII. Shape (N,).

    Others may be good UTF-8; they are left to the record-at-a-time decoder.
    """
    plain = np.ones(at.size, np.bool_)
    for length, chosen in by_length(lengths):
        rows = varint.sliding(octets, f"V{length}")[at[chosen]].view(np.uint8)
        if rows.max(initial=0) > _ASCII_MAX:
            plain[chosen] = rows.reshape(-1, length).max(axis=1) <= _ASCII_MAX
    return plain


def cut_floats(poll: Poll, at: Longs, counts: Longs) -> Floats:
    """The floats of arrays at these positions, one behind the other. Shape (sum of counts,)."""
    total = int(counts.sum())
    if total == 0:
        return np.empty(0, np.float32)
    if total >= LARGE_FLOATS * at.size:
        ends = at + FLOAT_BYTES * counts
        parts = [
            poll.octets[i:j].tobytes() for i, j in zip(at.tolist(), ends.tolist(), strict=True)
        ]
        return np.frombuffer(b"".join(parts), np.float32)
    width = int(counts[0])
    if (counts == width).all():
        return varint.sliding(poll.octets, f"V{FLOAT_BYTES * width}")[at].view(np.float32)
    cut: Floats = poll.floats[spans(at, counts, FLOAT_BYTES)]
    return cut


def _decode_each(
    payloads: Sequence[bytes], numbers: Iterable[int], schema_id: int, max_bytes: int
) -> RequestColumns:
    """Decode some payloads one by one."""
    index: list[int] = []
    requests: list[Request] = []
    rejected: list[RejectedRequest] = []
    for number in numbers:
        payload = bytes(payloads[number])
        try:
            if payload[:1] == _JSON_START:
                requests.append(decode_json_request(payload, max_bytes))
            else:
                requests.append(decode_request(payload, schema_id, max_bytes))
            index.append(number)
        except ContractError as error:
            rejected.append(RejectedRequest(number, error))
    columns = _from_requests(requests)
    columns.index = np.array(index, np.int64)
    columns.rejected = rejected
    return columns


def _from_requests(requests: list[Request]) -> RequestColumns:
    numbers: dict[Envelope, int] = {}
    envelope = [numbers.setdefault(each.envelope, len(numbers)) for each in requests]
    counts = np.array([each.values.size for each in requests], np.int64)
    values = [each.values for each in requests]
    return RequestColumns(
        index=np.arange(len(requests)),
        envelopes=list(numbers),
        envelope=np.array(envelope, np.int64),
        correlation_ids=[each.correlation_id for each in requests],
        vehicle_ids=[each.vehicle_id for each in requests],
        deadline_ms=np.array([each.deadline_ms for each in requests], np.int64),
        rows=np.array([each.rows for each in requests], np.int64),
        counts=counts,
        starts=np.cumsum(counts) - counts,
        values=np.concatenate(values) if values else np.empty(0, np.float32),
        rejected=[],
    )


def _merge(some: RequestColumns, others: RequestColumns) -> RequestColumns:
    """Both, in the order of their index; the rejected are those of `others`."""
    if others.index.size == 0:
        some.rejected = others.rejected
        return some
    order = np.argsort(np.concatenate([some.index, others.index]))

    def both(name: str, shift: int = 0) -> Longs:
        joined = np.concatenate([getattr(some, name), getattr(others, name) + shift])
        ordered: Longs = joined[order]
        return ordered

    correlation_ids = some.correlation_ids + others.correlation_ids
    vehicle_ids = some.vehicle_ids + others.vehicle_ids
    return RequestColumns(
        index=both("index"),
        envelopes=some.envelopes + others.envelopes,
        envelope=both("envelope", len(some.envelopes)),
        correlation_ids=[correlation_ids[number] for number in order.tolist()],
        vehicle_ids=[vehicle_ids[number] for number in order.tolist()],
        deadline_ms=both("deadline_ms"),
        rows=both("rows"),
        counts=both("counts"),
        starts=both("starts", some.values.size),
        values=np.concatenate([some.values, others.values]),
        rejected=others.rejected,
    )
