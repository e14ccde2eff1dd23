"""The REST door: what it answers, and what it says to bad input."""

import json
import struct
import time
from typing import Any

import numpy as np
import pytest
from serving_models import catalog_of, release, rows, small, unusable
from serving_server import RunningServer, body_of, output, running

from cloud.serving.repository import ModelRepository
from schemas.errors import ContractError, Reason
from scoring.scorer import BatchScorer
from scoring.traffic import CHAMPION, Arm, Experiment, Mode, Traffic

COLUMNS = len(small().manifest.features)
INFER = "/v2/models/anomaly/infer"


@pytest.fixture(scope="module")
def server() -> Any:
    with running(catalog_of(release("1"), release("2")), request_bytes_max=4_000_000) as server:
        yield server


def expected(features: Any, version: str = "2") -> Any:
    return BatchScorer(release(version)).score(features)


def test_health_and_metadata(server: RunningServer) -> None:
    assert server.get("/v2/health/live").json == {"live": True}
    assert server.get("/v2/health/ready").json == {"ready": True}
    assert server.get("/v2").json["extensions"] == ["binary_tensor_data", "model_repository"]
    said = server.get("/v2/models/anomaly").json
    manifest = small().manifest
    assert said["versions"] == ["1", "2"]
    assert said["parameters"]["version"] == "2"
    assert said["parameters"]["features"] == [spec.name for spec in manifest.features]
    assert said["parameters"]["units"] == list(manifest.units)
    assert server.get("/v2/models/anomaly/versions/1").json["parameters"]["version"] == "1"
    assert server.get("/v2/models/anomaly/versions/champion/ready").json["ready"] is True


def test_a_score_has_the_bits_of_the_scorer_and_says_who_made_it(server: RunningServer) -> None:
    features = rows(65)
    reply = server.infer(body_of(features, id="abc"))
    assert reply.status == 200
    assert reply.json["id"] == "abc"
    assert reply.json["model_version"] == "2"
    assert reply.json["parameters"] == {
        "model_version": "2",
        "sha256": small().manifest.model_sha256,
        "arm": "champion",
    }
    np.testing.assert_array_equal(output(reply), expected(features))


def test_a_version_in_the_path_is_pinned(server: RunningServer) -> None:
    features = rows(3)
    reply = server.infer(body_of(features), path="/v2/models/anomaly/versions/1/infer")
    assert reply.json["parameters"]["arm"] == "pinned"
    np.testing.assert_array_equal(output(reply), expected(features, "1"))


def test_rows_that_cannot_be_scored_give_null(server: RunningServer) -> None:
    features = np.full((2, COLUMNS), np.nan, np.float32)
    reply = server.infer(body_of(features))
    assert reply.json["outputs"][0]["data"] == [None, None]


def test_nested_data_is_taken_too(server: RunningServer) -> None:
    features = rows(4, missing=0.0)
    body = body_of(features)
    body["inputs"][0]["data"] = features.astype(float).tolist()
    np.testing.assert_array_equal(output(server.infer(body)), expected(features))


def test_the_reconstruction_is_given_on_request(server: RunningServer) -> None:
    features = rows(5)
    body = body_of(features, outputs=[{"name": "reconstruction"}, {"name": "score"}])
    reply = server.infer(body)
    scores, outputs = BatchScorer(release("2")).score_and_reconstruct(features)
    assert [each["name"] for each in reply.json["outputs"]] == ["reconstruction", "score"]
    np.testing.assert_array_equal(output(reply, "reconstruction"), outputs)
    np.testing.assert_array_equal(output(reply), scores)


def binary_body(features: Any, *, size: int | None = None, **more: Any) -> tuple[bytes, int]:
    raw = features.astype("<f4").tobytes()
    tensor = {
        "name": "features",
        "datatype": "FP32",
        "shape": list(features.shape),
        "parameters": {"binary_data_size": len(raw) if size is None else size},
    }
    head = json.dumps({"inputs": [tensor], **more}).encode()
    return head + raw, len(head)


@pytest.mark.parametrize("count", [1, 64, 20_000])
def test_binary_tensors_go_both_ways(server: RunningServer, count: int) -> None:
    features = rows(count)
    body, head_bytes = binary_body(features, parameters={"binary_data_output": True})
    length = {"Inference-Header-Content-Length": str(head_bytes)}
    reply = server.post(INFER, body, length)
    assert reply.status == 200
    json_bytes = int(reply.headers["inference-header-content-length"])
    head = json.loads(reply.body[:json_bytes])
    assert head["outputs"][0]["parameters"] == {"binary_data_size": 4 * count}
    scores = np.frombuffer(reply.body[json_bytes:], "<f4")
    np.testing.assert_array_equal(scores, expected(features))


