"""A poll of telemetry payloads into columns. Hot: everything here works on arrays.

Array code vouches for what it understands in full (`schemas.heads`, `schemas.layout`,
`schemas.walk`); every other payload, good or bad, goes to `schemas.telemetry_record`, which is
the authority: the result is the same as if all had gone there.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from schemas.columns import MAX_PAYLOAD_BYTES, MAX_READINGS, Framing, Rejected, TelemetryColumns
from schemas.errors import ContractError
from schemas.heads import Heads, read_heads
from schemas.layout import begin_with, decode_alike, layout_at
from schemas.poll import Batches, Bools, Longs, Poll, Readings, join, spans, strings
from schemas.records import Record
from schemas.signals import SIGNAL_NAMES
from schemas.telemetry_record import Reception, decode_record, frame
from schemas.walk import decode_mixed

FEW_PAYLOADS = 8
FEW_BYTES = 1_000
"""A poll within both is decoded one by one: the fixed cost of the arrays is some 0.4 ms."""

LAYOUTS_MAX = 32
"""Layouts looked for in one poll; batches of further ones are walked in step."""


def decode_telemetry(
    payloads: Sequence[bytes],
    *,
    framing: Framing,
    schema_id: int | None = None,
    schema_ids: Mapping[int, str] | None = None,
    signals: Sequence[str] = SIGNAL_NAMES,
    max_bytes: int = MAX_PAYLOAD_BYTES,
    max_readings: int = MAX_READINGS,
) -> TelemetryColumns:
    """Decode a whole poll of TelemetryBatch payloads.

    A payload that breaks the contract is rejected whole and takes nothing else with it. Memory:
    one copy of the payloads, and `8 + 4 * len(signals)` bytes a reading.

    Args:
        payloads: N of them, as received.
        framing: What stands before each body.
        schema_id: Registry id of the current schema; only for CONFLUENT.
        schema_ids: Registry ids of older schemas, to the release that each is of (a folder of
            `schemas/released`); only for CONFLUENT. Single-object encoding needs none: the
            fingerprints of all releases are known.
        signals: Names of the columns wanted, without repeats.
        max_bytes: A larger payload is OVERSIZED, frame included.
        max_readings: A batch of more is OVERSIZED.

    Returns:
        The good messages as columns, in the order of the input, and the rejected.

    Raises:
        ValueError: CONFLUENT without a `schema_id`, or an unknown or repeated signal.
    """
    expected = frame(framing, schema_id)
    wanted = _wanted(signals)
    reception = Reception(framing, schema_id, schema_ids, max_bytes, max_readings)
    if len(payloads) <= FEW_PAYLOADS and sum(map(len, payloads)) <= FEW_BYTES:
        return _decode_each(payloads, range(len(payloads)), reception, tuple(signals))
    poll = join(payloads, max_bytes)
    heads = read_heads(poll, expected, max_readings)
    columns, doubtful = _decode_plain(poll, heads, wanted, tuple(signals))
    if doubtful.size == 0:
        return columns
    return _merge(columns, _decode_each(payloads, doubtful.tolist(), reception, tuple(signals)))


def _wanted(signals: Sequence[str]) -> dict[int, int]:
    """Number of each signal in the schema to its number among those wanted."""
    unknown = sorted(set(signals) - set(SIGNAL_NAMES))
    if unknown or len(set(signals)) != len(signals):
        raise ValueError(f"signals must be known and not repeat; unknown: {unknown}")
    return {SIGNAL_NAMES.index(name): column for column, name in enumerate(signals)}


def _decode_plain(
    poll: Poll, heads: Heads, wanted: dict[int, int], signals: tuple[str, ...]
) -> tuple[TelemetryColumns, Longs]:
    """Decode what the array code understands; the rest is returned by number."""
    index = np.flatnonzero(heads.good)
    counts = heads.counts[index]
    starts = np.cumsum(counts) - counts
    total = int(counts.sum())
    out = Readings(
        event_time_ms=np.empty(total, np.int64),
        values=np.full((len(signals), total), np.nan, np.float32),
        wanted=wanted,
    )
    good = _decode_readings(poll, Batches(heads.at[index], heads.end[index], counts, starts), out)
    columns = TelemetryColumns(
        index=index,
        vehicle_ids=strings(poll.octets, heads.id_at[index], heads.id_bytes[index]),
        boot_id=heads.boot_id[index],
        seq=heads.seq[index],
        oldest_seq=heads.oldest_seq[index],
        uptime_ms=heads.uptime_ms[index],
        clock_synced=heads.clock_synced[index],
        counts=counts,
        starts=starts,
        event_time_ms=out.event_time_ms,
        values=out.values.T,
        signals=signals,
        rejected=[],
    )
    if good.all():
        return columns, np.flatnonzero(~heads.good)
    understood = heads.good.copy()
    understood[index[~good]] = False
    return _take(columns, np.flatnonzero(good)), np.flatnonzero(~understood)


def _decode_readings(poll: Poll, batches: Batches, out: Readings) -> Bools:
    """Decode the readings of batches; say which batches are sound. Shape (K,)."""
    good = np.zeros(batches.at.size, np.bool_)
    pending = np.arange(batches.at.size)
    for _ in range(LAYOUTS_MAX):
        if pending.size == 0:
            break
        layout = layout_at(poll.octets, int(batches.at[pending[0]]))
        if layout is None:
            pending = pending[1:]
            continue
        alike = begin_with(layout, poll, batches.some(pending))
        chosen = pending[alike]
        good[chosen] = decode_alike(layout, poll, batches.some(chosen), out)
        alike[0] = True
        pending = pending[~alike]
    rest = np.flatnonzero(~good)
    good[rest] = decode_mixed(poll, batches.some(rest), out)
    return good


def _decode_each(
    payloads: Sequence[bytes],
    numbers: Iterable[int],
    reception: Reception,
    signals: tuple[str, ...],
) -> TelemetryColumns:
    """Decode some payloads one by one."""
    index: list[int] = []
    records: list[Record] = []
    rejected: list[Rejected] = []
    for number in numbers:
        try:
            records.append(decode_record(bytes(payloads[number]), reception))
            index.append(number)
        except ContractError as error:
            rejected.append(Rejected(number, error))
    columns = _from_records(records, signals)
    columns.index = np.array(index, np.int64)
    columns.rejected = rejected
    return columns


def _from_records(records: list[Record], signals: tuple[str, ...]) -> TelemetryColumns:
    def longs(field: str) -> Longs:
        return np.array([record[field] for record in records], np.int64)

    readings = [reading for record in records for reading in record["readings"]]
    counts = np.array([len(record["readings"]) for record in records], np.int64)
    values = [[reading[name] for reading in readings] for name in signals]
    return TelemetryColumns(
        index=np.arange(len(records)),
        vehicle_ids=[record["vehicle_id"].encode("utf-8") for record in records],
        boot_id=longs("boot_id"),
        seq=longs("seq"),
        oldest_seq=longs("oldest_seq"),
        uptime_ms=longs("uptime_ms"),
        clock_synced=np.array([record["clock_synced"] for record in records], np.bool_),
        counts=counts,
        starts=np.cumsum(counts) - counts,
        event_time_ms=np.array([reading["event_time"] for reading in readings], np.int64),
        values=np.array(values, np.float32).reshape(len(signals), len(readings)).T,
        signals=signals,
        rejected=[],
    )


def _merge(some: TelemetryColumns, others: TelemetryColumns) -> TelemetryColumns:
    """Both, in the order of their index; the rejected are those of `others`."""
    if others.index.size == 0:
        some.rejected = others.rejected
        return some
    both = TelemetryColumns(
        index=np.concatenate([some.index, others.index]),
        vehicle_ids=some.vehicle_ids + others.vehicle_ids,
        boot_id=np.concatenate([some.boot_id, others.boot_id]),
        seq=np.concatenate([some.seq, others.seq]),
        oldest_seq=np.concatenate([some.oldest_seq, others.oldest_seq]),
        uptime_ms=np.concatenate([some.uptime_ms, others.uptime_ms]),
        clock_synced=np.concatenate([some.clock_synced, others.clock_synced]),
        counts=np.concatenate([some.counts, others.counts]),
        starts=np.concatenate([some.starts, others.starts + some.event_time_ms.size]),
        event_time_ms=np.concatenate([some.event_time_ms, others.event_time_ms]),
        values=np.concatenate([some.values.T, others.values.T], axis=1).T,
        signals=some.signals,
        rejected=others.rejected,
    )
    return _take(both, np.argsort(both.index))


def _take(columns: TelemetryColumns, order: Longs) -> TelemetryColumns:
    """Some of the messages, in an order; readings are copied to match."""
    counts = columns.counts[order]
    rows = spans(columns.starts[order], counts)
    return TelemetryColumns(
        index=columns.index[order],
        vehicle_ids=[columns.vehicle_ids[number] for number in order.tolist()],
        boot_id=columns.boot_id[order],
        seq=columns.seq[order],
        oldest_seq=columns.oldest_seq[order],
        uptime_ms=columns.uptime_ms[order],
        clock_synced=columns.clock_synced[order],
        counts=counts,
        starts=np.cumsum(counts) - counts,
        event_time_ms=columns.event_time_ms[rows],
        values=columns.values.T[:, rows].T,
        signals=columns.signals,
        rejected=columns.rejected,
    )
