"""The array codec is fastavro, only faster: on every input, by every one of its paths."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from telemetry_wire import (
    NOW_MS,
    SCHEMA_ID,
    Batch,
    Reading,
    assert_same,
    by_fastavro,
    framed,
    random_reading,
)

from schemas import decode, layout, walk
from schemas.codec import (
    EVENT_TIME_MS_MAX,
    EVENT_TIME_MS_MIN,
    UPTIME_MS_MAX,
    Framing,
    ScoreStamp,
    TelemetryColumns,
    decode_telemetry,
    encode_scores,
    encode_telemetry,
)
from schemas.errors import Reason
from schemas.records import decode_confluent, encode_body
from schemas.signals import SIGNAL_NAMES, SIGNALS
from schemas.telemetry_record import Reception

ALL_PRESENT = (1 << len(SIGNALS)) - 1
PATHS = {
    "as shipped": {},
    "layouts only": {"FEW_PAYLOADS": -1, "LAYOUTS_MAX": 1000, "WALK_MIN": 1 << 40, "CHUNK_ROWS": 3},
    "walk only": {"FEW_PAYLOADS": -1, "LAYOUTS_MAX": 0, "WALK_MIN": 1},
    "few layouts, then walk": {
        "FEW_PAYLOADS": -1,
        "LAYOUTS_MAX": 1,
        "WALK_MIN": 2,
        "CHUNK_ROWS": 2,
    },
}
HOMES = {"FEW_PAYLOADS": decode, "LAYOUTS_MAX": decode, "WALK_MIN": walk, "CHUNK_ROWS": layout}


@contextmanager
def path(name: str) -> Iterator[None]:
    """Send batches down one path of the decoder."""
    with pytest.MonkeyPatch.context() as patch:
        for setting, value in PATHS[name].items():
            patch.setattr(HOMES[setting], setting, value)
        yield


LONGS = st.one_of(
    st.integers(0, 300),
    st.integers(0, 2**63 - 1),
    st.sampled_from([2**k + d for k in (6, 13, 20, 27, 34, 41, 48, 55, 62) for d in (-1, 0)]),
)
ODD_LONGS = st.integers(-(2**63), 2**63 - 1)
TIMES = st.one_of(
    st.integers(NOW_MS - 10**6, NOW_MS + 10**6),
    st.integers(-100, 100),
    st.integers(EVENT_TIME_MS_MIN, EVENT_TIME_MS_MAX),
    st.sampled_from([EVENT_TIME_MS_MIN - 1, EVENT_TIME_MS_MAX + 1, 2**63 - 1, -(2**63)]),
)
GOOD_IDS = st.one_of(
    st.integers(0, 10**9).map(lambda n: f"vehicle-{n}".encode()),
    st.text(st.characters(exclude_characters="/+#\0", codec="utf-8"), min_size=1, max_size=32).map(
        str.encode
    ),
    st.integers(1, 130).map(lambda n: b"x" * n),
)
ODD_IDS = st.one_of(GOOD_IDS, st.binary(max_size=12), st.sampled_from([b"", b"a/b", b"a\0"]))
ODD_FLOATS = st.sampled_from([float("nan"), float("inf"), float("-inf"), 3e38, -3e38, 1e-45, -0.0])
PRESENCE = st.one_of(st.sampled_from([0, ALL_PRESENT, 0x155]), st.integers(0, ALL_PRESENT))


@st.composite
def readings(draw: st.DrawFn, *, odd: bool) -> list[Reading]:
    """Readings of a batch: alike, or each with other signals and another width of time."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    count = draw(st.integers(0 if odd else 1, 6))
    present = draw(st.lists(PRESENCE, min_size=1, max_size=3))
    start = draw(TIMES if odd else st.integers(EVENT_TIME_MS_MIN, EVENT_TIME_MS_MAX - 10**4))
    out = [random_reading(rng, rng.choice(present), start + 1000 * i) for i in range(count)]
    for reading in out if odd else []:
        reading.event_time_ms = min(reading.event_time_ms, 2**63 - 1)
    if odd and out and draw(st.integers(0, 4)) == 0:
        rng.choice(out).values[rng.randrange(len(SIGNALS))] = draw(ODD_FLOATS)
    return out