def test_vehicles_choose_their_arms() -> None:
    arms = (Arm(CHAMPION, "1", 0.5), Arm("new", "2", 0.5))
    traffic = Traffic("anomaly", experiment=Experiment("trial", Mode.AB, "salt", 0, arms))
    catalog = catalog_of(release("1"), release("2")).with_traffic(traffic)
    features = rows(200)
    vehicles = [f"car-{i}" for i in range(200)]
    with running(catalog) as server:
        view = server.repository.view()
        served = view.routed("anomaly", [vehicle.encode() for vehicle in vehicles])
        body = body_of(features)
        body["inputs"].append(
            {"name": "vehicle_id", "datatype": "BYTES", "shape": [200], "data": vehicles}
        )
        reply = server.infer(body)
        named = {each["name"]: each["data"] for each in reply.json["outputs"]}
        assert named["arm"] == [each.arm for each in served]
        assert set(named["arm"]) == {CHAMPION, "new"}
        assert named["model_version"] == [each.bundle.manifest.version for each in served]
        assert reply.json["parameters"]["arm"] == "mixed"
        both = {version: expected(features, version) for version in "12"}
        wanted = [both[version][i] for i, version in enumerate(named["model_version"])]
        np.testing.assert_array_equal(output(reply), np.array(wanted, np.float32))
        one = server.infer(body_of(features[:2], parameters={"vehicle_id": vehicles[0]}))
        assert one.json["parameters"]["arm"] == served[0].arm
        assert server.heard.arms[served[0].arm] >= 2
        assert server.heard.rows == 202


def broken(**changes: Any) -> dict[str, Any]:
    body = body_of(rows(2, missing=0.0))
    body["inputs"][0].update(changes)
    return body


