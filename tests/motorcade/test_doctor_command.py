"""The doctor says what is missing, in words, with the fix; moments are what people type."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from motorcade import doctor
from motorcade.cli import run
from motorcade.moments import moment_ms
from motorcade.toml_lines import line_of


def test_every_missing_thing_comes_with_a_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec

    def without_paho(name: str, *arguments: Any) -> Any:
        return None if name == "paho" else real(name, *arguments)

    monkeypatch.setattr(importlib.util, "find_spec", without_paho)
    found = {finding.name: finding for finding in doctor.examine()}
    edge = found["extra edge"]
    assert not edge.ok
    assert edge.text == "without paho"
    assert edge.fix == "pip install 'motorcade[edge]'"
    assert "gateway" in edge.needed_for
    assert all(finding.fix for finding in found.values() if not finding.ok)


def test_its_exit_status_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    status = run(["doctor", "--json"])
    findings = json.loads(capsys.readouterr().out)
    assert status == (0 if all(finding["ok"] for finding in findings) else 1)
    assert {"python", "machine", "disk", "memory"} <= {finding["name"] for finding in findings}


def test_memory_as_the_kernel_tells_it(tmp_path: Path) -> None:
    told = tmp_path / "meminfo"
    told.write_text("MemTotal: 8 kB\nMemAvailable:    2048 kB\n")
    assert doctor.available_memory_bytes(told) == 2 * 1024 * 1024
    assert doctor.available_memory_bytes(tmp_path / "absent") is None


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        ("90s", 1_000_000_000 - 90_000),
        ("5m", 1_000_000_000 - 300_000),
        ("1.5h", 1_000_000_000 - 5_400_000),
        ("2d", 1_000_000_000 - 172_800_000),
        ("1970-01-01T00:00:01", 1_000),
        ("1970-01-01T01:00:01+01:00", 1_000),
    ],
)
def test_moments(text: str, at_ms: int) -> None:
    assert moment_ms(text, now_ms=1_000_000_000) == at_ms


@pytest.mark.parametrize("text", ["", "5", "m5", "5 weeks", "yesterday"])
def test_what_is_no_moment_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["watch", "alerts", "--since", text]) == 2
    assert "no age like 5m" in capsys.readouterr().err


def test_line_of_the_docstring() -> None:
    assert line_of("[mqtt]\nhost = 'a'\nport = 1\n", ("mqtt", "port")) == 3
