"""`motorcade bench serving`: requests a second and latencies of RPC servers, ours beside a peer.

Each case is measured on every server in turn, and all of it again in the next round with the order
turned round; the median round counts. The client is the same for all and lean (`bench_wire`),
because on two cores a client library takes the time from the server; a case with grpcio's client
says what its users see.
"""

import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud.bench_load import Load, load
from cloud.bench_wire import GrpcWire, HttpWire, Wire
from schemas import inference_v2 as v2
from schemas.errors import TransientError

REST, REST_BINARY, GRPC, GRPC_LIBRARY = "REST", "REST binary", "gRPC", "gRPC, grpcio's client"
OURS, PEER = "motorcade", "mlserver"

_START_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Target:
    """A server to measure.

    Attributes:
        server: Its name.
        model: Its model.
        tensor: What it calls its input.
        port: Of REST.
        grpc_port: Of gRPC.
        has_binary: Whether its REST takes binary tensors.
    """

    server: str
    model: str
    tensor: str
    port: int
    grpc_port: int
    has_binary: bool


@dataclass(frozen=True, slots=True)
class Case:
    """What is asked.

    Attributes:
        door: REST, gRPC, ...
        connections: Each with one request in flight.
        rows: Of each request.
    """

    door: str
    connections: int
    rows: int


