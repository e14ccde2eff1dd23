"""Columns into Avro payloads. Hot: everything here works on arrays.

All records of a call are written into one buffer, a field of all of them at a time, and cut
apart at the end. The sizes are known before, so each byte is written where it stays; the result
is byte for byte what fastavro would write.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from schemas import varint
from schemas.columns import Framing, ScoreStamp
from schemas.layout import BRANCH_FLOAT
from schemas.poll import Bools, Floats, Longs, put_strings, spans
from schemas.records import confluent_header, encode_body
from schemas.signals import SIGNAL_NAMES
from schemas.telemetry_record import frame
from schemas.writer import FLOAT_BYTES, LongField, RecordWriter


def encode_telemetry(  # noqa: PLR0917 - the columns of TelemetryColumns, in its order
    vehicle_ids: Sequence[bytes],
    boot_id: Longs,
    seq: Longs,
    oldest_seq: Longs,
    uptime_ms: Longs,
    clock_synced: Bools,
    counts: Longs,
    event_time_ms: Longs,
    values: Floats,
    *,
    signals: Sequence[str],
    framing: Framing,
    schema_id: int | None = None,
) -> list[bytes]:
    """Encode M batches, of R readings in all, as TelemetryBatch payloads.

    Ranges and identities are the caller's: nothing that `decode_telemetry` checks is checked.

    Args:
        vehicle_ids: UTF-8, M of them.
        boot_id: Shape (M,).
        seq: Shape (M,).
        oldest_seq: Shape (M,).
        uptime_ms: Shape (M,).
        clock_synced: Shape (M,).
        counts: Readings of each batch, >= 1. Shape (M,), sum R.
        event_time_ms: Shape (R,).
        values: NaN becomes null. Shape (R, len(signals)).
        signals: Names of the columns of `values`; all other signals become null.
        framing: What to put before each body.
        schema_id: Registry id of the schema, for CONFLUENT.

    Returns:
        M payloads, in order.

    Raises:
        ValueError: CONFLUENT without a `schema_id`, shapes that disagree, a batch without
            readings, or a signal that the schema does not have.
    """
    prefix = frame(framing, schema_id)
    counts = np.asarray(counts, np.int64)
    columns = _columns(signals, np.asarray(values, np.float32))
    _check_shapes(len(vehicle_ids), counts, event_time_ms, values)
    if counts.size == 0:
        return []
    fields = [LongField(column) for column in (boot_id, seq, oldest_seq, uptime_ms)]
    count, times = LongField(counts), LongField(event_time_ms)
    id_bytes = np.fromiter(map(len, vehicle_ids), np.int64, len(vehicle_ids))
    id_length = LongField(id_bytes)
    strides = _strides(times, columns)
    sizes = np.add.reduceat(strides, np.cumsum(counts) - counts) + id_bytes + len(prefix) + 2
    for field in (id_length, *fields, count):
        sizes += field.width
    writer = RecordWriter(sizes)
    writer.skip(len(prefix))
    writer.long(id_length)
    id_at = writer.skip(id_bytes)
    for field in fields:
        writer.long(field)
    writer.boolean(clock_synced)
    writer.long(count)
    _write_readings(writer, counts, strides, times, columns)
    put_strings(writer.octets, id_at, vehicle_ids, id_bytes)
    return writer.cut(prefix)


def _check_shapes(messages: int, counts: Longs, event_time_ms: Longs, values: Floats) -> None:
    rows = int(counts.sum())
    if counts.shape != (messages,) or event_time_ms.shape != (rows,) or len(values) != rows:
        raise ValueError(
            f"{messages} ids, {counts.shape} counts of {rows} readings, {event_time_ms.shape} "
            f"times and {values.shape} values do not belong together"
        )
    if counts.size and counts.min() < 1:
        raise ValueError("a batch has at least one reading")


def _columns(signals: Sequence[str], values: Floats) -> dict[int, tuple[Floats, Bools]]:
    """Values, and where there are any, of each signal by its number in the schema."""
    if not set(signals) <= set(SIGNAL_NAMES) or values.shape[1:] != (len(signals),):
        raise ValueError(f"no columns {values.shape} of the signals {list(signals)}")
    return {
        SIGNAL_NAMES.index(name): (values[:, column], ~np.isnan(values[:, column]))
        for column, name in enumerate(signals)
    }


def _strides(times: LongField, columns: Mapping[int, tuple[Floats, Bools]]) -> Longs:
    """Bytes of each reading. Shape (R,)."""
    present = np.zeros(times.width.shape, np.int64)
    for _, there in columns.values():
        present += there
    return times.width + len(SIGNAL_NAMES) + FLOAT_BYTES * present


def _write_readings(
    writer: RecordWriter,
    counts: Longs,
    strides: Longs,
    times: LongField,
    columns: Mapping[int, tuple[Floats, Bools]],
) -> None:
    before = np.cumsum(strides) - strides
    at = before + np.repeat(writer.at - before[np.cumsum(counts) - counts], counts)
    varint.write(writer.octets, at, times.coded, times.width)
    at = at + times.width
    for number in range(len(SIGNAL_NAMES)):
        if number in columns:
            values, there = columns[number]
            here = at[there]
            writer.octets[here] = BRANCH_FLOAT
            writer.floats[here + 1] = values[there]
            at = at + FLOAT_BYTES * there
        at = at + 1


def encode_scores(
    stamp: ScoreStamp,
    *,
    vehicle_ids: Sequence[bytes],
    input_partition: Longs,
    input_offset: Longs,
    boot_id: Longs,
    seq: Longs,
    event_time_ms: Longs,
    late: Bools,
    counts: Longs,
    scores: Floats,
    schema_id: int,
) -> list[bytes]:
    """Encode M answers, of R scores in all, as ScoreBatch payloads in Confluent's format.

    Args:
        stamp: What they have in common.
        vehicle_ids: UTF-8, M of them.
        input_partition: Of the telemetry message. Shape (M,).
        input_offset: Of the telemetry message. Shape (M,).
        boot_id: Shape (M,).
        seq: Shape (M,).
        event_time_ms: Of each message's first reading. Shape (M,).
        late: Shape (M,).
        counts: Scores of each message. Shape (M,), sum R.
        scores: NaN where there is none. Shape (R,).
        schema_id: Registry id of the ScoreBatch schema.

    Returns:
        M payloads, in order.

    Raises:
        ContractError: The stamp does not fit the schema.
        ValueError: `counts` and `scores` disagree.
    """
    prefix = confluent_header(schema_id) + _stamp_bytes(stamp)
    counts = np.asarray(counts, np.int64)
    if int(counts.sum()) != scores.size:
        raise ValueError(f"{scores.size} scores for {int(counts.sum())} readings")
    if counts.size == 0:
        return []
    places, fields = (
        [LongField(column) for column in group]
        for group in ((input_partition, input_offset), (boot_id, seq, event_time_ms))
    )
    count = LongField(counts)
    id_bytes = np.fromiter(map(len, vehicle_ids), np.int64, len(vehicle_ids))
    id_length = LongField(id_bytes)
    sizes = FLOAT_BYTES * counts + (counts > 0) + id_bytes + len(prefix) + 1
    for field in (*places, id_length, *fields, count):
        sizes += field.width
    writer = RecordWriter(sizes)
    writer.skip(len(prefix))
    for field in (*places, id_length):
        writer.long(field)
    id_at = writer.skip(id_bytes)
    for field in fields:
        writer.long(field)
    writer.boolean(late)
    writer.long(count)
    writer.floats[spans(writer.at, counts, FLOAT_BYTES)] = scores
    put_strings(writer.octets, id_at, vehicle_ids, id_bytes)
    return writer.cut(prefix)


_REST = {
    "input_partition": 0,
    "input_offset": 0,
    "vehicle_id": "",
    "boot_id": 0,
    "seq": 0,
    "event_time": 0,
    "late": False,
    "scores": [],
}


def _stamp_bytes(stamp: ScoreStamp) -> bytes:
    """The fields of a ScoreBatch that a poll has in common; they are its first."""
    record = {
        "origin": stamp.origin,
        "model_name": stamp.model_name,
        "model_version": stamp.model_version,
        "model_sha256": stamp.model_sha256,
        "arm": stamp.arm,
        "threshold": stamp.threshold,
        "input_topic": stamp.input_topic,
        "score_time": stamp.score_time_ms,
    }
    # Each field of the rest is one byte of zero.
    return encode_body("ScoreBatch", record | _REST)[: -len(_REST)]
