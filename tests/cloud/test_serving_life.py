"""The server's life: swaps under load, kill -9 and restart, Kafka that is away, comes and goes."""

import json
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving_models import catalog_of, release, rows, unusable
from serving_server import PATIENCE_S, RunningServer, body_of, output, running

from cloud.bench_load import load
from cloud.bench_wire import HttpWire
from cloud.serving.model_folder import CATALOG, ModelFolder
from deploy.stack import Stack
from scoring.scorer import BatchScorer
from scoring.traffic import Arm, Experiment, Mode, Traffic
from transport.kafka import KafkaSettings, ensure_topics, read_to_end
from transport.releases import publish_release

INFER = "/v2/models/anomaly/infer"


def test_swaps_under_load_lose_nothing_and_mix_nothing() -> None:
    """Every answer is that of a whole version, and says which."""
    features = rows(16)
    expected = {str(v): BatchScorer(release(str(v))).score(features) for v in range(1, 7)}
    body = json.dumps(body_of(features)).encode()
    stop = threading.Event()
    with running(catalog_of(release("1"))) as server:

        def ask(_: int) -> set[str]:
            seen = set()
            while not stop.is_set() or "6" not in seen:
                reply = server.post(INFER, body)
                assert reply.status == 200
                version = reply.json["model_version"]
                np.testing.assert_array_equal(output(reply), expected[version])
                seen.add(version)
            return seen

        with ThreadPoolExecutor(4) as pool:
            asking = [pool.submit(ask, number) for number in range(4)]
            catalog = catalog_of(release("1"))
            for version in range(2, 7):
                catalog = catalog.with_release(release(str(version)))
                server.repository.update(catalog)
            stop.set()
            seen = set().union(*(each.result(PATIENCE_S) for each in asking))
    assert "6" in seen
    assert not server.heard.errors


@contextmanager
def served(*arguments: str) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """`motorcade serve` in a process, and its REST port; killed at the end if it still runs."""
    child = subprocess.Popen(
        [sys.executable, "-m", "motorcade", "serve", "--port", "0", "--grpc-port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert child.stdout is not None
    try:
        where = json.loads(child.stdout.readline())
        yield child, where["port"]
    finally:
        if child.poll() is None:
            child.kill()
        child.wait(PATIENCE_S)
        child.stdout.close()


def ask(port: int, path: str, body: bytes | None = None) -> Any:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body)
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as reply:
        return json.load(reply)


def wait_for(answers: Any) -> Any:
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            found = answers()
        except urllib.error.HTTPError as error:
            error.close()
            found = None
        if found:
            return found
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


NOWHERE = ("--kafka-bootstrap-servers", "127.0.0.1:1", "--kafka-registry-url", "http://127.0.0.1:1")


def version_at(port: int) -> str:
    reply = ask(port, INFER, json.dumps(body_of(rows(1))).encode())
    return str(reply["model_version"])


def test_a_server_that_is_killed_comes_back_without_kafka(tmp_path: Path) -> None:
    """The folder has what the log said; a kill -9 in the middle of requests leaves it whole."""
    traffic = Traffic("anomaly").promoted("1", champion_now=None)
    ModelFolder(tmp_path).keep(catalog_of(release("1"), release("2")).with_traffic(traffic))
    folder = ("--models-dir", str(tmp_path))
    with served(*folder, *NOWHERE) as (child, port):
        assert version_at(port) == "1"
        wire = HttpWire(INFER, json.dumps(body_of(rows(1))).encode())
        load(port, [wire], warmup_s=0, duration_s=0.2)
        child.send_signal(signal.SIGKILL)
        child.wait(PATIENCE_S)
    with served(*folder, *NOWHERE) as (child, port):
        assert version_at(port) == "1"
        child.send_signal(signal.SIGTERM)
        assert child.wait(PATIENCE_S) == 0


@pytest.mark.integration
def test_rest_goes_on_while_kafka_is_away(
    fresh_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    """Kafka is there, dies, and comes back with a newer release; REST never stops answering."""
    stack = fresh_stack()
    kafka = KafkaSettings(
        bootstrap_servers=stack.endpoints.kafka_bootstrap,
        registry_url=stack.endpoints.registry_url,
    )
    ensure_topics(kafka)
    publish_release(kafka, release("1"))
    options = (
        "--kafka-bootstrap-servers",
        kafka.bootstrap_servers,
        "--kafka-registry-url",
        kafka.registry_url,
    )
    with served("--models-dir", str(tmp_path / "models"), *options) as (_, port):
        wait_for(lambda: ask(port, "/v2/health/ready")["ready"])
        assert version_at(port) == "1"
        publish_release(kafka, unusable("2"))
        publish_release(kafka, release("3"))
        wait_for(lambda: version_at(port) == "3")
        index = ask(port, "/v2/repository/index", b"")
        assert [e["state"] for e in index] == ["READY", "UNAVAILABLE", "READY"]
        letters = wait_for(lambda: dead_letters(kafka))
        assert letters == [b"anomaly/2"]
        stack.stop_part("kafka")
        assert version_at(port) == "3"
        assert ask(port, "/v2/health/ready")["ready"]
        stack.start_part("kafka")
        publish_release(kafka, release("4"))
        wait_for(lambda: version_at(port) == "4")
        wait_for(lambda: "anomaly@4.motorcade" in kept(tmp_path))


def kept(directory: Path) -> str:
    return (directory / "models" / CATALOG).read_text()


def dead_letters(kafka: KafkaSettings) -> list[bytes]:
    return [
        message.key() or b"" for batch in read_to_end(kafka, "dead-letters") for message in batch
    ]


def test_a_folder_keeps_a_catalog(tmp_path: Path) -> None:
    arms = (Arm("champion", "1", 0.5), Arm("new", "2", 0.5))
    traffic = Traffic("anomaly", experiment=Experiment("trial", Mode.AB, "salt", 7, arms))
    catalog = catalog_of(release("2"), release("1"), release("1", "other")).with_traffic(traffic)
    ModelFolder(tmp_path / "models").keep(catalog)
    assert ModelFolder(tmp_path / "models").load() == catalog


def test_a_folder_forgets_what_is_gone_and_writes_what_is_new(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path)
    folder.keep(catalog_of(release("1"), release("2")))
    written_ns = (tmp_path / "anomaly@2.motorcade").stat().st_mtime_ns
    folder.keep(catalog_of(release("2"), release("3")))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["anomaly@2.motorcade", "anomaly@3.motorcade", CATALOG]
    assert (tmp_path / "anomaly@2.motorcade").stat().st_mtime_ns == written_ns


@pytest.mark.parametrize("damaged", ["anomaly@1.motorcade", CATALOG])
def test_what_is_damaged_is_set_aside(tmp_path: Path, damaged: str) -> None:
    ModelFolder(tmp_path).keep(catalog_of(release("1"), release("2")))
    path = tmp_path / damaged
    path.write_bytes(path.read_bytes()[:20])
    versions = ModelFolder(tmp_path).load().versions("anomaly")
    assert versions == (() if damaged == CATALOG else ("2",))
    assert path.with_name(f"{damaged}.refused").exists()
    assert ModelFolder(tmp_path / "nothing").load().names() == ()


def test_a_port_that_is_taken_is_said() -> None:
    from cloud.serving.server import listen
    from schemas.errors import SettingsError

    with running(catalog_of(release("1"))) as server:
        assert isinstance(server, RunningServer)
        with pytest.raises(SettingsError, match=str(server.port)):
            listen("127.0.0.1", server.port)