@st.composite
def batches(draw: st.DrawFn, *, odd: bool) -> Batch:
    seq = draw(st.integers(1, 2**63 - 1))
    odd_numbers = odd and draw(st.integers(0, 9)) == 0

    def number(usual: st.SearchStrategy[int]) -> int:
        return draw(ODD_LONGS if odd_numbers else usual)

    return Batch(
        vehicle_id=draw(ODD_IDS if odd else GOOD_IDS.filter(lambda item: len(item) <= 128)),
        boot_id=number(LONGS),
        seq=number(st.just(seq)),
        oldest_seq=number(st.integers(1, seq)),
        uptime_ms=number(st.integers(0, UPTIME_MS_MAX)),
        clock_synced=draw(st.booleans()),
        readings=draw(readings(odd=odd)),
        block_max=draw(st.sampled_from([10_000, 10_000, 1, 2])) if odd else 10_000,
        sized_blocks=odd and draw(st.integers(0, 9)) == 0,
        pad=draw(st.sampled_from([0, 0, 0, 1, 3])) if odd else 0,
    )


@st.composite
def corrupted(draw: st.DrawFn, payload: bytes) -> bytes:
    """The payload, cut, lengthened, or with some bytes changed; or as it was."""
    kind = draw(st.sampled_from(["whole", "whole", "cut", "longer", "flip", "other"]))
    if kind == "cut":
        return payload[: draw(st.integers(0, len(payload)))]
    if kind == "longer":
        return payload + draw(st.binary(min_size=1, max_size=4))
    if kind == "flip":
        changed = bytearray(payload)
        for at in draw(st.lists(st.integers(0, len(payload) - 1), min_size=1, max_size=3)):
            changed[at] ^= draw(st.integers(1, 255))
        return bytes(changed)
    return draw(st.binary(max_size=64)) if kind == "other" else payload


@st.composite
def polls(draw: st.DrawFn) -> tuple[Framing, list[bytes]]:
    """Good and bad payloads, in any order, some of them more than once."""
    framing = draw(st.sampled_from(list(Framing)))
    some = draw(st.lists(batches(odd=True), max_size=6))
    payloads = [draw(corrupted(framed(batch.body(), framing))) for batch in some]
    again = draw(st.lists(st.integers(0, 5), max_size=6))
    return framing, payloads + [payloads[i % len(payloads)] for i in again if payloads]


@pytest.mark.parametrize("route", PATHS)
@settings(max_examples=150, deadline=None)
@given(poll=polls(), signals=st.lists(st.sampled_from(SIGNAL_NAMES), unique=True))
def test_a_poll_is_what_its_payloads_are(
    route: str, poll: tuple[Framing, list[bytes]], signals: list[str]
) -> None:
    framing, payloads = poll
    with path(route):
        columns = decode_telemetry(
            payloads, framing=framing, schema_id=SCHEMA_ID, signals=signals, max_readings=5
        )
    assert columns.signals == tuple(signals)
    assert_same(columns, payloads, Reception(framing, SCHEMA_ID, readings_max=5))


@settings(max_examples=100, deadline=None)
@given(batch=batches(odd=True), framing=st.sampled_from(list(Framing)))
def test_what_is_accepted_is_what_fastavro_reads(batch: Batch, framing: Framing) -> None:
    columns = decode_telemetry([framed(batch.body(), framing)], framing=framing, schema_id=7)
    if columns.rejected:
        return
    record = by_fastavro(batch.body())
    assert columns.vehicle_ids == [record["vehicle_id"].encode()]
    assert columns.seq.tolist() == [record["seq"]]
    for row, reading in enumerate(record["readings"]):
        expected = [reading[name] for name in SIGNAL_NAMES]
        found = [None if np.isnan(value) else value for value in columns.values[row].tolist()]
        assert found == expected


def encode(columns: TelemetryColumns, framing: Framing) -> list[bytes]:
    return encode_telemetry(
        columns.vehicle_ids,
        columns.boot_id,
        columns.seq,
        columns.oldest_seq,
        columns.uptime_ms,
        columns.clock_synced,
        columns.counts,
        columns.event_time_ms,
        columns.values,
        signals=columns.signals,
        framing=framing,
        schema_id=SCHEMA_ID,
    )


@pytest.mark.parametrize("route", PATHS)
@settings(max_examples=100, deadline=None)
@given(sound=st.lists(batches(odd=False), max_size=8), framing=st.sampled_from(list(Framing)))
def test_round_trip(route: str, sound: list[Batch], framing: Framing) -> None:
    payloads = [framed(batch.body(), framing) for batch in sound]
    with path(route):
        columns = decode_telemetry(payloads, framing=framing, schema_id=SCHEMA_ID)
    assert columns.rejected == []
    assert encode(columns, framing) == payloads


@settings(max_examples=50, deadline=None)
@given(batch=batches(odd=False))
def test_encoded_as_fastavro_does(batch: Batch) -> None:
    columns = decode_telemetry([batch.body()], framing=Framing.NONE)
    record = by_fastavro(batch.body())
    assert encode(columns, Framing.NONE) == [encode_body("TelemetryBatch", record)]


