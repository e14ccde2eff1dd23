"""Hostile bytes: both decoders refuse them in words, quickly, and in little memory.

Each run draws a seed of its own and prints it where a test fails; `MOTORCADE_FUZZ_SEED` repeats
a run.
"""

import os
import random
import struct
import tracemalloc
from collections.abc import Callable, Iterator

import pytest
from fastavro.utils import generate_one
from telemetry_wire import SCHEMA_ID, Batch, assert_same, framed, random_reading, varint

from schemas.codec import Framing, decode_telemetry
from schemas.errors import ContractError, Reason
from schemas.records import (
    NAMES,
    confluent_header,
    decode_body,
    decode_confluent,
    decode_single_object,
    encode_body,
    parsed_schema,
    single_object_header,
)
from schemas.signals import SIGNALS
from schemas.strict import check_body, walker
from schemas.telemetry_record import Reception

ROUNDS = 40
POLL = 60
RECORD_ROUNDS = 400
PEAK_BYTES_MAX = 4_000_000


@pytest.fixture
def rng() -> Iterator[random.Random]:
    seed = int(os.environ.get("MOTORCADE_FUZZ_SEED", random.SystemRandom().randrange(2**32)))
    print(f"MOTORCADE_FUZZ_SEED={seed}")
    yield random.Random(seed)


def cut(rng: random.Random, data: bytearray) -> None:
    del data[rng.randrange(len(data)) :]


