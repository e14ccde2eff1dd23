"""Clients that are large, slow, rude or many, at the doors' sockets."""

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from serving_models import catalog_of, release, rows
from serving_server import PATIENCE_S, RunningServer, body_of, output, running

from cloud.bench_wire import GrpcWire
from schemas import inference_v2 as v2
from scoring.scorer import BatchScorer

INFER = "/v2/models/anomaly/infer"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MB = 1_000_000


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """With the time-outs that people have: longer than anything here takes."""
    with running(catalog_of(release("1"))) as server:
        yield server


@pytest.fixture(scope="module")
def strict() -> Iterator[RunningServer]:
    """With little patience."""
    with running(
        catalog_of(release("1")), head_timeout_s=1.0, body_timeout_s=1.0, idle_timeout_s=1.0
    ) as server:
        yield server


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), PATIENCE_S)


def request(body: bytes, *, path: str = INFER, headers: str = "") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def read_replies(link: socket.socket, count: int) -> list[Any]:
    """Bodies of so many answers on one connection, in order."""
    file = link.makefile("rb")
    replies = []
    for _ in range(count):
        status = int(file.readline().split()[1])
        length = 0
        while (line := file.readline().strip()) != b"":
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        replies.append((status, json.loads(file.read(length))))
    return replies


def read_to_end(link: socket.socket) -> bytes:
    """Until the server closes."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := link.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def body(count: int = 1) -> bytes:
    return json.dumps(body_of(rows(count))).encode()


@pytest.fixture
def resident_bytes() -> Iterator[Any]:
    """How much this process, and so the server in it, holds."""

    def now() -> int:
        with open("/proc/self/statm") as file:  # noqa: PTH123 - read again and again
            return int(file.read().split()[1]) * 4096

    yield now


def test_fifty_megabytes_are_refused_and_not_kept(
    server: RunningServer, resident_bytes: Any
) -> None:
    chunk = b"x" * MB
    before = resident_bytes()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
    connection.request("POST", INFER, (chunk for _ in range(50)), {"Content-Length": str(50 * MB)})
    reply = connection.getresponse()
    assert reply.status == 413
    assert "16000000" in json.loads(reply.read())["error"]
    connection.close()
    assert resident_bytes() - before < 20 * MB


def test_fifty_megabytes_in_chunks_are_refused_too(server: RunningServer) -> None:
    link = connected(server.port)
    link.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    chunk = b"%x\r\n" % MB + b"x" * MB + b"\r\n"
    for _ in range(50):
        link.sendall(chunk)
    link.sendall(b"0\r\n\r\n")
    ((status, said),) = read_replies(link, 1)
    assert status == 413
    assert "bytes" in said["error"]
    link.close()


def test_a_body_that_is_held_back_is_refused_before_it_is_sent(server: RunningServer) -> None:
    link = connected(server.port)
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {50 * MB}\r\n"
    link.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
    assert read_to_end(link).startswith(b"HTTP/1.1 413")
    link.close()


def test_fifty_megabytes_over_grpc_are_refused(server: RunningServer) -> None:
    """The message says its size in its first bytes; it is refused by them."""
    import grpc

    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}", options) as channel:
        call = channel.unary_unary(v2.MODEL_INFER.path)
        with pytest.raises(grpc.RpcError) as caught:
            call(b"x" * (50 * MB), timeout=PATIENCE_S)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        live = channel.unary_unary(v2.SERVER_LIVE.path)(b"", timeout=PATIENCE_S)
        assert v2.decode(v2.SERVER_LIVE.response, live).live


def test_a_connection_is_kept(server: RunningServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
    connection.connect()
    local = connection.sock.getsockname()
    for _ in range(5):
        connection.request("POST", INFER, body())
        assert connection.getresponse().read()
        assert connection.sock.getsockname() == local
    connection.close()


def test_requests_that_do_not_wait_are_answered_in_order(server: RunningServer) -> None:
    features = rows(30)
    link = connected(server.port)
    link.sendall(b"".join(request(json.dumps(body_of(row[None])).encode()) for row in features))
    replies = read_replies(link, 30)
    got = [np.float32(said["outputs"][0]["data"][0]) for _, said in replies]
    np.testing.assert_array_equal(got, BatchScorer(release("1")).score(features))
    link.close()


def test_a_bad_request_between_good_ones_ends_nothing(server: RunningServer) -> None:
    link = connected(server.port)
    link.sendall(request(body()) + request(b"{") + request(body(), path="/x") + request(body()))
    assert [status for status, _ in read_replies(link, 4)] == [200, 400, 404, 200]
    link.close()


HALVES = (
    b"",
    b"POST /v2",
    b"POST /v2/models/anomaly/infer HTTP/1.1\r\nHost: x\r\nX-",
    b"POST /v2/models/anomaly/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
)


def test_rest_clients_that_stop_in_the_middle_are_dropped(strict: RunningServer) -> None:
    """After nothing, half a line, half a head, half a body: all at once, to wait but once."""
    links = [connected(strict.port) for _ in HALVES]
    for link, sent in zip(links, HALVES, strict=True):
        link.sendall(sent)
    for link in links:
        assert read_to_end(link) == b""
        link.close()


def test_a_rest_client_that_drips_is_dropped(strict: RunningServer) -> None:
    """A byte now and then does not buy more time."""
    link = connected(strict.port)
    link.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\nX-Long: ")
    begun_s = time.monotonic()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        while time.monotonic() - begun_s < PATIENCE_S:
            link.sendall(b"x")
            time.sleep(0.05)
    link.close()


def test_a_rest_client_that_has_nothing_to_say_any_more_is_closed() -> None:
    with running(catalog_of(release("1")), idle_timeout_s=1.0) as server:
        link = connected(server.port)
        link.sendall(request(body()))
        assert read_to_end(link).startswith(b"HTTP/1.1 200")
        link.close()


@pytest.mark.parametrize("size", [40_000, 3 * MB])
def test_a_head_without_end_is_refused(server: RunningServer, size: int) -> None:
    link = connected(server.port)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        link.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * size + b"\r\n\r\n")
    assert read_to_end(link)[:12] in (b"HTTP/1.1 400", b"")
    link.close()
    assert server.get("/v2/health/live").status == 200


def test_what_is_no_http_is_refused(server: RunningServer) -> None:
    link = connected(server.port)
    link.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 4)
    assert read_to_end(link).startswith(b"HTTP/1.1 400")
    link.close()


def test_a_client_that_never_reads_is_dropped(strict: RunningServer) -> None:
    """Large answers fill its window; then its time runs."""
    link = socket.socket()
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    link.settimeout(PATIENCE_S)
    link.connect(("127.0.0.1", strict.port))
    names = [{"name": "reconstruction"}]
    large = request(json.dumps(body_of(rows(20_000), outputs=names)).encode())
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(8):
            link.sendall(large)
    deadline_s = time.monotonic() + PATIENCE_S
    while has_peer(link) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not has_peer(link)
    link.close()
    assert strict.infer(body_of(rows(1))).status == 200


def has_peer(link: socket.socket) -> bool:
    """Whether the connection is still whole, told without reading: TCP_INFO's state."""
    established = 1
    return link.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == established


