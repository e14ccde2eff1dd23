"""The array codec of requests and responses is fastavro, only faster."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from request_wire import (
    SCHEMA_ID,
    Wire,
    assert_requests_same,
    assert_responses_same,
    by_record,
)

from schemas import prefixes, request_decode, response_decode, response_encode
from schemas.errors import ContractError, Reason
from schemas.records import confluent_header, decode_confluent, encode_body
from schemas.requests import (
    AnswerableError,
    Envelope,
    Scored,
    Verdict,
    decode_requests,
    decode_responses,
    encode_requests,
    encode_responses,
)

PATHS = {
    "as shipped": {},
    "arrays": {"FEW_PAYLOADS": -1},
    "arrays, one prefix": {"FEW_PAYLOADS": -1, "PREFIXES_MAX": 1},
    "arrays, floats one by one": {"FEW_PAYLOADS": -1, "LARGE_FLOATS": 0},
}
HOMES = {
    "FEW_PAYLOADS": (request_decode, response_decode),
    "PREFIXES_MAX": (prefixes,),
    "LARGE_FLOATS": (request_decode,),
}


@contextmanager
def path(name: str) -> Iterator[None]:
    """Send payloads down one path of the decoders."""
    with pytest.MonkeyPatch.context() as patch:
        for setting, value in PATHS[name].items():
            for home in HOMES[setting]:
                patch.setattr(home, setting, value)
        yield


TEXT = st.one_of(
    st.sampled_from(["", "anomaly", "model.responses", "ü", "x" * 128, "x" * 129]),
    st.text(st.characters(codec="utf-8"), max_size=20),
)
IDS = st.one_of(TEXT, st.integers(0, 10**9).map(lambda n: f"client-{n}"))
LONGS = st.one_of(
    st.integers(0, 2_000_000_000_000),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([0, -1, 253_402_300_799_999, 253_402_300_800_000]),
)
INTS = st.one_of(st.integers(-2, 5), st.integers(-(2**31), 2**31 - 1))
FLOATS = st.floats(width=32)


def wires(models: st.SearchStrategy[str] = TEXT) -> st.SearchStrategy[Wire]:
    return st.builds(
        Wire,
        model=models,
        version=TEXT,
        reply_topic=TEXT,
        reply_partition=INTS,
        reconstruction=st.booleans(),
        correlation_id=IDS,
        vehicle_id=IDS,
        deadline=LONGS,
        rows=INTS,
        features=st.lists(FLOATS, max_size=12),
    )


def likely() -> st.SearchStrategy[Wire]:
    """Requests most of which are good and alike."""
    return st.builds(
        lambda number, rows, values, version: Wire(
            version=version,
            correlation_id=f"c-{number}",
            vehicle_id=f"car-{number % 7}",
            deadline=number,
            rows=rows,
            features=(values * rows)[: rows * max(1, len(values))] or [0.0] * rows,
        ),
        st.integers(0, 10**6),
        st.integers(1, 3),
        st.lists(FLOATS, min_size=1, max_size=4),
        st.sampled_from(["", "1"]),
    )


@pytest.mark.parametrize("name", PATHS)
@given(requests=st.lists(st.one_of(wires(), likely()), max_size=16))
@settings(max_examples=60, deadline=None)
def test_requests_decode_as_by_fastavro(name: str, requests: list[Wire]) -> None:
    payloads = [each.payload() for each in requests]
    with path(name):
        assert_requests_same(payloads, decode_requests(payloads, schema_id=SCHEMA_ID))


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("seed", range(4))
def test_broken_requests_decode_as_by_fastavro(name: str, seed: int) -> None:
    seed += 1000 * int(os.environ.get("MOTORCADE_FUZZ_SEED", "0"))
    print(f"seed {seed}")
    rng = random.Random(seed)
    payloads = []
    for number in range(400):
        wire = Wire(
            version=rng.choice(["", "champion"]),
            correlation_id=f"c-{number}",
            deadline=rng.choice([0, 1_790_000_000_000]),
            features=[rng.gauss(0, 1) for _ in range(18)],
        )
        payloads.append(broken(rng, wire.payload()))
    with path(name):
        assert_requests_same(payloads, decode_requests(payloads, schema_id=SCHEMA_ID))


def broken(rng: random.Random, payload: bytes) -> bytes:
    """The payload, cut, with bytes changed, put in or taken out, or as it is."""
    kind = rng.randrange(5)
    at = rng.randrange(len(payload))
    if kind == 0:
        return payload[:at]
    if kind == 1:
        return payload[:at] + bytes([rng.randrange(256)]) + payload[at + 1 :]
    if kind == 2:
        return payload[:at] + rng.randbytes(rng.randrange(1, 4)) + payload[at:]
    if kind == 3:
        return payload[:at] + payload[at + rng.randrange(1, 4) :]
    return payload


def test_every_truncation_is_refused_and_takes_nothing_with_it() -> None:
    good = Wire(deadline=1_790_000_000_000, features=[1.0] * 18).payload()
    payloads = [each for cut in range(len(good)) for each in (good[:cut], good)]
    columns = decode_requests(payloads, schema_id=SCHEMA_ID)
    assert columns.index.tolist() == list(range(1, len(payloads), 2))
    assert_requests_same(payloads, columns)


@given(
    requests=st.lists(st.tuples(IDS, IDS, LONGS, st.integers(0, 3)), max_size=12),
    width=st.integers(1, 5),
    version=TEXT,
    reconstruction=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_requests_encode_as_by_fastavro(
    requests: list[tuple[str, str, int, int]], width: int, version: str, reconstruction: bool
) -> None:
    rows = np.array([each[3] for each in requests], np.int64)
    values = np.arange(rows.sum() * width, dtype=np.float32).reshape(-1, width)
    payloads = encode_requests(
        Envelope("anomaly", version, "replies", 3, reconstruction),
        correlation_ids=[each[0].encode() for each in requests],
        vehicle_ids=[each[1].encode() for each in requests],
        deadline_ms=np.array([each[2] for each in requests], np.int64),
        rows=rows,
        values=values,
        schema_id=SCHEMA_ID,
    )
    ends = np.cumsum(rows)
    expected = [
        Wire(
            version=version,
            reply_topic="replies",
            reply_partition=3,
            reconstruction=reconstruction,
            correlation_id=correlation_id,
            vehicle_id=vehicle_id,
            deadline=deadline,
            rows=count,
            features=values[end - count : end].reshape(-1).tolist(),
        ).payload()
        for (correlation_id, vehicle_id, deadline, count), end in zip(
            requests, ends.tolist(), strict=True
        )
    ]
    assert payloads == expected


@pytest.mark.parametrize("reconstruction", [False, True])
@given(
    responses=st.lists(st.tuples(IDS, st.integers(0, 3)), max_size=40),
    verdict=st.builds(Verdict, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT),
    times=st.tuples(LONGS, LONGS, LONGS),
)
@settings(max_examples=60, deadline=None)
def test_responses_encode_as_by_fastavro_and_decode_again(
    reconstruction: bool,
    responses: list[tuple[str, int]],
    verdict: Verdict,
    times: tuple[int, int, int],
) -> None:
    rows = np.array([each[1] for each in responses], np.int64)
    scores = np.arange(rows.sum(), dtype=np.float32)
    made = np.arange(2 * rows.sum(), dtype=np.float32).reshape(-1, 2)
    made = made if reconstruction else np.empty((0, 0), np.float32)
    ids = [each[0].encode() for each in responses]
    scored = Scored(verdict, ids, rows, scores, made, *times)
    payloads = encode_responses(scored, schema_id=SCHEMA_ID)
    for few in (0, 1000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(response_encode, "FEW_RESPONSES", few)
            assert encode_responses(scored, schema_id=SCHEMA_ID) == payloads
    ends = np.cumsum(rows).tolist()
    for (correlation_id, count), end, payload in zip(responses, ends, payloads, strict=True):
        record = vars_of(verdict) | {
            "correlation_id": correlation_id,
            "score_time": times[0],
            "queue_us": times[1],
            "compute_us": times[2],
            "scores": scores[end - count : end].tolist(),
            "reconstruction": made[end - count : end].reshape(-1).tolist(),
        }
        assert payload == confluent_header(SCHEMA_ID) + encode_body("ModelResponse", record)
    for name in PATHS:
        with path(name):
            assert_responses_same(payloads, decode_responses(payloads, schema_id=SCHEMA_ID))


def vars_of(verdict: Verdict) -> dict[str, object]:
    names = ("model", "version", "sha256", "arm", "reason", "error")
    return {name: getattr(verdict, name) for name in names}


@pytest.mark.parametrize("name", PATHS)
def test_broken_responses_decode_as_by_fastavro(name: str) -> None:
    seed = 1000 * int(os.environ.get("MOTORCADE_FUZZ_SEED", "0")) + 5
    print(f"seed {seed}")
    rng = random.Random(seed)
    scored = Scored(
        Verdict("anomaly", "1", "a" * 64, "champion"),
        [b"c-%d" % number for number in range(300)],
        np.ones(300, np.int64),
        np.arange(300, dtype=np.float32),
        np.ones((300, 3), np.float32),
        1_790_000_000_000,
        12,
        34,
    )
    payloads = [broken(rng, each) for each in encode_responses(scored, schema_id=SCHEMA_ID)]
    with path(name):
        assert_responses_same(payloads, decode_responses(payloads, schema_id=SCHEMA_ID))


def test_a_long_error_is_read_one_by_one() -> None:
    verdict = Verdict("anomaly", reason="malformed", error="x" * 5000)
    none = np.empty(0, np.float32)
    scored = Scored(
        verdict,
        [b"c-%d" % number for number in range(20)],
        np.zeros(20, np.int64),
        none,
        none.reshape(0, 0),
        1,
        2,
        3,
    )
    payloads = encode_responses(scored, schema_id=SCHEMA_ID)
    columns = decode_responses(payloads, schema_id=SCHEMA_ID)
    assert columns.verdicts == [verdict]
    assert_responses_same(payloads, columns)


def test_large_matrices_lie_together_and_are_not_copied_twice() -> None:
    values = np.arange(30_000, dtype=np.float32).reshape(-1, 10)
    payloads = encode_requests(
        Envelope("anomaly"),
        correlation_ids=[b"a", b"b", b"c"],
        vehicle_ids=[b"", b"", b""],
        deadline_ms=np.zeros(3, np.int64),
        rows=np.array([1500, 1000, 500]),
        values=values,
        schema_id=SCHEMA_ID,
    )
    columns = decode_requests(payloads, schema_id=SCHEMA_ID)
    matrix = columns.matrix(np.arange(3), 10)
    assert np.shares_memory(matrix, columns.values)
    np.testing.assert_array_equal(matrix, values)
    np.testing.assert_array_equal(
        columns.matrix(np.array([0, 2]), 10), values[[*range(1500), *range(2500, 3000)]]
    )


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        (Wire(rows=0), Reason.WRONG_SHAPE),
        (Wire(rows=3), Reason.WRONG_SHAPE),
        (Wire(features=[]), Reason.WRONG_SHAPE),
        (Wire(deadline=-1), Reason.OUT_OF_RANGE),
        (Wire(vehicle_id="x" * 129), Reason.IDENTITY),
    ],
)
def test_what_can_be_answered_says_where(wire: Wire, reason: Reason) -> None:
    error = by_record(wire.payload())
    assert isinstance(error, AnswerableError)
    assert (error.reason, error.correlation_id) == (reason, b"c-1")


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        (Wire(model="x" * 129), Reason.IDENTITY),
        (Wire(reply_topic="x" * 250), Reason.IDENTITY),
        (Wire(correlation_id="x" * 129), Reason.IDENTITY),
        (Wire(reply_partition=-2), Reason.OUT_OF_RANGE),
    ],
)
def test_what_cannot_be_answered_is_refused(wire: Wire, reason: Reason) -> None:
    error = by_record(wire.payload())
    assert isinstance(error, ContractError)
    assert not isinstance(error, AnswerableError)
    assert error.reason is reason


def test_foreign_and_oversized_payloads_are_refused() -> None:
    good = Wire().payload()
    payloads = [b"", b"\x01", b"\x00\x00", Wire().payload(8), bytes(2_000_000), good]
    columns = decode_requests(payloads, schema_id=SCHEMA_ID)
    reasons = [each.error.reason for each in columns.rejected]
    assert reasons == [
        Reason.NOT_AVRO,
        Reason.NOT_AVRO,
        Reason.TRUNCATED,
        Reason.UNKNOWN_SCHEMA_ID,
        Reason.OVERSIZED,
    ]
    assert columns.index.tolist() == [5]


def test_the_record_is_the_one_of_the_schema() -> None:
    record = decode_confluent("ModelRequest", SCHEMA_ID, Wire().payload())
    assert list(record)[:5] == [
        "model",
        "version",
        "reply_topic",
        "reply_partition",
        "reconstruction",
    ]
