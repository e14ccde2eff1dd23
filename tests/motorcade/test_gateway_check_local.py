"""`motorcade gateway check --local`: what a service manager asks before a start."""

from collections.abc import Callable
from pathlib import Path

import pytest

from edge.models import ModelStore
from motorcade.cli import run
from scoring.bundle import Bundle

SMALL = Path(__file__).parents[1] / "scoring" / "data" / "small.motorcade"

CheckLocal = Callable[..., tuple[int, str]]


@pytest.fixture
def check_local(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> CheckLocal:
    """Runs the check with a spool and models below `tmp_path`: exit status and what it says."""

    def check(*flags: str) -> tuple[int, str]:
        places = ["--spool-path", f"{tmp_path}/spool/x", "--models-path", f"{tmp_path}/models"]
        status = run(["gateway", "check", "--local", *places, *flags])
        return status, capsys.readouterr().out

    return check


def test_brokers_are_not_asked(check_local: CheckLocal) -> None:
    status, told = check_local("--mqtt-port", "1", "--kafka-bootstrap-servers", "127.0.0.1:1")
    assert status == 0, told
    looked_at = {line.split()[1] for line in told.splitlines()}
    assert {"settings", "place", "disk", "spool", "model", "budget"} <= looked_at
    assert not looked_at & {"mqtt", "kafka", "registry"}


def test_a_bad_model_is_told_and_stops_no_start(tmp_path: Path, check_local: CheckLocal) -> None:
    models = tmp_path / "models"
    ModelStore(models).install(Bundle.load(SMALL))
    (file,) = models.glob("*.motorcade")
    file.write_bytes(file.read_bytes()[:-100])
    status, told = check_local()
    assert "FAIL  model" in told
    assert status == 0


def test_a_spool_on_memory_is_refused(
    tmp_path: Path, check_local: CheckLocal, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"22 1 0:25 / {tmp_path} rw - tmpfs tmpfs rw\n", "utf-8")
    monkeypatch.setattr("edge.check.MOUNTS", mounts)
    status, told = check_local()
    assert status == 1
    assert "FAIL  place" in told and "a power cut would take the spool" in told


def test_a_wrong_setting_forbids_the_start(check_local: CheckLocal) -> None:
    status, _ = check_local("--group-commit-ms", "501")
    assert status == 2
