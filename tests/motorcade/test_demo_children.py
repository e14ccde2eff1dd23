"""Children end with the demo, in whatever way it ends."""

import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from deploy.processes import identify, is_alive
from motorcade.demo_children import Crew, clean_environment, settings_text

ROOT = Path(__file__).resolve().parents[2]

# Stands in for `motorcade`: `python -m` looks into the working directory first.
STUB = """
import json, signal, sys, time
print(json.dumps({"arguments": sys.argv[1:]}), flush=True)
print("no json", flush=True)
print("a log line", file=sys.stderr, flush=True)
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print(json.dumps({"deaf": True}), flush=True)
if "quick" in sys.argv:
    sys.exit(7)
time.sleep(60)
"""


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / "path" / "motorcade"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(STUB)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(package.parent)
    directory = tmp_path / "run"
    directory.mkdir()
    return directory


def wait_for(what: str, seen: Path) -> None:
    deadline_s = time.monotonic() + 30
    while not (seen.exists() and what in seen.read_text()):
        assert time.monotonic() < deadline_s, f"no {what!r} in {seen}"
        time.sleep(0.02)


def test_a_child_says_what_it_does_and_ends_when_asked(stub: Path) -> None:
    with Crew(stub) as crew:
        child = crew.start("one", ["a", "b"])
        wait_for("no json", child.out)
        assert child.progress() == [{"arguments": ["a", "b"]}]
        assert child.progress() == []
        assert child.running
    assert child.status == -signal.SIGTERM
    assert "a log line" in child.tail()


def test_a_child_that_does_not_listen_is_killed(stub: Path) -> None:
    with Crew(stub) as crew:
        child = crew.start("one", ["stubborn"])
        wait_for("deaf", child.out)
        assert not child.stop(timeout_s=0.2)
        assert child.status == -signal.SIGKILL


def test_a_childs_own_end_is_seen_and_it_can_be_started_again(stub: Path) -> None:
    with Crew(stub) as crew:
        child = crew.start("one", ["quick"])
        assert child.wait(30)
        assert child.status == 7
        crew.restart("one")
        assert child.wait(30)
        wait_for("no json", child.out)
        assert len(child.progress()) == 2


def test_children_end_when_their_parent_is_killed(stub: Path) -> None:
    # The parent has the real package, its children the stub of the working directory.
    program = f"""
import os, sys, time
sys.path.remove("")
from pathlib import Path
from motorcade.demo_children import Crew
with Crew(Path({str(stub)!r})) as crew:
    print(crew.start("one", []).pid, flush=True)
    time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = identify(int(parent.stdout.readline()))
    assert child is not None
    wait_for("no json", stub / "one.out")
    parent.kill()
    parent.wait(30)
    parent.stdout.close()
    deadline_s = time.monotonic() + 30
    while is_alive(child):
        assert time.monotonic() < deadline_s, "the child outlived its parent"
        time.sleep(0.05)


def test_settings_of_the_environment_do_not_reach_children(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MOTORCADE_MQTT_HOST", "elsewhere")
    monkeypatch.setenv("MOTORCADE_CONFIG", "elsewhere.toml")
    monkeypatch.setenv("MOTORCADE_CACHE", "/cache")
    environment = clean_environment()
    assert "MOTORCADE_MQTT_HOST" not in environment
    assert "MOTORCADE_CONFIG" not in environment
    assert environment["MOTORCADE_CACHE"] == "/cache"


def test_the_settings_file_says_what_was_meant() -> None:
    sections = {"a": {"path": Path('/x "y"'), "n": 1.5, "on": True, "none": None}, "b": {}}
    text = settings_text(sections)
    assert tomllib.loads(text) == {"a": {"path": '/x "y"', "n": 1.5, "on": True}, "b": {}}
