"""Which scores of a gateway are sent to be compared."""

from dataclasses import replace

import numpy as np
import pytest
from edge_parts import EPOCH_MS, FAULTY, SOUND, Signals, batch, bundle, lstm_bundle
from hypothesis import given
from hypothesis import strategies as st

from edge.agreement import AgreementSample, sampled
from edge.receipts import UNKNOWN_MS
from edge.rows import Kind, StoredTelemetry
from schemas.codec import Framing, TelemetryColumns, decode_telemetry
from schemas.records import Record, decode_single_object
from scoring.bundle import Bundle
from scoring.specs import FeatureKind, FeatureSpec
from scoring.stream import StreamScorer


def rows_of(payloads: list[bytes], seqs: list[int], vehicle: str = "car") -> list[StoredTelemetry]:
    return [
        StoredTelemetry(n, vehicle, 1, seq, 0, payload)
        for n, (payload, seq) in enumerate(zip(payloads, seqs, strict=True), 1)
    ]


def decoded(payloads: list[bytes], signals: tuple[str, ...] = ()) -> TelemetryColumns:
    return decode_telemetry(payloads, framing=Framing.SINGLE_OBJECT, signals=signals)


@given(st.floats(0, 1), st.integers(0, 1 << 40))
def test_a_sample_is_the_same_however_a_stream_is_cut(share: float, boot: int) -> None:
    payloads = [batch(vehicle, seq, boot=boot) for vehicle in "ab" for seq in range(1, 30)]
    whole = sampled(decoded(payloads), share).tolist()
    assert whole == [bool(sampled(decoded([one]), share)[0]) for one in payloads]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 1.0])
def test_a_sample_is_as_large_as_asked_for(share: float) -> None:
    payloads = [batch(f"car-{n}", seq) for n in range(50) for seq in range(1, 201)]
    taken = sampled(decoded(payloads), share).mean()
    assert abs(taken - share) <= 4 * np.sqrt(share * (1 - share) / len(payloads))


def letters(
    model: Bundle,
    seqs: list[int],
    *,
    received_ms: int = UNKNOWN_MS,
    shared: bool = False,
    signals: Signals = FAULTY,
) -> list[Record]:
    """What of these batches of a vehicle is sent, a model scoring them one by one."""
    scorer = StreamScorer(model, max_vehicles=10, origin="EDGE")
    sample = AgreementSample(1.0, "f", shared)
    found = []
    for seq in seqs:
        payloads = [batch("car", seq, signals=signals)]
        columns = decoded(payloads, scorer.signals)
        scored = scorer.process(columns, now_ms=received_ms)
        rows = rows_of(payloads, [seq])
        found += sample.letters(model, columns, rows, scored, now_ms=7)
    assert {letter.kind for letter in found} <= {Kind.SCORE}
    return [decode_single_object("ScoreBatch", letter.payload) for letter in found]


def test_a_sampled_score_says_whose_it_is() -> None:
    (record,) = letters(bundle(), [3])
    assert (record["origin"], record["vehicle_id"], record["seq"]) == ("EDGE", "car", 3)
    assert record["model_sha256"].hex() == bundle().manifest.model_sha256
    assert record["scores"] == [50.0]
    assert record["input_topic"] == "v1/f/car/telemetry"


def test_what_comes_late_or_out_of_order_is_left_out() -> None:
    assert [record["seq"] for record in letters(bundle(), [1, 2, 5, 3, 4, 6])] == [1, 2, 5, 6]
    assert letters(bundle(), [1], received_ms=EPOCH_MS + 3_600_000) == []


def test_a_model_with_memory_is_compared_once_its_history_is_whole() -> None:
    features = (FeatureSpec("speed"), FeatureSpec("engine_speed", FeatureKind.MEAN, 30.0))
    plain = bundle()
    model = Bundle(replace(plain.manifest, features=features), plain.model)
    compared = [record["seq"] for record in letters(model, list(range(100, 160)))]
    assert compared == list(range(130, 160))
    assert letters(model, list(range(100, 160)), shared=True) == []
    assert len(letters(plain, list(range(1, 10)), shared=True)) == 9


def test_a_windowed_model_is_compared_once_all_of_its_window_has_its_history() -> None:
    """Its mean over 10 s is there from 110 s on; so it is in all four readings from 113 s on."""
    compared = letters(lstm_bundle(), list(range(100, 160)), signals=SOUND)
    assert [record["seq"] for record in compared] == list(range(113, 160))
