"""`motorcade serve` answers in Kafka, and `motorcade request` asks it: as a user runs them."""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from serving_models import release, window_release

from deploy.stack import Stack
from motorcade import cli
from scoring.bundle import Bundle
from scoring.scorer import BatchScorer
from transport.kafka import KafkaSettings, ensure_topics
from transport.releases import publish_release

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120.0


@contextmanager
def serving(kafka: KafkaSettings, name: str, *flags: str) -> Iterator[None]:
    command = ["-m", "motorcade", "serve", "--port", "0", "--grpc-port", "0", "--models", name]
    where = ["--kafka-bootstrap-servers", kafka.bootstrap_servers]
    where += ["--kafka-registry-url", kafka.registry_url, "--group-id", f"serve-{name}"]
    with subprocess.Popen(
        [sys.executable, *command, *where, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as process:
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["port"]
            yield
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("flags", [(), ("--exactly-once",)], ids=["acked", "transactions"])
def test_the_command_asks_the_server(
    stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...]
) -> None:
    kafka = KafkaSettings(stack.endpoints.kafka_bootstrap, stack.endpoints.registry_url)
    ensure_topics(kafka)
    name = f"door-{uuid.uuid4().hex[:8]}"
    bundle, lstm = release("1", name), window_release("lstm", name)
    publish_release(kafka, lstm)
    publish_release(kafka, bundle)
    features = [spec.name for spec in bundle.manifest.features]
    mean = np.array(bundle.manifest.mean, np.float32)
    table = tmp_path / "rows.csv"
    table.write_text(",".join(features) + "\n" + (",".join(map(str, mean)) + "\n") * 2)
    where = ["--kafka-bootstrap-servers", kafka.bootstrap_servers]
    where += ["--kafka-registry-url", kafka.registry_url, "--timeout-s", str(PATIENCE_S)]
    with serving(kafka, name, *flags):
        row = json.dumps(dict(zip(features, mean.tolist(), strict=True)))
        assert cli.run(["request", name, "--features", row, "--vehicle", "car-1", *where]) == 0
        one = json.loads(capsys.readouterr().out)
        full = [f"{name}@1", "--rows", str(table), "--reconstruction"]
        assert cli.run(["request", *full, *where]) == 0
        two = json.loads(capsys.readouterr().out)
        drive = tmp_path / "drive.csv"
        drive.write_text(_csv(lstm, 6))
        assert cli.run(["request", f"{name}@lstm", "--rows", str(drive), *where]) == 0
        windowed = json.loads(capsys.readouterr().out)
    scores, outputs = BatchScorer(bundle).score_and_reconstruct(np.stack([mean, mean]))
    assert (one["model"], one["version"], one["arm"]) == (name, "1", "champion")
    assert one["scores"] == scores[:1].tolist()
    assert (two["arm"], two["scores"]) == ("pinned", scores.tolist())
    assert two["reconstruction"] == outputs.tolist()
    # Each reading is shown with the three before it; the first ones have none.
    [score] = BatchScorer(lstm).score(np.tile(_mean(lstm), (1, 4))).tolist()
    assert windowed["scores"] == 3 * [None] + 3 * [score]


def _mean(bundle: Bundle) -> NDArray[np.float32]:
    return np.array(bundle.manifest.mean, np.float32)


def _csv(bundle: Bundle, rows: int) -> str:
    """So many rows, each the training mean."""
    head = ",".join(bundle.manifest.feature_names)
    return "\n".join([head, *[",".join(map(str, _mean(bundle)))] * rows])
