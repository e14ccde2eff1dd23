"""`motorcade keys`, `models sign` and the gateway's model commands, on the disk alone."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from motorcade import cli
from motorcade.commands.models import command as models_command
from motorcade.gateway_model_lines import model_lines
from scoring.bundle import Bundle
from scoring.signing import PublicKey, TrustStore, Verdict

SMALL = Path(__file__).parent.parent / "scoring" / "data" / "small.motorcade"

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in a directory of its own; gives what it said."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, status: int = 0) -> str:
        capsys.readouterr()
        assert cli.run(list(arguments)) == status, capsys.readouterr().err
        said = capsys.readouterr()
        return said.err if status else said.out

    return run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.motorcade"
    path.write_bytes(SMALL.read_bytes())
    return path


STORE = Path(".motorcade/gateway/keys")


def test_keys_are_made_shown_trusted_and_revoked(run: Run) -> None:
    key_id = run("keys", "new", "a.key", "--comment", "release desk").split()[0]
    assert Path("a.key").stat().st_mode & 0o777 == 0o600
    assert PublicKey.load(Path("a.key.pub")).key_id == key_id
    for name in ("a.key", "a.key.pub"):
        assert key_id in run("keys", "show", name)
    assert "never overwritten" in run("keys", "new", "a.key", status=2)
    assert run("keys", "list") == ""
    assert key_id in run("keys", "trust", "a.key.pub")
    assert run("keys", "list") == f"{key_id}  release desk\n"
    [listed] = map(json.loads, run("keys", "list", "--json").splitlines())
    assert (listed["key_id"], listed["comment"]) == (key_id, "release desk")
    (STORE / "broken.pub").write_text("rubbish")
    assert "broken.pub" in run("keys", "list", status=1)
    (STORE / "broken.pub").unlink()
    assert key_id in run("keys", "revoke", key_id)
    assert run("keys", "list") == ""
    assert "there are: none" in run("keys", "revoke", key_id, status=2)
    assert "no public key" in run("keys", "trust", "a.key", status=2)


def test_a_bundle_is_signed_in_its_file(run: Run, file: Path) -> None:
    run("keys", "new", "a.key")
    run("keys", "trust", "a.key.pub")
    assert "which key?" in run("models", "sign", str(file), status=2)
    run("models", "sign", str(file), "--sign-key", "a.key", "--alerts-max", "5")
    signed = Bundle.load(file).manifest
    assert TrustStore.load(STORE).judge(signed) is Verdict.TRUSTED
    assert signed.bounds is not None and signed.bounds.alerts_per_vehicle_hour_max == 5
    run("models", "sign", str(file), "--sign-key", "a.key", "--reading-ms-max", "20")
    again = Bundle.load(file).manifest
    assert again.bounds is not None
    assert (again.bounds.alerts_per_vehicle_hour_max, again.bounds.reading_ms_max) == (5, 20)
    assert TrustStore.load(STORE).judge(again) is Verdict.TRUSTED
    Path("a.key").chmod(0o644)
    assert "others may read" in run("models", "sign", str(file), "--sign-key", "a.key", status=2)


def test_other_bounds_are_not_put_under_an_old_signature(run: Run, file: Path) -> None:
    run("keys", "new", "a.key")
    run("models", "sign", str(file), "--sign-key", "a.key")
    nowhere = ["--kafka-bootstrap-servers=127.0.0.1:1", "--kafka-registry-url=http://127.0.0.1:1"]
    said = run("models", "publish", str(file), "--alerts-max", "5", *nowhere, status=2)
    assert "make the release's signature void" in said
    assert {"sign", "publish"} <= set(models_command.commands)


def test_a_gateways_models_without_a_gateway(run: Run, file: Path) -> None:
    assert run("gateway", "models").splitlines() == ["current   none", "previous  none"]
    assert "no predecessor" in run("gateway", "rollback", status=1)
    name = ["--model-name", "small"]
    said = run("gateway", "install-model", str(file), *name, "--signatures-required", status=5)
    assert "not signed, and signatures are required" in said
    run("keys", "new", "a.key")
    run("keys", "trust", "a.key.pub")
    run("models", "sign", str(file), "--sign-key", "a.key")
    said = run("gateway", "install-model", ".", *name, "--signatures-required")
    assert "small.motorcade is in use" in said and "signed by" in said
    found = json.loads(run("gateway", "models", "--json"))
    assert found["current"]["version"] == "1" and found["running"] is False
    [refused] = found["refused"]
    assert refused["reason"] == "model-signature"
    lines = list(model_lines(found))
    assert lines[0].startswith("current   small@1") and "signed by" in lines[0]
    assert any(line.startswith("pinned") for line in lines)
    assert any("model-signature" in line for line in lines)
    assert run("gateway", "models").splitlines() == lines
