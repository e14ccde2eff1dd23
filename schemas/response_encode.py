"""Responses into payloads. Hot: the Avro ones are written as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from schemas.poll import Floats, Longs
from schemas.records import Record, confluent_header, encode_body, encode_confluent
from schemas.request_columns import Verdict
from schemas.request_record import RESPONSE
from schemas.writer import Field, FloatsField, LongField, StringField, write_records

FEW_RESPONSES = 16
"""So many are encoded one by one: the fixed cost of the arrays is some 0.3 ms."""

_REST: Record = {
    "correlation_id": "",
    "score_time": 0,
    "queue_us": 0,
    "compute_us": 0,
    "scores": [],
    "reconstruction": [],
}


@dataclass(frozen=True, slots=True)
class Scored:
    """What one run of a model made of M requests, or one reason why it made nothing.

    Attributes:
        verdict: Which model, or why none.
        correlation_ids: UTF-8, M of them.
        rows: Scores of each; 0 with an error. Shape (M,), sum R.
        scores: Shape (R,).
        reconstruction: Shape (R, F), or (0, 0) where it was not asked for.
        score_time_ms: Since the epoch.
        queue_us: Between receipt and the start of scoring.
        compute_us: Of the run.
    """

    verdict: Verdict
    correlation_ids: Sequence[bytes]
    rows: Longs
    scores: Floats
    reconstruction: Floats
    score_time_ms: int
    queue_us: int
    compute_us: int


def encode_responses(scored: Scored, *, schema_id: int) -> list[bytes]:
    """Encode M responses as ModelResponse payloads in Confluent's format.

    Args:
        scored: What to say.
        schema_id: Registry id of the ModelResponse schema.

    Returns:
        M payloads, in order.

    Raises:
        ContractError: The verdict does not fit the schema.
        ValueError: Shapes disagree.
    """
    rows = np.asarray(scored.rows, np.int64)
    if int(rows.sum()) != scored.scores.size:
        raise ValueError(f"{scored.scores.size} scores for {int(rows.sum())} rows")
    count = len(scored.correlation_ids)
    if count == 0:
        return []
    if count <= FEW_RESPONSES:
        return _encode_each(scored, rows, schema_id)
    prefix = confluent_header(schema_id) + _verdict_bytes(scored.verdict)
    cells = rows * scored.reconstruction.shape[1]
    fields: list[Field] = [
        StringField(scored.correlation_ids),
        *(
            LongField(np.full(count, value, np.int64))
            for value in (scored.score_time_ms, scored.queue_us, scored.compute_us)
        ),
        FloatsField(rows, scored.scores),
        FloatsField(cells, scored.reconstruction.reshape(-1)),
    ]
    return write_records(prefix, fields)


def _verdict_bytes(verdict: Verdict) -> bytes:
    """The fields that responses have in common; they are the first."""
    # Each field of the rest is one byte of zero.
    return encode_body(RESPONSE, _verdict_fields(verdict) | _REST)[: -len(_REST)]


def _verdict_fields(verdict: Verdict) -> Record:
    return {
        "model": verdict.model,
        "version": verdict.version,
        "sha256": verdict.sha256,
        "arm": verdict.arm,
        "reason": verdict.reason,
        "error": verdict.error,
    }


def _encode_each(scored: Scored, rows: Longs, schema_id: int) -> list[bytes]:
    """Encode responses one by one."""
    record = _verdict_fields(scored.verdict) | {
        "score_time": scored.score_time_ms,
        "queue_us": scored.queue_us,
        "compute_us": scored.compute_us,
    }
    payloads = []
    end = 0
    for correlation_id, count in zip(scored.correlation_ids, rows.tolist(), strict=True):
        start, end = end, end + count
        record["correlation_id"] = correlation_id.decode("utf-8")
        record["scores"] = scored.scores[start:end].tolist()
        record["reconstruction"] = scored.reconstruction[start:end].reshape(-1).tolist()
        payloads.append(encode_confluent(RESPONSE, schema_id, record))
    return payloads
