"""Brings our model server and MLServer up side by side, and has them measured."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cloud.bench_fleet import bench_bundle
from cloud.bench_serving import PEER, Target, measure, our_server, result
from deploy.mlserver_env import MlServer, Network, environment
from deploy.ports import free_ports
from scoring.bundle import Bundle

ROWS = 64


def bench_serving(
    *, rounds: int, duration_s: float, peer: bool, on_progress: Callable[[str], None]
) -> dict[str, Any]:
    """Measure our server and, unless told otherwise, MLServer in the same run.

    Both score with the same network; MLServer gives its bare outputs, which is less work.

    Raises:
        TransientError: A server could not be started, or MLServer not be installed.
        SettingsError: There is no Python that MLServer takes.
    """
    bundle = bench_bundle(memory=False)
    manifest = bundle.manifest
    random = np.random.default_rng(1)
    features = random.normal(manifest.mean, manifest.scale, (ROWS, len(manifest.mean)))
    with (
        tempfile.TemporaryDirectory(prefix="motorcade-bench-") as directory,
        contextlib.ExitStack() as stack,
    ):
        path = Path(directory) / "bench.motorcade"
        bundle.save(path)
        targets = [stack.enter_context(our_server(path, manifest.name))]
        if peer:
            targets.append(stack.enter_context(_mlserver(Path(directory), bundle, on_progress)))
        rows = measure(
            targets,
            features.astype(np.float32),
            rounds=rounds,
            duration_s=duration_s,
            on_progress=on_progress,
        )
    return result(rows)


@contextlib.contextmanager
def _mlserver(
    directory: Path, bundle: Bundle, on_progress: Callable[[str], None]
) -> Iterator[Target]:
    on_progress("MLServer: making its environment, the first time only")
    python = environment()
    http_port, grpc_port, metrics_port = free_ports(3)
    manifest = bundle.manifest
    network = Network(manifest.name, manifest.version, bundle.model, len(manifest.features))
    with MlServer(
        python,
        directory / "mlserver",
        [network],
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
    ) as server:
        yield Target(PEER, manifest.name, "input", server.http_port, server.grpc_port, False)