def flip_bits(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def set_bytes(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(len(data))] = rng.choice([0, 1, 2, 3, 0x7F, 0x80, 0xFF])


def insert(rng: random.Random, data: bytearray) -> None:
    huge = varint(rng.choice([2**60, -(2**60), 2**31, -1, -(2**63), 2**63 - 1]))
    at = rng.randrange(len(data))
    data[at : at + rng.randrange(3)] = rng.choice([huge, rng.randbytes(4), b"\xff" * 12])


def repeat(rng: random.Random, data: bytearray) -> None:
    start = rng.randrange(len(data))
    data[start:start] = data[start : start + rng.randint(1, 200)]


MUTATIONS: tuple[Callable[[random.Random, bytearray], None], ...] = (
    cut,
    flip_bits,
    set_bytes,
    insert,
    repeat,
)


def mutated(rng: random.Random, payload: bytes) -> bytes:
    data = bytearray(payload)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
        if data:
            rng.choice(MUTATIONS)(rng, data)
    return bytes(data)


def random_payload(rng: random.Random, framing: Framing) -> bytes:
    masks = [rng.randrange(1 << len(SIGNALS)) for _ in range(rng.choice([1, 1, 2]))]
    rows = [random_reading(rng, rng.choice(masks)) for _ in range(rng.choice([1, 1, 2, 5]))]
    batch = Batch(b"vehicle-%d" % rng.randrange(10), seq=rng.randint(1, 200), readings=rows)
    return mutated(rng, framed(batch.body(), framing))


@pytest.mark.parametrize("framing", Framing)
def test_polls_of_hostile_payloads(framing: Framing, rng: random.Random) -> None:
    for _ in range(ROUNDS):
        payloads = [random_payload(rng, framing) for _ in range(POLL)]
        columns = decode_telemetry(payloads, framing=framing, schema_id=SCHEMA_ID)
        assert len(columns.index) + len(columns.rejected) == POLL
        assert_same(columns, payloads, Reception(framing, SCHEMA_ID))


@pytest.mark.parametrize("name", NAMES)
def test_hostile_records(name: str, rng: random.Random) -> None:
    for _ in range(RECORD_ROUNDS):
        body = encode_body(name, dict(generate_one(parsed_schema(name))))
        decode_or_refuse(decode_body, name, mutated(rng, body))
        decode_or_refuse(
            decode_single_object, name, mutated(rng, single_object_header(name) + body)
        )
        decode_or_refuse(
            lambda of, payload: decode_confluent(of, SCHEMA_ID, payload),
            name,
            mutated(rng, confluent_header(SCHEMA_ID) + body),
        )


def decode_or_refuse(decode: Callable[[str, bytes], object], name: str, payload: bytes) -> None:
    try:
        decode(name, payload)
    except ContractError as error:
        assert isinstance(error.reason, Reason)


HEAD = varint(1) + b"v" + varint(1) * 4 + b"\1"
NULLS = varint(0) + bytes(len(SIGNALS))
GIANTS = {
    "readings": HEAD + varint(2**60),
    "readings in a sized block": HEAD + varint(-(2**60)) + varint(2**60),
    "least count": HEAD + varint(-(2**63)) + varint(0) + b"\0",
    "length of the id": varint(2**62) + b"v",
    "negative length of the id": varint(-(2**62)) + b"v",
    "more readings than bytes": HEAD + varint(1000) + NULLS * 3,
    "a varint without end": b"\xff" * 100_000,
    "many small blocks": HEAD + (varint(1) + NULLS) * 3000 + b"\1",
    "a block shorter than it says": HEAD + varint(-1) + varint(99) + NULLS + b"\0",
}


@pytest.mark.parametrize("body", GIANTS.values(), ids=GIANTS.keys())
@pytest.mark.parametrize("count", [1, 20])
def test_giant_claims_cost_nothing(body: bytes, count: int) -> None:
    tracemalloc.start()
    try:
        columns = decode_telemetry([body] * count, framing=Framing.NONE)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert {rejected.error.reason for rejected in columns.rejected} <= {
        Reason.TRUNCATED,
        Reason.MALFORMED,
    }
    assert len(columns.rejected) == count
    assert peak < PEAK_BYTES_MAX


def test_giant_claims_in_records() -> None:
    ack = varint(1) + b"g" + varint(1) * 2
    for body in (ack + varint(2**60), ack + varint(-(2**60)) + varint(2), varint(2**62) + b"g"):
        with pytest.raises(ContractError):
            decode_body("Ack", body)


def test_items_that_take_no_bytes_are_not_counted_out() -> None:
    walk = walker('{"type": "array", "items": "null"}')
    with pytest.raises(ContractError):
        check_body(walk, varint(2**60) + b"\0")


STRICT = {
    "branch -1 of a union": (HEAD + varint(1) + varint(0) + b"\1" + bytes(28) + b"\0"),
    "branch 2 of a union": (HEAD + varint(1) + varint(0) + b"\4" + bytes(28) + b"\0"),
    "a boolean of 2": (HEAD[:-1] + b"\2" + varint(1) + NULLS + b"\0"),
    "65 bits": (varint(1) + b"v" + b"\x80" * 9 + b"\2" + varint(1) * 3 + b"\1\2" + NULLS + b"\0"),
    "eleven bytes": (varint(1) + b"v" + b"\x82" + b"\x80" * 9 + b"\0" + varint(1) * 3 + b"\1\0"),
    "an id that is not UTF-8": (varint(1) + b"\xff" + HEAD[2:] + varint(1) + NULLS + b"\0"),
    "bytes behind the end": (HEAD + varint(1) + NULLS + b"\0\0"),
}


@pytest.mark.parametrize("body", STRICT.values(), ids=STRICT.keys())
@pytest.mark.parametrize("count", [1, 100])
def test_what_other_readers_would_refuse_is_refused(body: bytes, count: int) -> None:
    columns = decode_telemetry([body] * count, framing=Framing.NONE)
    assert [bad.error.reason for bad in columns.rejected] == [Reason.MALFORMED] * count


SOUND = HEAD + varint(1) + varint(0) + b"\2" + struct.pack("<f", 50.0) + bytes(28) + b"\0"
SIGNALLING_NAN = struct.pack("<I", 0x7FA00000)
REASONS = {
    Reason.OVERSIZED: SOUND + bytes(300_000),
    Reason.TRUNCATED: SOUND[:-1],
    Reason.MALFORMED: SOUND + b"\0",
    Reason.OUT_OF_RANGE: SOUND.replace(struct.pack("<f", 50.0), struct.pack("<f", 301.0)),
    Reason.NOT_FINITE: SOUND.replace(struct.pack("<f", 50.0), SIGNALLING_NAN),
    Reason.IDENTITY: SOUND.replace(b"v", b"+", 1),
}


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("others", [0, 200])
def test_each_reason_and_nothing_else_lost(reason: Reason, others: int) -> None:
    payloads = [SOUND] * others + [REASONS[reason]]
    columns = decode_telemetry(payloads, framing=Framing.NONE, signals=["maf"])
    assert [(bad.index, bad.error.reason) for bad in columns.rejected] == [(others, reason)]
    assert len(columns.index) == others


def test_frames() -> None:
    def reasons(payload: bytes, framing: Framing) -> list[Reason]:
        columns = decode_telemetry([payload], framing=framing, schema_id=SCHEMA_ID)
        return [rejected.error.reason for rejected in columns.rejected]

    single = single_object_header("TelemetryBatch")
    assert reasons(single + SOUND, Framing.SINGLE_OBJECT) == []
    assert reasons(b"", Framing.SINGLE_OBJECT) == [Reason.NOT_AVRO]
    assert reasons(b'{"speed": 5}', Framing.SINGLE_OBJECT) == [Reason.NOT_AVRO]
    assert reasons(single[:9], Framing.SINGLE_OBJECT) == [Reason.TRUNCATED]
    assert reasons(single, Framing.SINGLE_OBJECT) == [Reason.TRUNCATED]
    other = single_object_header("Ack") + SOUND
    assert reasons(other, Framing.SINGLE_OBJECT) == [Reason.UNKNOWN_FINGERPRINT]
    assert reasons(confluent_header(SCHEMA_ID) + SOUND, Framing.CONFLUENT) == []
    assert reasons(confluent_header(8) + SOUND, Framing.CONFLUENT) == [Reason.UNKNOWN_SCHEMA_ID]
    assert reasons(b"\0\0", Framing.CONFLUENT) == [Reason.TRUNCATED]
    assert reasons(b"", Framing.CONFLUENT) == [Reason.NOT_AVRO]


def test_more_readings_than_allowed() -> None:
    body = HEAD + varint(3) + NULLS * 3 + b"\0"
    assert decode_telemetry([body], framing=Framing.NONE, max_readings=3).rejected == []
    (rejected,) = decode_telemetry([body], framing=Framing.NONE, max_readings=2).rejected
    assert rejected.error.reason is Reason.OVERSIZED
