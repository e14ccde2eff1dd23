"""A poll of responses into columns. Hot: everything here works on arrays.

As `schemas.request_decode`: what the array code cannot vouch for goes to `schemas.request_record`.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from schemas.errors import ContractError
from schemas.heads import Cursor, framed
from schemas.poll import Longs, Poll, join, strings
from schemas.prefixes import find_prefixes
from schemas.records import confluent_header
from schemas.request_columns import (
    MAX_ID_BYTES,
    MAX_REQUEST_BYTES,
    RejectedRequest,
    ResponseColumns,
    Verdict,
)
from schemas.request_decode import FEW_BYTES, FEW_PAYLOADS, ascii_only, cut_floats
from schemas.request_record import RESPONSE, RESPONSE_PREFIX_FIELDS, Response, decode_response

_LONG_MIN, _LONG_MAX = -(1 << 63), (1 << 63) - 1


def decode_responses(
    payloads: Sequence[bytes], *, schema_id: int, max_bytes: int = MAX_REQUEST_BYTES
) -> ResponseColumns:
    """Decode a whole poll of responses.

    Args:
        payloads: N of them, as received.
        schema_id: Registry id of the ModelResponse schema.
        max_bytes: A larger payload is OVERSIZED, frame included.

    Returns:
        The responses as columns, in the order of the input, and what is none.
    """
    if len(payloads) <= FEW_PAYLOADS and sum(map(len, payloads)) <= FEW_BYTES:
        return _decode_each(payloads, range(len(payloads)), schema_id, max_bytes)
    poll = join(payloads, max_bytes)
    columns, doubtful = _decode_plain(payloads, poll, schema_id)
    if doubtful.size == 0:
        return columns
    return _merge(columns, _decode_each(payloads, doubtful.tolist(), schema_id, max_bytes))


def _verdict(values: dict[str, object]) -> Verdict:
    return Verdict(**{name: str(value) for name, value in values.items()})


def _decode_plain(
    payloads: Sequence[bytes], poll: Poll, schema_id: int
) -> tuple[ResponseColumns, Longs]:
    """Decode what the array code understands; the rest is returned by number."""
    plain = framed(poll, confluent_header(schema_id)) & (poll.lengths > 0)
    found = find_prefixes(
        payloads, poll, plain, name=RESPONSE, fields=RESPONSE_PREFIX_FIELDS, make=_verdict
    )
    cursor = Cursor(poll, found.behind, found.number >= 0)
    correlation_at, correlation_bytes = cursor.string(MAX_ID_BYTES)
    score_time_ms, queue_us, compute_us = (cursor.long(_LONG_MIN, _LONG_MAX) for _ in range(3))
    counts, at = cursor.floats()
    cells, cells_at = cursor.floats()
    good = cursor.good & (cursor.at == poll.starts + poll.lengths)
    good &= ascii_only(poll.octets, correlation_at, np.where(good, correlation_bytes, 0))
    index = np.flatnonzero(good)
    counts, cells = counts[index], cells[index]
    columns = ResponseColumns(
        index=index,
        verdicts=found.values,
        verdict=found.number[index],
        correlation_ids=strings(poll.octets, correlation_at[index], correlation_bytes[index]),
        score_time_ms=score_time_ms[index],
        queue_us=queue_us[index],
        compute_us=compute_us[index],
        counts=counts,
        starts=np.cumsum(counts) - counts,
        scores=cut_floats(poll, at[index], counts),
        cells=cells,
        cell_starts=np.cumsum(cells) - cells,
        reconstruction=cut_floats(poll, cells_at[index], cells),
        rejected=[],
    )
    return columns, np.flatnonzero(~good)


def _decode_each(
    payloads: Sequence[bytes], numbers: Iterable[int], schema_id: int, max_bytes: int
) -> ResponseColumns:
    """Decode some payloads one by one."""
    index: list[int] = []
    responses: list[Response] = []
    rejected: list[RejectedRequest] = []
    for number in numbers:
        try:
            responses.append(decode_response(bytes(payloads[number]), schema_id, max_bytes))
            index.append(number)
        except ContractError as error:
            rejected.append(RejectedRequest(number, error))
    columns = _from_responses(responses)
    columns.index = np.array(index, np.int64)
    columns.rejected = rejected
    return columns


def _from_responses(responses: list[Response]) -> ResponseColumns:
    def longs(name: str) -> Longs:
        return np.array([getattr(each, name) for each in responses], np.int64)

    numbers: dict[Verdict, int] = {}
    verdict = [numbers.setdefault(each.verdict, len(numbers)) for each in responses]
    counts = np.array([each.scores.size for each in responses], np.int64)
    cells = np.array([each.reconstruction.size for each in responses], np.int64)
    none = [np.empty(0, np.float32)]
    return ResponseColumns(
        index=np.arange(len(responses)),
        verdicts=list(numbers),
        verdict=np.array(verdict, np.int64),
        correlation_ids=[each.correlation_id for each in responses],
        score_time_ms=longs("score_time_ms"),
        queue_us=longs("queue_us"),
        compute_us=longs("compute_us"),
        counts=counts,
        starts=np.cumsum(counts) - counts,
        scores=np.concatenate(none + [each.scores for each in responses]),
        cells=cells,
        cell_starts=np.cumsum(cells) - cells,
        reconstruction=np.concatenate(none + [each.reconstruction for each in responses]),
        rejected=[],
    )


def _merge(some: ResponseColumns, others: ResponseColumns) -> ResponseColumns:
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
    return ResponseColumns(
        index=both("index"),
        verdicts=some.verdicts + others.verdicts,
        verdict=both("verdict", len(some.verdicts)),
        correlation_ids=[correlation_ids[number] for number in order.tolist()],
        score_time_ms=both("score_time_ms"),
        queue_us=both("queue_us"),
        compute_us=both("compute_us"),
        counts=both("counts"),
        starts=both("starts", some.scores.size),
        scores=np.concatenate([some.scores, others.scores]),
        cells=both("cells"),
        cell_starts=both("cell_starts", some.reconstruction.size),
        reconstruction=np.concatenate([some.reconstruction, others.reconstruction]),
        rejected=others.rejected,
    )
