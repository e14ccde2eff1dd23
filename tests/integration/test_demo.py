"""The demo, whole: simulated and recorded drives, both at once on one machine."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.processes import identify

ROOT = Path(__file__).resolve().parents[2]
RECORDING = ROOT / "simulator" / "data" / "kit_normal_small.csv.gz"
TIMEOUT_S = 280.0

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


@dataclass
class Demo:
    """A `motorcade demo` under way."""

    process: "subprocess.Popen[bytes]"
    directory: Path
    output: Path
    found: Path

    def end(self) -> int:
        try:
            return self.process.wait(TIMEOUT_S)
        finally:
            self.process.kill()


def start(directory: Path, *arguments: str) -> Demo:
    directory.mkdir()
    output, found = directory / "output.txt", directory / "found.json"
    where = ["--directory", str(directory / "run"), "--json", str(found)]
    with output.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "motorcade", "demo", *where, *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Demo(process, directory / "run", output, found)


@pytest.fixture(scope="module")
def demos(
    tmp_path_factory: pytest.TempPathFactory, java_artifacts: None
) -> Iterator[dict[str, Demo]]:
    directory = tmp_path_factory.mktemp("demos")
    running = {
        "simulated": start(directory / "a", "--vehicles", "50", "--duration", "60"),
        "recorded": start(directory / "b", "--replay", str(RECORDING), "--duration", "60"),
    }
    try:
        yield running
    finally:
        for demo in running.values():
            if demo.process.poll() is None:
                demo.process.send_signal(signal.SIGINT)
                demo.end()


def processes_of(directory: Path) -> list[int]:
    """Processes that have the directory on their command line or in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(directory) in command and identify(int(entry.name)) is not None:
                found.append(int(entry.name))
    return found


def assert_all_gone(directory: Path) -> None:
    deadline_s = time.monotonic() + 30
    while left := processes_of(directory):
        assert time.monotonic() < deadline_s, f"still running: {left}"
        time.sleep(0.1)


@pytest.mark.parametrize("name", ["simulated", "recorded"])
def test_nothing_is_lost_or_counted_twice(demos: dict[str, Demo], name: str) -> None:
    demo = demos[name]
    status = demo.end()
    assert status == 0, demo.output.read_text()[-6000:]
    found: dict[str, Any] = json.loads(demo.found.read_text())
    readings = found["readings"]
    assert readings["measured"] > 1000
    assert readings["lost"] == readings["duplicated"] == readings["dropped_by_vehicles"] == 0
    everywhere = {readings[key] for key in ("measured", "acknowledged", "in_kafka", "scored")}
    assert len(everywhere) == 1
    assert found["outage_s"] >= 10
    assert found["faults"]["injected"] == found["faults"]["detected"] + found["faults"]["missed"]
    assert found["faults"]["injected"] >= 1
    assert found["alerts"]["duplicated"] == 0
    assert found["model"]["name"] == "anomaly"
    assert len(found["model"]["sha256"]) == 64
    assert_all_gone(demo.directory)


def test_faults_are_found_on_the_edge_and_in_the_cloud(demos: dict[str, Demo]) -> None:
    # Of the simulated fleet: three recorded trips hold one fault, which may be a hard one.
    demo = demos["simulated"]
    assert demo.end() == 0, demo.output.read_text()[-6000:]
    found = json.loads(demo.found.read_text())
    assert found["faults"]["detected"] >= 1
    assert found["alerts"]["edge"] >= 1
    assert found["alerts"]["cloud"] >= 1
    assert found["latency_ms"]["edge"]["p99"] >= found["latency_ms"]["edge"]["p50"] > 0


@pytest.mark.parametrize(("word", "number"), [("starting", 2), ("healthy", 15)])
def test_ctrl_c_stops_everything(
    tmp_path: Path, java_artifacts: None, word: str, number: int
) -> None:
    demo = start(tmp_path / "demo", "--vehicles", "5", "--duration", "60")
    try:
        deadline_s = time.monotonic() + 60
        while word not in demo.output.read_text():
            assert time.monotonic() < deadline_s, demo.output.read_text()
            assert demo.process.poll() is None, demo.output.read_text()
            time.sleep(0.05)
        demo.process.send_signal(number)
        assert demo.process.wait(60) == 130
    finally:
        demo.process.kill()
        demo.process.wait(30)
    assert_all_gone(demo.directory)