def test_signals_that_are_not_given_are_null() -> None:
    one = np.array([1])
    (payload,) = encode_telemetry(
        [b"v"],
        one,
        one,
        one,
        one,
        np.array([True]),
        np.array([2]),
        np.array([NOW_MS, NOW_MS + 1]),
        np.array([[50.0, 2000.0], [51.0, np.nan]], np.float32),
        signals=["speed", "engine_speed"],
        framing=Framing.NONE,
    )
    first, second = by_fastavro(payload)["readings"]
    assert {name: value for name, value in first.items() if value is not None} == {
        "event_time": NOW_MS,
        "speed": 50.0,
        "engine_speed": 2000.0,
    }
    assert second["speed"] == 51.0
    assert second["engine_speed"] is None


def plain_poll(messages: int, count: int, *, layouts: int) -> list[bytes]:
    rng = random.Random(1)
    masks = [rng.randrange(1, ALL_PRESENT) for _ in range(layouts)]
    out = []
    for number in range(messages):
        mask = masks[number % layouts]
        rows = [random_reading(rng, mask, NOW_MS + i) for i in range(count)]
        out.append(Batch(f"vehicle-{number}".encode(), seq=number + 1, readings=rows).body())
    return out


@pytest.mark.parametrize(("count", "layouts"), [(1, 1), (1, 9), (1, 300), (10, 3), (10, 300)])
def test_usual_polls_are_left_to_the_arrays(
    count: int, layouts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    payloads = plain_poll(300, count, layouts=layouts)
    reference = decode_telemetry(payloads, framing=Framing.NONE)
    assert_same(reference, payloads, Reception(Framing.NONE))
    monkeypatch.delattr(decode, "decode_record")
    assert len(decode_telemetry(payloads, framing=Framing.NONE).index) == 300


def test_batches_of_changing_layout_are_left_to_the_arrays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = random.Random(2)
    payloads = [
        Batch(readings=[random_reading(rng, rng.randrange(ALL_PRESENT)) for _ in range(7)]).body()
        for _ in range(100)
    ]
    assert_same(decode_telemetry(payloads, framing=Framing.NONE), payloads, Reception(Framing.NONE))
    monkeypatch.delattr(decode, "decode_record")
    decode_telemetry(payloads, framing=Framing.NONE)


def test_large_polls_with_bad_ones_among_them() -> None:
    payloads = plain_poll(500, 3, layouts=5)
    payloads[7] = b""
    payloads[100] = payloads[100][:-1]
    payloads[101] = Batch(readings=[Reading(NOW_MS, {0: 1e9})]).body()
    payloads[102] = Batch(sized_blocks=True).body()
    payloads[499] = Batch(b"a/b").body()
    columns = decode_telemetry(payloads, framing=Framing.NONE)
    assert [rejected.index for rejected in columns.rejected] == [7, 100, 101, 499]
    assert_same(columns, payloads, Reception(Framing.NONE))


EDGES = {
    "first time": (Batch(readings=[Reading(EVENT_TIME_MS_MIN)]).body(), None),
    "last time": (Batch(readings=[Reading(EVENT_TIME_MS_MAX)]).body(), None),
    "time too early": (
        Batch(readings=[Reading(EVENT_TIME_MS_MIN - 1)]).body(),
        Reason.OUT_OF_RANGE,
    ),
    "time too late": (
        Batch(readings=[Reading(EVENT_TIME_MS_MAX + 1)]).body(),
        Reason.OUT_OF_RANGE,
    ),
    "longest uptime": (Batch(uptime_ms=UPTIME_MS_MAX).body(), None),
    "uptime too long": (Batch(uptime_ms=UPTIME_MS_MAX + 1).body(), Reason.OUT_OF_RANGE),
    "negative uptime": (Batch(uptime_ms=-1).body(), Reason.OUT_OF_RANGE),
    "negative boot": (Batch(boot_id=-1).body(), Reason.IDENTITY),
    "seq 0": (Batch(seq=0, oldest_seq=0).body(), Reason.IDENTITY),
    "oldest_seq is seq": (Batch(seq=5, oldest_seq=5).body(), None),
    "oldest_seq above seq": (Batch(seq=5, oldest_seq=6).body(), Reason.IDENTITY),
    "oldest_seq 0": (Batch(seq=5, oldest_seq=0).body(), Reason.IDENTITY),
    "no readings": (Batch(readings=[]).body(), Reason.IDENTITY),
    "longest id": (Batch(b"x" * 128).body(), None),
    "id too long": (Batch(b"x" * 129).body(), Reason.IDENTITY),
    "id that is not ASCII": (Batch("Kübelwagen".encode()).body(), None),
    "highest speed": (Batch(readings=[Reading(values={0: 300.0})]).body(), None),
    "lowest speed": (Batch(readings=[Reading(values={0: -0.0})]).body(), None),
    "speed too high": (
        Batch(readings=[Reading(values={0: 300.00003})]).body(),
        Reason.OUT_OF_RANGE,
    ),
    "branch 1": (Batch().body()[:-2] + b"\1\0", Reason.MALFORMED),
    "branch 2": (Batch().body()[:-2] + b"\4\0", Reason.MALFORMED),
    "another block": (Batch(readings=[Reading(), Reading()], block_max=1).body(), None),
    "second reading in another layout": (
        Batch(readings=[Reading(), Reading(values={3: 1.0})]).body(),
        None,
    ),
    "same length in another layout": (
        Batch(readings=[Reading(values={2: 1.0}), Reading(values={3: 1.0})]).body(),
        None,
    ),
}


@pytest.mark.parametrize("route", PATHS)
@pytest.mark.parametrize(("body", "reason"), EDGES.values(), ids=EDGES.keys())
def test_edges_of_the_contract(route: str, body: bytes, reason: Reason | None) -> None:
    payloads = [Batch().body(), body] * 50
    with path(route):
        columns = decode_telemetry(payloads, framing=Framing.NONE)
    assert {rejected.error.reason for rejected in columns.rejected} == ({reason} - {None})
    assert len(columns.rejected) == (50 if reason else 0)
    assert_same(columns, payloads, Reception(Framing.NONE))


def test_an_empty_poll() -> None:
    columns = decode_telemetry([], framing=Framing.SINGLE_OBJECT)
    assert_same(columns, [], Reception(Framing.SINGLE_OBJECT))
    assert encode(columns, Framing.NONE) == []


def test_settings_that_cannot_be_meant() -> None:
    with pytest.raises(ValueError, match="schema_id"):
        decode_telemetry([], framing=Framing.CONFLUENT)
    with pytest.raises(ValueError, match="warp"):
        decode_telemetry([], framing=Framing.NONE, signals=["warp"])
    with pytest.raises(ValueError, match="repeat"):
        decode_telemetry([], framing=Framing.NONE, signals=["speed", "speed"])


STAMP = ScoreStamp(
    origin="CLOUD",
    model_name="anomaly",
    model_version="20261122-1",
    model_sha256=bytes(range(32)),
    arm="champion",
    threshold=0.5,
    input_topic="vehicle.telemetry",
    score_time_ms=NOW_MS,
)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), ids=st.lists(GOOD_IDS, max_size=8))
def test_scores_decode_to_what_was_meant(data: st.DataObject, ids: list[bytes]) -> None:
    def longs(items: st.SearchStrategy[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.array([data.draw(items) for _ in ids], np.int64)

    counts = longs(st.integers(0, 5))
    scores = np.random.default_rng(1).random(int(counts.sum())).astype(np.float32)
    columns = {
        "input_partition": longs(st.integers(-1, 2**31 - 1)),
        "input_offset": longs(LONGS),
        "boot_id": longs(LONGS),
        "seq": longs(LONGS),
    }
    event_time_ms = longs(st.integers(EVENT_TIME_MS_MIN, EVENT_TIME_MS_MAX))
    late = longs(st.integers(0, 1)).astype(np.bool_)
    payloads = encode_scores(
        STAMP,
        vehicle_ids=ids,
        event_time_ms=event_time_ms,
        late=late,
        counts=counts,
        scores=scores,
        schema_id=9,
        **columns,
    )
    ends = np.cumsum(counts)
    for number, payload in enumerate(payloads):
        record = decode_confluent("ScoreBatch", 9, payload)
        assert record["vehicle_id"].encode() == ids[number]
        assert {name: record[name] for name in columns} == {
            name: column[number] for name, column in columns.items()
        }
        assert record["model_sha256"] == STAMP.model_sha256
        assert record["late"] == late[number]
        own = scores[ends[number] - counts[number] : ends[number]]
        assert record["scores"] == own.tolist()
        assert encode_body("ScoreBatch", record) == payload[5:]
        assert (
            encode_body("ScoreBatch", record | {"event_time": int(event_time_ms[number])})
            == (payload[5:])
        )
    assert len(payloads) == len(ids)


def test_scores_that_are_not_there_are_nan() -> None:
    one = np.array([1])
    (payload,) = encode_scores(
        STAMP,
        vehicle_ids=[b"v"],
        input_partition=one,
        input_offset=one,
        boot_id=one,
        seq=one,
        event_time_ms=one,
        late=np.array([True]),
        counts=np.array([2]),
        scores=np.array([np.nan, 1.0], np.float32),
        schema_id=9,
    )
    record = decode_confluent("ScoreBatch", 9, payload)
    assert np.isnan(record["scores"][0])
    assert record["scores"][1] == 1.0