BAD: dict[str, tuple[Any, int]] = {
    "no JSON": (b"{nope", 400),
    "no UTF-8": (b'{"inputs": "\xff"}', 400),
    "nothing": (b"", 400),
    "a list": (b"[]", 400),
    "no inputs": ({}, 400),
    "no features": ({"inputs": []}, 400),
    "inputs of text": ({"inputs": ["x"]}, 400),
    "an unknown input": (broken(name="rows"), 400),
    "features twice": ({"inputs": body_of(rows(1))["inputs"] * 2}, 400),
    "another type": (broken(datatype="FP64"), 400),
    "no type": (broken(datatype=None), 400),
    "too few columns": (body_of(rows(2)[:, :-1].copy()), 400),
    "a vector": (broken(shape=[2 * COLUMNS]), 400),
    "a negative shape": (broken(shape=[-1, COLUMNS]), 400),
    "a shape of booleans": (broken(shape=[True, COLUMNS]), 400),
    "no rows": (broken(shape=[0, COLUMNS], data=[]), 400),
    "more data than shape": (broken(shape=[1, COLUMNS]), 400),
    "a huge shape": (broken(shape=[2**40, COLUMNS]), 400),
    "too many rows": (broken(shape=[200_000, COLUMNS]), 413),
    "text for numbers": (broken(data=["1.5"] * (2 * COLUMNS)), 400),
    "booleans for numbers": (broken(data=[True] * (2 * COLUMNS)), 400),
    "ragged rows": (broken(data=[[1.0] * COLUMNS, [1.0]]), 400),
    "data and size": (broken(parameters={"binary_data_size": 4}), 400),
    "a size and no bytes": (
        {"inputs": [{**broken(parameters={"binary_data_size": 8})["inputs"][0], "data": None}]},
        400,
    ),
    "shared memory": (broken(parameters={"shared_memory_region": "x"}), 400),
    "an unknown output": (body_of(rows(1), outputs=[{"name": "class"}]), 400),
    "an output twice": (body_of(rows(1), outputs=[{"name": "score"}] * 2), 400),
    "an id that is a number": (body_of(rows(1), id=7), 400),
    "a time-out of text": (body_of(rows(1), parameters={"timeout": "1"}), 400),
    "a vehicle that is a number": (body_of(rows(1), parameters={"vehicle_id": 7}), 400),
    "a long vehicle": (body_of(rows(1), parameters={"vehicle_id": "x" * 300}), 400),
    "parameters of text": (body_of(rows(1), parameters="x"), 400),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_told_so_and_disturbs_nobody(server: RunningServer, name: str) -> None:
    body, status = BAD[name]
    reply = server.post(INFER, body)
    assert reply.status == status
    assert set(reply.json) == {"error"}
    assert len(reply.json["error"]) > 5
    assert server.infer(body_of(rows(1))).status == 200


def test_what_is_not_there_is_404(server: RunningServer) -> None:
    for path in ("/v2/models/other", "/v2/models/anomaly/versions/9", "/v2/models/other/ready"):
        assert server.get(path).status == 404
    for path in ("/v2/models/other/infer", "/v2/models/anomaly/versions/9/infer"):
        assert server.infer(body_of(rows(1)), path=path).status == 404
    assert server.get("/v2/nothing").status == 404
    assert server.get("/").status == 404
    wrong_method = server.get(INFER)
    assert wrong_method.status == 405
    assert wrong_method.headers["allow"] == "POST"


def test_bytes_that_do_not_fit_their_shape_are_refused(server: RunningServer) -> None:
    features = rows(2)
    for size, length_shift in ((4, 0), (None, 5), (10**9, 0), (-1, 0), (None, -3)):
        body, head_bytes = binary_body(features, size=size)
        length = {"Inference-Header-Content-Length": str(head_bytes + length_shift)}
        assert server.post(INFER, body, length).status == 400
    body, _ = binary_body(features)
    for text in ("x", "-1", str(len(body) + 1), "9" * 30):
        reply = server.post(INFER, body, {"Inference-Header-Content-Length": text})
        assert reply.status == 400


def test_vehicle_ids_in_bytes(server: RunningServer) -> None:
    features = rows(2)
    raw = b"".join(struct.pack("<I", 3) + name for name in (b"car", b"bus"))
    for tail, status in ((raw, 200), (raw[:-1], 400), (raw + raw, 400), (raw[:7], 400)):
        numbers = features.astype("<f4").tobytes()
        inputs = [
            {
                "name": "features",
                "datatype": "FP32",
                "shape": list(features.shape),
                "parameters": {"binary_data_size": len(numbers)},
            },
            {
                "name": "vehicle_id",
                "datatype": "BYTES",
                "shape": [2],
                "parameters": {"binary_data_size": len(tail)},
            },
        ]
        head = json.dumps({"inputs": inputs}).encode()
        length = {"Inference-Header-Content-Length": str(len(head))}
        assert server.post(INFER, head + numbers + tail, length).status == status


def test_a_deadline_that_passed_is_said(server: RunningServer) -> None:
    """One microsecond is over before the next turn of the loop."""
    reply = server.infer(body_of(rows(1), parameters={"timeout": 1}))
    assert reply.status == 504
    assert "deadline" in reply.json["error"]
    assert any(
        isinstance(error, ContractError) and error.reason is Reason.DEADLINE
        for error in server.heard.errors
    )
    assert server.infer(body_of(rows(1), parameters={"timeout": 60_000_000})).status == 200


def test_the_repository_is_listed_and_changed() -> None:
    repository = ModelRepository()
    catalog = catalog_of(release("1"), unusable("2"))
    with running(catalog, repository=repository) as server:
        index = server.post("/v2/repository/index", b"").json
        assert [(e["version"], e["state"]) for e in index] == [("1", "READY"), ("2", "UNAVAILABLE")]
        assert "features" in index[1]["reason"]
        ready = server.post("/v2/repository/index", {"ready": True}).json
        assert [e["version"] for e in ready] == ["1"]
        change = "/v2/repository/models/anomaly"
        assert server.post(f"{change}/load", {"parameters": {"version": "2"}}).status == 400
        assert server.post(f"{change}/load", {"parameters": {"version": 2}}).status == 400
        assert server.post(f"{change}/load", {"parameters": {"version": "9"}}).status == 404
        assert server.post(f"{change}/unload", {"parameters": {"version": "1"}}).status == 200
        assert server.infer(body_of(rows(1))).status == 404
        assert server.get("/v2/health/ready").status == 503
        assert server.post(f"{change}/load", b"").status == 200
        assert server.infer(body_of(rows(1))).status == 200
        assert server.post("/v2/repository/models/other/load", b"").status == 404


def test_a_server_without_models_lives_and_is_not_ready() -> None:
    with running(catalog_of()) as server:
        assert server.get("/v2/health/live").status == 200
        reply = server.get("/v2/health/ready")
        assert (reply.status, reply.json) == (503, {"ready": False})
        assert server.infer(body_of(rows(1))).status == 404


def test_a_model_that_was_asked_for_must_be_there_to_be_ready() -> None:
    with running(catalog_of(release("1")), models="anomaly, other") as server:
        assert server.get("/v2/health/ready").status == 503


def test_what_waits_is_scored_together_and_what_is_too_much_is_refused() -> None:
    """A long delay holds the first request; the queue has room for one more."""
    import threading

    settings: dict[str, Any] = {"batch_delay_ms": 1000, "queue_requests_max": 2}
    with running(catalog_of(release("1")), **settings) as server:
        replies: list[Any] = []
        threads = [
            threading.Thread(target=lambda: replies.append(server.infer(body_of(rows(1)))))
            for _ in range(6)
        ]
        begun_s = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took_s = time.monotonic() - begun_s
        statuses = sorted(reply.status for reply in replies)
        assert set(statuses) <= {200, 503}
        if took_s < 1.9:  # All came within the wait of the first one.
            assert statuses == [200, 200, 503, 503, 503, 503]
            assert server.heard.batches == 1
        for reply in replies:
            if reply.status == 503:
                assert reply.headers["retry-after"] == "1"
                assert "waiting" in reply.json["error"]