CASES = (
    *(Case(door, connections, 1) for door in (REST, GRPC, GRPC_LIBRARY) for connections in (1, 8)),
    *(Case(door, 8, 64) for door in (REST, REST_BINARY, GRPC)),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """The median round of a case on a server."""

    server: str
    door: str
    connections: int
    rows: int
    requests_per_s: float
    rows_per_s: float
    p50_ms: float
    p99_ms: float


def measure(
    targets: Sequence[Target],
    features: NDArray[np.float32],
    *,
    rounds: int,
    duration_s: float,
    on_progress: Callable[[str], None],
) -> list[Measured]:
    """Measure every case on every server that has it.

    Args:
        targets: Servers that run.
        features: Shape (64, F), finite.
        rounds: Times that all is measured.
        duration_s: Of each run, after a fifth of it to warm up.
        on_progress: Told of each run.

    Raises:
        TransientError: A server refused or ended.
    """
    loads: dict[tuple[Case, str], list[Load]] = {}
    for number in range(rounds):
        for case in CASES:
            for target in targets if number % 2 else reversed(targets):
                if case.door == REST_BINARY and not target.has_binary:
                    continue
                done = _run(target, case, features[: case.rows], duration_s)
                loads.setdefault((case, target.server), []).append(done)
                on_progress(
                    f"round {number + 1}: {target.server}, {case.door}, {case.connections} "
                    f"connections, {case.rows} rows: {done.requests_per_s:,.0f}/s"
                )
    return [_median(case, server, runs) for (case, server), runs in loads.items()]


def _median(case: Case, server: str, runs: list[Load]) -> Measured:
    middle = statistics.median_low([run.requests_per_s for run in runs])
    run = next(run for run in runs if run.requests_per_s == middle)
    return Measured(
        server,
        case.door,
        case.connections,
        case.rows,
        round(run.requests_per_s, 1),
        round(run.requests_per_s * case.rows, 1),
        round(run.p50_ms, 3),
        round(run.p99_ms, 3),
    )


def ratios(rows: Sequence[Measured]) -> dict[str, float]:
    """How many times the peer's requests a second ours answers, by case."""
    rates = {(r.server, r.door, r.connections, r.rows): r.requests_per_s for r in rows}
    return {
        f"{door}, {connections} connections, {count} rows": round(
            rate / rates[PEER, door, connections, count], 2
        )
        for (server, door, connections, count), rate in rates.items()
        if server == OURS and (PEER, door, connections, count) in rates
    }


def result(rows: Sequence[Measured]) -> dict[str, Any]:
    """All figures, as the command prints them."""
    return {"cases": [asdict(row) for row in rows], "ratios": ratios(rows)}


def table(result: Mapping[str, Any]) -> str:
    """The figures for people."""
    lines = [
        f"{'server':<10} {'door':<22} {'conn':>4} {'rows':>4} {'requests/s':>11} "
        f"{'rows/s':>10} {'p50 ms':>8} {'p99 ms':>8}"
    ]
    lines += [
        f"{row['server']:<10} {row['door']:<22} {row['connections']:>4} {row['rows']:>4} "
        f"{row['requests_per_s']:>11,.0f} {row['rows_per_s']:>10,.0f} "
        f"{row['p50_ms']:>8.2f} {row['p99_ms']:>8.2f}"
        for row in result["cases"]
    ]
    lines += [f"{ratio:>6.2f} times: {case}" for case, ratio in result["ratios"].items()]
    return "\n".join(lines)


def _run(target: Target, case: Case, features: NDArray[np.float32], duration_s: float) -> Load:
    warmup_s = duration_s / 5
    if case.door == GRPC_LIBRARY:
        message = _message(target, features)
        return _by_library(target, case.connections, message, duration_s, warmup_s)
    wires = [_wire(target, case.door, features) for _ in range(case.connections)]
    port = target.grpc_port if case.door == GRPC else target.port
    return load(port, wires, warmup_s=warmup_s, duration_s=duration_s)


def _wire(target: Target, door: str, features: NDArray[np.float32]) -> Wire:
    if door == GRPC:
        return GrpcWire(v2.MODEL_INFER.path, _message(target, features))
    path = f"/v2/models/{target.model}/infer"
    tensor: dict[str, Any] = {
        "name": target.tensor,
        "datatype": "FP32",
        "shape": list(features.shape),
    }
    if door == REST:
        tensor["data"] = [float(f"{value:.7g}") for value in features.ravel()]
        return HttpWire(path, json.dumps({"inputs": [tensor]}).encode(), expected=b'"outputs"')
    raw = features.astype("<f4").tobytes()
    tensor["parameters"] = {"binary_data_size": len(raw)}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    length = ("Inference-Header-Content-Length", str(len(head)))
    return HttpWire(path, head + raw, "application/octet-stream", (length,), b'"outputs"')


def _message(target: Target, features: NDArray[np.float32]) -> bytes:
    tensor = v2.InferInputTensor(name=target.tensor, datatype="FP32", shape=features.shape)
    return v2.encode(
        v2.MODEL_INFER.request(
            model_name=target.model,
            inputs=[tensor],
            raw_input_contents=[features.astype("<f4").tobytes()],
        )
    )


def _by_library(
    target: Target, connections: int, message: bytes, duration_s: float, warmup_s: float
) -> Load:
    """With grpcio's client, a thread and a channel for each connection."""
    together = threading.Barrier(connections)
    with ThreadPoolExecutor(connections) as pool:
        calls = [
            pool.submit(_call, target.grpc_port, message, together, warmup_s, duration_s)
            for _ in range(connections)
        ]
        took_ms = 1000 * np.concatenate([each.result() for each in calls])
    p50, p99 = np.percentile(took_ms, [50, 99])
    return Load(len(took_ms) / duration_s, float(p50), float(p99))


def _call(
    port: int, message: bytes, together: threading.Barrier, warmup_s: float, duration_s: float
) -> NDArray[np.float64]:
    """Seconds that each call took, on a connection of its own; at least one."""
    import grpc

    took_s: list[float] = []
    # Channels to one address share a connection unless told otherwise.
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        call = channel.unary_unary(v2.MODEL_INFER.path)
        call(message, wait_for_ready=True, timeout=_START_TIMEOUT_S)
        together.wait(_START_TIMEOUT_S)
        now_s = time.perf_counter()
        begin_s = now_s + warmup_s
        while not took_s or now_s < begin_s + duration_s:
            sent_s = now_s
            call(message, timeout=_START_TIMEOUT_S)
            now_s = time.perf_counter()
            if sent_s >= begin_s:
                took_s.append(now_s - sent_s)
    return np.array(took_s)


@contextmanager
def our_server(bundle: Path, model: str) -> Iterator[Target]:
    """Our server on a bundle, in a process of its own, ended at the end.

    Raises:
        TransientError: It did not start.
    """
    child = subprocess.Popen(
        [sys.executable, "-m", "cloud.bench_serving_child", str(bundle)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None and child.stdout is not None
    try:
        line = child.stdout.readline()
        if not line:
            raise TransientError("the model server did not start")
        where = json.loads(line)
        yield Target(OURS, model, "features", where["port"], where["grpc_port"], True)
    finally:
        child.stdin.close()
        child.wait(_START_TIMEOUT_S)
        child.stdout.close()
