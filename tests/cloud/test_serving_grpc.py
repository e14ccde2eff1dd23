"""The gRPC door: a foreign client's calls, bad input, and many calls at once on one connection."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from serving_models import catalog_of, release, rows, small
from serving_server import PATIENCE_S, RunningServer, running

from cloud.serving import v2_grpc
from cloud.serving.asks import Answer, Ask, answer_all
from cloud.serving.observer import NoObserver
from cloud.serving.repository import ModelRepository
from schemas import inference_v2 as v2
from scoring.scorer import BatchScorer

COLUMNS = len(small().manifest.features)


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running(catalog_of(release("1"), release("2"))) as server:
        yield server


@pytest.fixture(scope="module")
def channel(server: RunningServer) -> Iterator[Any]:
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}", options) as channel:
        yield channel


def tensor(features: Any, **changes: Any) -> Any:
    fields = {"name": "features", "datatype": "FP32", "shape": list(features.shape)}
    return v2.InferInputTensor(**{**fields, **changes})


def infer_request(features: Any, **changes: Any) -> Any:
    fields: dict[str, Any] = {
        "model_name": "anomaly",
        "inputs": [tensor(features)],
        "raw_input_contents": [features.astype("<f4").tobytes()],
    }
    return v2.MODEL_INFER.request(**{**fields, **changes})


def infer(channel: Any, request: Any, **options: Any) -> Any:
    call = channel.unary_unary(v2.MODEL_INFER.path)
    raw = request if isinstance(request, bytes) else v2.encode(request)
    return v2.decode(v2.MODEL_INFER.response, call(raw, timeout=PATIENCE_S, **options))


def code_of(channel: Any, request: Any, **options: Any) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        infer(channel, request, **options)
    assert len(caught.value.details()) > 5
    return caught.value.code()


def test_raw_tensors_come_back_raw(channel: Any) -> None:
    features = rows(70)
    answer = infer(channel, infer_request(features, id="7"))
    (score,) = answer.outputs
    assert (score.name, score.datatype, list(score.shape)) == ("score", "FP32", [70])
    assert (answer.id, answer.model_name, answer.model_version) == ("7", "anomaly", "2")
    assert v2.parameters_of(answer) == {
        "model_version": "2",
        "sha256": small().manifest.model_sha256,
        "arm": "champion",
    }
    scores = np.frombuffer(answer.raw_output_contents[0], "<f4")
    np.testing.assert_array_equal(scores, BatchScorer(release("2")).score(features))


def test_typed_tensors_come_back_typed(channel: Any) -> None:
    features = rows(3)
    contents = v2.InferTensorContents(fp32_contents=features.ravel().tolist())
    request = infer_request(
        features,
        inputs=[tensor(features, contents=contents)],
        raw_input_contents=[],
        outputs=[
            v2.InferRequestedOutputTensor(name=name)
            for name in ("score", "reconstruction", "arm", "model_version")
        ],
    )
    answer = infer(channel, request)
    assert not answer.raw_output_contents
    by_name = {each.name: each for each in answer.outputs}
    scores, outputs = BatchScorer(release("2")).score_and_reconstruct(features)
    got = np.array(by_name["score"].contents.fp32_contents, np.float32)
    np.testing.assert_array_equal(got, scores)
    got = np.array(by_name["reconstruction"].contents.fp32_contents, np.float32)
    np.testing.assert_array_equal(got.reshape(by_name["reconstruction"].shape), outputs)
    assert list(by_name["arm"].contents.bytes_contents) == [b"champion"] * 3
    assert list(by_name["model_version"].contents.bytes_contents) == [b"2"] * 3


def test_a_version_that_is_named_is_pinned(channel: Any) -> None:
    answer = infer(channel, infer_request(rows(1), model_version="1"))
    assert v2.parameters_of(answer)["arm"] == "pinned"
    assert answer.model_version == "1"


@pytest.mark.parametrize("count", [1, 3000, 100_000])
def test_messages_of_any_size_go_through_the_windows(channel: Any, count: int) -> None:
    """100,000 rows with their reconstruction are several megabytes each way."""
    features = rows(count)
    request = infer_request(
        features, outputs=[v2.InferRequestedOutputTensor(name="reconstruction")]
    )
    answer = infer(channel, request)
    outputs = np.frombuffer(answer.raw_output_contents[0], "<f4").reshape(count, COLUMNS)
    expected = BatchScorer(release("2")).score_and_reconstruct(features)[1]
    np.testing.assert_array_equal(outputs, expected)


def test_many_calls_at_once_on_one_connection(channel: Any) -> None:
    features = rows(400)
    expected = BatchScorer(release("2")).score(features)

    def one(number: int) -> bool:
        answer = infer(channel, infer_request(features[number : number + 1], id=str(number)))
        got = np.frombuffer(answer.raw_output_contents[0], "<f4")[0]
        same = got == expected[number] or (np.isnan(got) and np.isnan(expected[number]))
        return bool(same) and answer.id == str(number)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(one, range(400)))


ROWS = rows(2)

BAD: dict[str, tuple[Any, Any]] = {
    "no message": (b"\xff\xff", grpc.StatusCode.INVALID_ARGUMENT),
    "no inputs": (
        infer_request(ROWS, inputs=[], raw_input_contents=[]),
        grpc.StatusCode.INVALID_ARGUMENT,
    ),
    "an unknown model": (infer_request(ROWS, model_name="other"), grpc.StatusCode.NOT_FOUND),
    "an unknown version": (infer_request(ROWS, model_version="9"), grpc.StatusCode.NOT_FOUND),
    "another type": (
        infer_request(ROWS, inputs=[tensor(ROWS, datatype="FP64")]),
        grpc.StatusCode.INVALID_ARGUMENT,
    ),
    "an unknown input": (
        infer_request(ROWS, inputs=[tensor(ROWS, name="x")]),
        grpc.StatusCode.INVALID_ARGUMENT,
    ),
    "too few columns": (infer_request(ROWS[:, :-1]), grpc.StatusCode.INVALID_ARGUMENT),
    "too few bytes": (
        infer_request(ROWS, raw_input_contents=[b"1234"]),
        grpc.StatusCode.INVALID_ARGUMENT,
    ),
    "more contents than inputs": (
        infer_request(ROWS, raw_input_contents=[b"", b""]),
        grpc.StatusCode.INVALID_ARGUMENT,
    ),
    "both contents": (
        infer_request(ROWS, inputs=[tensor(ROWS, contents=v2.InferTensorContents())]),
        grpc.StatusCode.INVALID_ARGUMENT,
    ),
    "too many rows": (
        infer_request(ROWS, inputs=[tensor(ROWS, shape=[200_000, COLUMNS])]),
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    ),
    "an unknown output": (
        infer_request(ROWS, outputs=[v2.InferRequestedOutputTensor(name="x")]),
        grpc.StatusCode.INVALID_ARGUMENT,
    ),
    "a time-out of text": (
        infer_request(ROWS, parameters={"timeout": v2.parameter("1")}),
        grpc.StatusCode.INVALID_ARGUMENT,
    ),
    "a deadline that passed": (
        infer_request(ROWS, parameters={"timeout": v2.parameter(1)}),
        grpc.StatusCode.DEADLINE_EXCEEDED,
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_has_its_status_and_disturbs_nobody(channel: Any, name: str) -> None:
    request, code = BAD[name]
    assert code_of(channel, request) is code
    assert infer(channel, infer_request(ROWS)).outputs


def test_a_method_that_is_not_there_is_unimplemented(channel: Any) -> None:
    for path in ("/inference.GRPCInferenceService/ModelConfig", "/x/y"):
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(path)(b"", timeout=PATIENCE_S)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("compression", "ok"), [(grpc.Compression.Gzip, True), (grpc.Compression.Deflate, False)]
)
def test_gzip_is_taken_and_deflate_is_refused(channel: Any, compression: Any, ok: bool) -> None:
    request = infer_request(rows(200))
    if ok:
        assert infer(channel, request, compression=compression).outputs
    else:
        code = code_of(channel, request, compression=compression)
        assert code is grpc.StatusCode.UNIMPLEMENTED


def test_what_waits_is_refused_beyond_the_limit() -> None:
    settings: dict[str, Any] = {"batch_delay_ms": 1000, "queue_requests_max": 1}
    with (
        running(catalog_of(release("1")), **settings) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel,
        ThreadPoolExecutor(4) as pool,
    ):

        def one(_: int) -> Any:
            try:
                return infer(channel, infer_request(ROWS))
            except grpc.RpcError as error:
                return error.code()

        got = list(pool.map(one, range(4)))
        assert grpc.StatusCode.RESOURCE_EXHAUSTED in got
        assert any(not isinstance(each, grpc.StatusCode) for each in got)


def test_metadata_and_repository(channel: Any) -> None:
    def ask(method: v2.Method, **fields: Any) -> Any:
        call = channel.unary_unary(method.path)
        raw = call(v2.encode(method.request(**fields)), timeout=PATIENCE_S)
        return v2.decode(method.response, raw)

    assert ask(v2.SERVER_LIVE).live
    assert ask(v2.SERVER_READY).ready
    assert ask(v2.MODEL_READY, name="anomaly").ready
    assert not ask(v2.MODEL_READY, name="anomaly", version="9").ready
    assert list(ask(v2.MODEL_METADATA, name="anomaly").versions) == ["1", "2"]
    version = v2.message_class("ModelRepositoryParameter")(string_param="1")
    ask(v2.REPOSITORY_MODEL_UNLOAD, model_name="anomaly", parameters={"version": version})
    states = {each.version: each.state for each in ask(v2.REPOSITORY_INDEX).models}
    assert states == {"1": "UNAVAILABLE", "2": "READY"}
    ready = ask(v2.REPOSITORY_INDEX, ready=True).models
    assert [each.version for each in ready] == ["2"]
    ask(v2.REPOSITORY_MODEL_LOAD, model_name="anomaly")
    assert ask(v2.MODEL_READY, name="anomaly", version="1").ready
    for method in (v2.MODEL_METADATA, v2.REPOSITORY_MODEL_LOAD):
        name = "name" if method is v2.MODEL_METADATA else "model_name"
        with pytest.raises(grpc.RpcError) as caught:
            ask(method, **{name: "other"})
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("count", [1, 127, 128, 40_000])
@pytest.mark.parametrize("call_id", ["", "7", "\N{BLACK HEART SUIT}" * 100])
def test_the_short_way_to_write_scores_says_what_the_long_way_says(
    count: int, call_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = ModelRepository()
    repository.update(catalog_of(release("1")))
    ask = Ask("anomaly", "", rows(count))
    (answer,) = answer_all(repository.view(), [ask], NoObserver())
    assert isinstance(answer, Answer)
    call = v2_grpc.Call(ask, call_id, ["score"], typed=False)
    short = v2.decode(v2.MODEL_INFER.response, v2_grpc.write_answer(call, answer))
    monkeypatch.setattr(v2_grpc, "_USUAL", ())
    long = v2.decode(v2.MODEL_INFER.response, v2_grpc.write_answer(call, answer))
    assert short == long
    assert list(short.outputs[0].shape) == [count]
