"""The REST client of the Open Inference Protocol against servers that answer anything at all."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving_models import rows

from cloud.remote import rest_v2
from cloud.remote.asking import Ask, NotReadyError
from cloud.remote.rest_v2 import HEADER_LENGTH, RestV2Asker
from schemas.errors import ContractError, TransientError

Reply = tuple[int, bytes, dict[str, str]]
Script = Callable[[str, str, bytes, Any], Reply]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    script: Script

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, payload, headers = type(self).script(self.command, self.path, body, self.headers)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    do_GET = do_POST = _answer  # noqa: N815 - the library's names

    def log_message(self, *_: Any) -> None:
        """Not on stderr."""


@contextmanager
def scripted(script: Script, **options: Any) -> Iterator[RestV2Asker]:
    """A client of a server that does what the script says."""
    handler = type("Handler", (_Handler,), {"script": staticmethod(script)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=[0.01])
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    asker = RestV2Asker(url, **{"timeout_s": 30.0, "binary": True} | options)
    asker.start()
    try:
        yield asker
    finally:
        asker.close()
        server.shutdown()
        thread.join()
        server.server_close()


def always(status: int, payload: Any, headers: dict[str, str] | None = None) -> Script:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return lambda *_: (status, body, headers or {})


def ask(count: int = 3) -> Ask:
    return Ask("small", "1", "features", rows(count), ("score",))


def output(**changes: Any) -> dict[str, Any]:
    tensor = {"name": "score", "datatype": "FP32", "shape": [3], "data": [1.0, None, 3.0]}
    return {"model_name": "small", "model_version": "1", "outputs": [tensor | changes]}


def test_numbers_of_json_may_be_nested_and_null_is_nan() -> None:
    for data, shape in (([1.0, None, 3.0], [3]), ([[1.0], [None], [3.0]], [3, 1])):
        with scripted(always(200, output(data=data, shape=shape))) as asker:
            answer = asker.ask(ask())
        assert answer.version == "1"
        np.testing.assert_array_equal(answer.outputs["score"].ravel(), [1.0, np.nan, 3.0])


@pytest.mark.parametrize(
    ("payload", "headers"),
    [
        (b"", {}),
        (b"<html>", {}),
        ([], {}),
        ({}, {}),
        ({"outputs": None}, {}),
        ({"outputs": [1]}, {}),
        (output(datatype="INT8"), {}),
        (output(shape=[4]), {}),
        (output(shape="x"), {}),
        (output(shape=[10**30]), {}),
        (output(data=["a", "b", "c"]), {}),
        (output(data=[[1.0], [2.0, 3.0]]), {}),
        (output(data=None), {}),
        (output(parameters={"binary_data_size": 12}), {}),
        (output(parameters={"binary_data_size": -1}), {}),
        (output(parameters={"binary_data_size": "x"}), {}),
        (output(parameters=7), {}),
        (output() | {"parameters": 7}, {}),
        (output(), {HEADER_LENGTH: "x"}),
        (output(), {HEADER_LENGTH: "5"}),
        (output(), {HEADER_LENGTH: "-3"}),
    ],
)
def test_what_is_no_answer_is_an_error(payload: Any, headers: dict[str, str]) -> None:
    with scripted(always(200, payload, headers)) as asker, pytest.raises(ContractError):
        asker.ask(ask())


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (404, NotReadyError),
        (409, NotReadyError),
        (400, ContractError),
        (413, ContractError),
        (301, ContractError),
        (204, ContractError),
        (408, TransientError),
        (429, TransientError),
        (500, TransientError),
        (503, TransientError),
    ],
)
def test_a_status_says_whether_to_ask_again(status: int, error: type[Exception]) -> None:
    said = b"" if status == 204 else json.dumps({"error": "as it is"}).encode()
    with scripted(always(status, said)) as asker, pytest.raises(error, match=f"HTTP {status}"):
        asker.ask(ask())


def test_an_answer_that_is_too_large_is_not_read_to_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rest_v2, "ANSWER_BYTES_MAX", 1000)
    with (
        scripted(always(200, bytes(5000))) as asker,
        pytest.raises(ContractError, match="more than 1000 bytes"),
    ):
        asker.ask(ask())


def test_a_server_that_says_nothing_is_given_up_after_the_time_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        asker = RestV2Asker(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.2)
        asker.start()
        with pytest.raises(TransientError, match="Timeout"):
            asker.ask(ask())
        asker.close()
        with pytest.raises(TransientError, match="closed"):
            asker.ask(ask())


@pytest.mark.parametrize(
    ("said", "binary"),
    [
        ({"extensions": ["binary_tensor_data", "model_repository"]}, True),
        ({"extensions": []}, False),
        ({"name": "other"}, False),
        (None, False),
    ],
)
def test_it_asks_by_what_the_server_says_that_it_speaks(said: Any, binary: bool) -> None:
    heads: list[Any] = []

    def script(method: str, path: str, body: bytes, headers: Any) -> Reply:
        if path == "/v2":
            return (404, b"", {}) if said is None else (200, json.dumps(said).encode(), {})
        if method == "GET":
            return 200, b'{"name": "small"}', {}
        heads.append(headers.get(HEADER_LENGTH))
        return 200, json.dumps(output()).encode(), {}

    with scripted(script, binary=None) as asker:
        asker.describe("small", "1")
        asker.ask(ask())
        assert asker.request_bytes == (1_000_000 if binary else 100_000)
    assert (heads[0] is not None) is binary


@pytest.mark.parametrize("binary", [True, False])
@settings(max_examples=30, deadline=None)
@given(
    values=st.lists(st.floats(width=32, allow_nan=True, allow_infinity=False), min_size=1),
)
def test_numbers_arrive_to_the_bit_there_and_back(binary: bool, values: list[float]) -> None:
    matrix = np.array(values, np.float32).reshape(-1, 1)

    def echo(_: str, __: str, body: bytes, headers: Any) -> Reply:
        end = int(headers.get(HEADER_LENGTH) or len(body))
        tensor = json.loads(body[:end])["inputs"][0] | {"name": "score"}
        answer = json.dumps({"outputs": [tensor]}).encode()
        return 200, answer + body[end:], {HEADER_LENGTH: str(len(answer))}

    with scripted(echo, binary=binary) as asker:
        found = asker.ask(Ask("small", "", "features", matrix, ())).outputs["score"]
    absent = np.isnan(matrix)
    assert (np.isnan(found) == absent).all()
    assert found[~absent].tobytes() == matrix[~absent].tobytes()


def test_connections_are_kept() -> None:
    peers = set()

    def script(_: str, __: str, ___: bytes, headers: Any) -> Reply:
        peers.add(threading.get_ident())
        return 200, json.dumps(output()).encode(), {}

    with scripted(script) as asker:
        for _ in range(5):
            asker.ask(ask())
    assert len(peers) == 1
