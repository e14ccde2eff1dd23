"""Foreign clients pass against both RPC doors: tritonclient over REST and over gRPC."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving_models import catalog_of, release, rows, small
from serving_server import running

from scoring.scorer import BatchScorer

CHILD = Path(__file__).parent / "triton_child.py"
COLUMNS = len(small().manifest.features)


def triton(kind: str, port: int, path: Path, version: str) -> Any:
    done = subprocess.run(
        [sys.executable, str(CHILD), kind, str(port), "anomaly", str(path), version],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind", ["http", "grpc"])
@pytest.mark.parametrize(("count", "missing"), [(1, 0.0), (64, 0.02), (5000, 0.02)])
def test_tritonclient_gets_the_bits_of_the_scorer(
    kind: str, count: int, missing: float, tmp_path: Path
) -> None:
    features = rows(count, missing=missing)
    np.save(tmp_path / "rows.npy", features)
    with running(catalog_of(release("1"), release("2"))) as server:
        port = server.port if kind == "http" else server.grpc_port
        said = triton(kind, port, tmp_path / "rows.npy", "1")
    assert (said["live"], said["ready"], said["server"]) == (True, True, "motorcade")
    assert said["model_ready"] and said["version_ready"] and not said["other_ready"]
    assert said["model"]["versions"] == ["1", "2"]
    (features_in,) = [t for t in said["model"]["inputs"] if t["name"] == "features"]
    assert [int(size) for size in features_in["shape"]] == [-1, COLUMNS]
    index = said["index"] if kind == "http" else said["index"]["models"]
    assert [(e["version"], e["state"]) for e in index] == [("1", "READY"), ("2", "READY")]
    assert (said["unloaded_ready"], said["loaded_ready"]) == (False, True)
    status, message = said["unknown"]
    assert status in ("404", "StatusCode.NOT_FOUND")
    assert "no model 'other'" in message
    scores, outputs = BatchScorer(release("1")).score_and_reconstruct(features)
    assert len(said["answers"]) == (3 if missing and kind == "http" else 4)
    for answer in said["answers"]:
        assert answer["score"] == scores.astype("<f4").tobytes().hex()
        assert answer["reconstruction"] == outputs.astype("<f4").tobytes().hex()
        assert answer["model_version"] == "1"
        assert "pinned" in str(answer["parameters"]["arm"])
    assert said["answers"][1]["id"] == "7"
