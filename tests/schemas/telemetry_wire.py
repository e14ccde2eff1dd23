"""Telemetry bodies in every shape that an Avro writer may give them, and what they must mean."""

import io
import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import fastavro
import numpy as np

from schemas.codec import Framing, Rejected, TelemetryColumns
from schemas.errors import ContractError
from schemas.records import Record
from schemas.signals import SIGNALS
from schemas.telemetry_record import Reception, decode_record, frame
from schemas.versions import writer

SCHEMA_ID = 7
NOW_MS = 1_790_000_000_000


def varint(value: int, *, pad: int = 0) -> bytes:
    """A zigzag varint, with `pad` needless bytes, which Avro's readers accept."""
    coded = (value << 1) ^ (value >> 63)
    out = bytearray()
    while coded >= 0x80:
        out.append(coded & 0x7F | 0x80)
        coded >>= 7
    out.append(coded)
    for _ in range(pad):
        out[-1] |= 0x80
        out.append(0)
    return bytes(out)


@dataclass
class Reading:
    """One reading: its time, and the values that are there by number of the signal."""

    event_time_ms: int = NOW_MS
    values: dict[int, float] = field(default_factory=dict)

    def encode(self, pad: int = 0) -> bytes:
        parts = [varint(self.event_time_ms, pad=pad)]
        for number in range(len(SIGNALS)):
            value = self.values.get(number)
            parts.append(b"\0" if value is None else b"\2" + struct.pack("<f", value))
        return b"".join(parts)


@dataclass
class Batch:
    """One batch, and how its writer puts it on the wire."""

    vehicle_id: bytes = b"vehicle-1"
    boot_id: int = 1
    seq: int = 1
    oldest_seq: int = 1
    uptime_ms: int = 0
    clock_synced: bool = True
    readings: list[Reading] = field(default_factory=lambda: [Reading()])
    block_max: int = 10_000
    sized_blocks: bool = False
    pad: int = 0

    def body(self) -> bytes:
        numbers = (len(self.vehicle_id), self.boot_id, self.seq, self.oldest_seq, self.uptime_ms)
        coded = [varint(number, pad=self.pad) for number in numbers]
        head = coded[0] + self.vehicle_id + b"".join(coded[1:])
        return head + bytes([self.clock_synced]) + self._blocks() + b"\0"

    def _blocks(self) -> bytes:
        out = []
        for start in range(0, len(self.readings), self.block_max):
            block = self.readings[start : start + self.block_max]
            items = b"".join(reading.encode(self.pad) for reading in block)
            if self.sized_blocks:
                out.append(varint(-len(block)) + varint(len(items)) + items)
            else:
                out.append(varint(len(block), pad=self.pad) + items)
        return b"".join(out)


def framed(body: bytes, framing: Framing) -> bytes:
    return frame(framing, SCHEMA_ID) + body


def random_value(rng: random.Random, number: int) -> float:
    """A value in the range of the signal that a float holds exactly."""
    signal = SIGNALS[number]
    value = np.float32(rng.uniform(signal.minimum, signal.maximum))
    return float(np.clip(value, signal.minimum, signal.maximum))


def random_reading(rng: random.Random, present: int, event_time_ms: int = NOW_MS) -> Reading:
    """A reading with the signals of a bit mask."""
    numbers = [number for number in range(len(SIGNALS)) if present >> number & 1]
    return Reading(event_time_ms, {number: random_value(rng, number) for number in numbers})


def by_fastavro(body: bytes) -> Record:
    """What fastavro alone makes of a body."""
    record: Any = fastavro.schemaless_reader(io.BytesIO(body), writer(None).schema, None)
    return dict(record)


def one_by_one(
    payloads: Sequence[bytes], reception: Reception
) -> tuple[list[tuple[int, Record]], list[tuple[int, ContractError]]]:
    """The verdict of the record-at-a-time decoder on each payload."""
    good, bad = [], []
    for number, payload in enumerate(payloads):
        try:
            good.append((number, decode_record(payload, reception)))
        except ContractError as error:
            bad.append((number, error))
    return good, bad


def assert_same(columns: TelemetryColumns, payloads: Sequence[bytes], reception: Reception) -> None:
    """Check decoded columns, value for value, against decoding one by one."""
    good, bad = one_by_one(payloads, reception)
    assert [(r.index, r.error.reason, r.error.detail) for r in columns.rejected] == [
        (number, error.reason, error.detail) for number, error in bad
    ]
    assert all(isinstance(rejected, Rejected) for rejected in columns.rejected)
    assert columns.index.tolist() == [number for number, _ in good]
    records = [record for _, record in good]
    assert columns.vehicle_ids == [record["vehicle_id"].encode() for record in records]
    for name in ("boot_id", "seq", "oldest_seq", "uptime_ms", "clock_synced"):
        assert getattr(columns, name).tolist() == [record[name] for record in records]
    assert_readings_same(columns, [record["readings"] for record in records])
    assert_kinds(columns)


def assert_readings_same(columns: TelemetryColumns, batches: list[list[Record]]) -> None:
    counts = [len(readings) for readings in batches]
    assert columns.counts.tolist() == counts
    assert columns.starts.tolist() == [sum(counts[:number]) for number in range(len(counts))]
    rows = [reading for readings in batches for reading in readings]
    assert columns.event_time_ms.tolist() == [row["event_time"] for row in rows]
    expected = np.array(
        [[np.nan if row[name] is None else row[name] for name in columns.signals] for row in rows],
        np.float32,
    ).reshape(len(rows), len(columns.signals))
    # Bit by bit, so that -0.0 is not 0.0.
    assert (np.isnan(expected) == np.isnan(columns.values)).all()
    there = ~np.isnan(expected)
    assert expected[there].tobytes() == columns.values[there].tobytes()


def assert_kinds(columns: TelemetryColumns) -> None:
    for name in ("index", "boot_id", "seq", "oldest_seq", "uptime_ms", "counts", "starts"):
        assert getattr(columns, name).dtype == np.int64, name
        assert getattr(columns, name).shape == (len(columns.vehicle_ids),), name
    assert columns.clock_synced.dtype == np.bool_
    assert columns.event_time_ms.dtype == np.int64
    assert columns.values.dtype == np.float32
    assert columns.values.shape == (columns.event_time_ms.size, len(columns.signals))