def test_so_many_connections_and_no_more() -> None:
    with running(catalog_of(release("1")), connections_max=5) as server:
        links = [connected(server.port) for _ in range(5)]
        for link in links:
            link.sendall(request(body()))
            read_replies(link, 1)
        one_more = connected(server.port)
        said = read_to_end(one_more)
        assert said.startswith(b"HTTP/1.1 503")
        assert b"retry-after" in said
        for link in (*links, one_more):
            link.close()
        wait_for(lambda: server.get("/v2/health/live").status == 200)


def wait_for(answers: Any) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            if answers():
                return
        except OSError:
            pass
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_grpc_clients_that_ask_nothing_or_half_are_dropped(strict: RunningServer) -> None:
    wire = GrpcWire(v2.MODEL_INFER.path, b"x" * 5000)
    half_a_request = wire.opening() + wire.request()[:-100]
    every = (b"", PREFACE[:10], PREFACE, b"GET / HTTP/1.1\r\n\r\n", half_a_request)
    links = [connected(strict.grpc_port) for _ in every]
    for link, sent in zip(links, every, strict=True):
        link.sendall(sent)
    for link in links:
        read_to_end(link)
        link.close()


def test_requests_under_way_are_answered_when_the_server_stops() -> None:
    """The delay holds them back until after the stop was asked for."""
    features = rows(1)
    with running(catalog_of(release("1")), batch_delay_ms=1000) as server:
        replies: list[Any] = []

        def ask() -> None:
            replies.append(server.infer(body_of(features)))

        thread = threading.Thread(target=ask)
        thread.start()
        wait_for(lambda: server.get("/v2/health/live").status == 200)
        server.stop.set()
        thread.join(PATIENCE_S)
    (reply,) = replies
    assert reply.status == 200
    np.testing.assert_array_equal(output(reply), BatchScorer(release("1")).score(features))
