"""Requests and responses as JSON, by the Open Inference Protocol."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from request_wire import SCHEMA_ID, Wire, assert_requests_same, by_record

from schemas.errors import ContractError, Reason
from schemas.request_json import encode_json_responses
from schemas.request_record import Request
from schemas.requests import AnswerableError, Envelope, Scored, Verdict, decode_requests


def body(**changes: Any) -> dict[str, Any]:
    features = {"name": "features", "shape": [2, 2], "datatype": "FP32", "data": [1, 2.5, None, 4]}
    base = {
        "id": "c-1",
        "inputs": [features],
        "parameters": {"model": "anomaly", "vehicle_id": "car-1"},
    }
    return base | changes


def features(**changes: Any) -> dict[str, Any]:
    return body(inputs=[body()["inputs"][0] | changes])


def parameters(**changes: Any) -> dict[str, Any]:
    return body(parameters=body()["parameters"] | changes)


def encoded(of: Any) -> bytes:
    return json.dumps(of).encode()


def test_a_request_in_json_says_what_one_in_avro_says() -> None:
    asked = parameters(version="2", reply_topic="replies", reply_partition=3, deadline_ms=1790)
    found = by_record(encoded(asked | {"outputs": [{"name": "reconstruction"}]}))
    assert isinstance(found, Request)
    assert found.envelope == Envelope("anomaly", "2", "replies", 3, True, json=True)
    assert (found.correlation_id, found.vehicle_id, found.deadline_ms) == (b"c-1", b"car-1", 1790)
    assert found.rows == 2
    np.testing.assert_array_equal(found.values, np.array([1, 2.5, np.nan, 4], np.float32))


@pytest.mark.parametrize("data", [[1, 2.5, None, 4], [[1, 2.5], [None, 4]]])
def test_rows_may_be_nested(data: list[Any]) -> None:
    found = by_record(encoded(features(data=data)))
    assert isinstance(found, Request)
    np.testing.assert_array_equal(found.values, np.array([1, 2.5, np.nan, 4], np.float32))


def test_one_row_needs_no_second_dimension() -> None:
    found = by_record(encoded(features(shape=[4])))
    assert isinstance(found, Request)
    assert (found.rows, found.values.size) == (1, 4)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (features(shape=[2, 3]), Reason.WRONG_SHAPE),
        (features(shape=[2, -2]), Reason.WRONG_SHAPE),
        (features(shape=[2, True]), Reason.WRONG_SHAPE),
        (features(shape=[1, 2, 2]), Reason.WRONG_SHAPE),
        (features(shape="2,2"), Reason.WRONG_SHAPE),
        (features(shape=[10**9, 10**9]), Reason.WRONG_SHAPE),
        (features(datatype="INT64"), Reason.WRONG_SCHEMA),
        (features(name="other"), Reason.WRONG_SCHEMA),
        (features(data="1,2"), Reason.WRONG_SCHEMA),
        (features(data=[1, 2, "3", 4]), Reason.WRONG_SCHEMA),
        (features(data=[1, 2, True, 4]), Reason.WRONG_SCHEMA),
        (features(data=[[1, 2], [3, [4]]]), Reason.WRONG_SCHEMA),
        (features(data=[1, 2, 3, 1e39]), Reason.OUT_OF_RANGE),
        (features(data=[1, 2, 3, 10**400]), Reason.OUT_OF_RANGE),
        (body(inputs=[]), Reason.WRONG_SCHEMA),
        (body(inputs=None), Reason.WRONG_SCHEMA),
        (body(inputs=[1]), Reason.WRONG_SCHEMA),
        (parameters(deadline_ms="soon"), Reason.WRONG_SCHEMA),
        (parameters(deadline_ms=-1), Reason.OUT_OF_RANGE),
        (parameters(vehicle_id=7), Reason.WRONG_SCHEMA),
        (parameters(vehicle_id="x" * 129), Reason.IDENTITY),
    ],
)
def test_what_can_be_answered_says_where(wrong: dict[str, Any], reason: Reason) -> None:
    error = by_record(encoded(wrong))
    assert isinstance(error, AnswerableError), error
    assert (error.reason, error.correlation_id) == (reason, b"c-1")
    assert error.envelope == Envelope("anomaly", json=True)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"{", Reason.MALFORMED),
        (encoded(body())[:-1], Reason.MALFORMED),
        (encoded(body()) + b"x", Reason.MALFORMED),
        (b'{"a":' * 100_000, Reason.MALFORMED),
        (b'{"id": "\xff"}', Reason.MALFORMED),
        (encoded(body(id="\ud800")), Reason.MALFORMED),
        (encoded(features(data=[float("nan")] * 4)), Reason.MALFORMED),
        (encoded(features(data=[float("inf")] * 4)), Reason.MALFORMED),
        (encoded(body(id="x" * 129)), Reason.IDENTITY),
        (encoded(body(id=7)), Reason.WRONG_SCHEMA),
        (encoded(body(parameters=[])), Reason.WRONG_SCHEMA),
        (encoded(body(outputs=[1])), Reason.WRONG_SCHEMA),
        (encoded(parameters(reply_partition=-5)), Reason.OUT_OF_RANGE),
        (b"{" + b" " * 2_000_000 + b"}", Reason.OVERSIZED),
    ],
)
def test_what_cannot_be_answered_is_refused(payload: bytes, reason: Reason) -> None:
    error = by_record(payload)
    assert isinstance(error, ContractError)
    assert not isinstance(error, AnswerableError)
    assert error.reason is reason


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40).map(lambda rest: b"{" + rest),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
                lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
                max_leaves=10,
            ).map(lambda inner: encoded(body(parameters=inner))),
            st.integers(0, 200).map(lambda cut: encoded(body())[:cut]),
            st.just(Wire().payload()),
        ),
        max_size=14,
    )
)
@settings(max_examples=100, deadline=None)
def test_json_and_avro_share_a_poll(payloads: list[bytes]) -> None:
    assert_requests_same(payloads, decode_requests(payloads, schema_id=SCHEMA_ID))


def test_responses_are_bodies_of_the_protocol() -> None:
    verdict = Verdict("anomaly", "1", "a" * 64, "pinned")
    scored = Scored(
        verdict,
        [b"one", b"two"],
        np.array([1, 2]),
        np.array([0.5, np.nan, 1.5], np.float32),
        np.array([[1, 2], [3, 4], [5, 6]], np.float32),
        1790,
        12,
        34,
    )
    one, two = (json.loads(each) for each in encode_json_responses(scored))
    assert (one["model_name"], one["model_version"], one["id"]) == ("anomaly", "1", "one")
    assert one["parameters"] == {
        "arm": "pinned",
        "sha256": "a" * 64,
        "score_time_ms": 1790,
        "queue_us": 12,
        "compute_us": 34,
    }
    assert one["outputs"][0] == {"name": "score", "shape": [1], "datatype": "FP32", "data": [0.5]}
    assert two["outputs"][0]["data"] == [None, 1.5]
    assert two["outputs"][1]["shape"] == [2, 2]
    assert two["outputs"][1]["data"] == [3.0, 4.0, 5.0, 6.0]


def test_an_error_says_its_reason() -> None:
    none = np.empty(0, np.float32)
    verdict = Verdict("anomaly", reason="deadline", error="too late")
    scored = Scored(verdict, [b"one"], np.array([0]), none, none.reshape(0, 0), 1, 2, 3)
    [answer] = (json.loads(each) for each in encode_json_responses(scored))
    assert (answer["id"], answer["error"]) == ("one", "too late")
    assert answer["parameters"]["reason"] == "deadline"
    assert "outputs" not in answer
