"""Requests into Avro payloads. Hot: everything here works on arrays."""

from collections.abc import Sequence

from schemas.poll import Floats, Longs
from schemas.records import confluent_header, encode_body
from schemas.request_columns import Envelope
from schemas.request_record import REQUEST
from schemas.writer import Field, FloatsField, LongField, StringField, write_records

_REST = {"correlation_id": "", "vehicle_id": "", "deadline": 0, "rows": 0, "features": []}


def encode_requests(
    envelope: Envelope,
    *,
    correlation_ids: Sequence[bytes],
    vehicle_ids: Sequence[bytes],
    deadline_ms: Longs,
    rows: Longs,
    values: Floats,
    schema_id: int,
) -> list[bytes]:
    """Encode M requests, of R rows in all, as ModelRequest payloads in Confluent's format.

    Ranges and lengths are the caller's: nothing that `decode_requests` checks is checked.

    Args:
        envelope: What they have in common.
        correlation_ids: UTF-8, M of them.
        vehicle_ids: UTF-8, M of them.
        deadline_ms: Since the epoch; 0: none. Shape (M,).
        rows: Rows of each request. Shape (M,), sum R.
        values: Shape (R, F); NaN where absent.
        schema_id: Registry id of the ModelRequest schema.

    Returns:
        M payloads, in order.

    Raises:
        ContractError: The envelope does not fit the schema.
        ValueError: Shapes disagree.
    """
    if values.ndim != 2 or int(rows.sum()) != len(values):
        raise ValueError(f"features of shape {values.shape} for {int(rows.sum())} rows")
    if not correlation_ids:
        return []
    prefix = confluent_header(schema_id) + _envelope_bytes(envelope)
    fields: list[Field] = [
        StringField(correlation_ids),
        StringField(vehicle_ids),
        LongField(deadline_ms),
        LongField(rows),
        FloatsField(rows * values.shape[1], values.reshape(-1)),
    ]
    return write_records(prefix, fields)


def _envelope_bytes(envelope: Envelope) -> bytes:
    """The fields that requests have in common; they are the first."""
    record = {
        "model": envelope.model,
        "version": envelope.version,
        "reply_topic": envelope.reply_topic,
        "reply_partition": envelope.reply_partition,
        "reconstruction": envelope.reconstruction,
    }
    # Each field of the rest is one byte of zero.
    return encode_body(REQUEST, record | _REST)[: -len(_REST)]
