"""MLServer in its own environment hosts a bare network that answers with our bits."""

import json
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from deploy.mlserver_env import MlServer, Network, environment
from deploy.ports import free_ports
from schemas.errors import TransientError
from scoring.bundle import Bundle
from scoring.interpreter import TfliteModel

SMALL = Path(__file__).parents[1] / "scoring" / "data" / "small.motorcade"


def test_a_network_in_mlserver_gives_the_same_bits(tmp_path: Path) -> None:
    try:
        python = environment()
    except TransientError as error:
        pytest.skip(f"MLServer cannot be had: {error}")
    bundle = Bundle.load(SMALL)
    columns = len(bundle.manifest.features)
    http_port, grpc_port, metrics_port = free_ports(3)
    rows = np.random.default_rng(1).normal(size=(3, columns)).astype(np.float32)
    network = Network("net", "1", bundle.model, columns)
    with MlServer(
        python,
        tmp_path,
        [network],
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
    ) as server:
        body = {
            "inputs": [
                {
                    "name": "input",
                    "datatype": "FP32",
                    "shape": list(rows.shape),
                    "data": rows.ravel().tolist(),
                }
            ]
        }
        url = f"http://127.0.0.1:{server.http_port}/v2/models/net/versions/1/infer"
        request = urllib.request.Request(
            url, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = json.load(response)
    (output,) = answer["outputs"]
    given = np.array(output["data"], np.float32).reshape(output["shape"])
    expected = TfliteModel(bundle.model, n_inputs=columns, n_outputs=columns).run(rows)
    np.testing.assert_array_equal(given, expected)
