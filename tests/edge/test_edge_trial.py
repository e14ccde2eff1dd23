"""A model's trial in a process of its own: what it dies of harms nobody else."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import bad_models
import pytest
from edge_parts import batch, bundle

from edge.trial import Report, tried
from edge.trial_inputs import built_in, recorded
from edge.trial_process import run_trial
from schemas.codec import Framing, decode_telemetry
from schemas.errors import ContractError, Reason, TransientError
from schemas.signals import SIGNAL_NAMES
from scoring.bounds import Bounds
from scoring.bundle import Bundle

TIMEOUT_S = 120.0
WINDOWED = Path(__file__).parent.parent / "scoring" / "data" / "small_window.motorcade"


def attempt(
    directory: Path, model: bytes | None, *, timeout_s: float = TIMEOUT_S, **bounds: float
) -> Report:
    made = bundle(model=model)
    path = directory / "new.staged"
    Bundle(replace(made.manifest, bounds=Bounds(**bounds)), made.model).save(path)
    found = run_trial(path, built_in(), timeout_s=timeout_s, bounds=Bounds(**bounds))
    assert list(directory.iterdir()) == [path], "nothing is left behind"
    return found


def refusal(directory: Path, model: bytes | None, **more: float) -> ContractError:
    with pytest.raises(ContractError) as caught:
        attempt(directory, model, **more)
    return caught.value


def test_a_good_model_passes(tmp_path: Path) -> None:
    report = attempt(tmp_path, None, reading_ms_max=1_000.0)
    assert report.readings == report.judged == 800
    assert report.nan_share == 0.0
    assert 0 < report.reading_ms_p99 < 1_000


def test_a_windowed_model_passes_too(tmp_path: Path) -> None:
    path = tmp_path / "new.staged"
    path.write_bytes(WINDOWED.read_bytes())
    report = run_trial(path, built_in(), timeout_s=TIMEOUT_S)
    assert 0 < report.judged < report.readings, "before its window is full nothing is judged"
    assert report.nan_share == 0.0


def test_a_model_that_crashes_the_interpreter_crashes_the_trial_alone(tmp_path: Path) -> None:
    model = bad_models.crashing()
    script = (
        "import sys; from scoring.interpreter import TfliteModel; "
        "TfliteModel(sys.stdin.buffer.read(), n_inputs=2, n_outputs=2)"
    )
    alone = subprocess.run([sys.executable, "-c", script], input=model, check=False, timeout=60)
    assert alone.returncode < 0, "it ends a process by a signal, or this test shows nothing"
    error = refusal(tmp_path, model)
    assert error.reason is Reason.MODEL_TRIAL
    assert "crashed the process" in error.detail and "SIG" in error.detail


def test_a_model_that_hangs_is_ended(tmp_path: Path) -> None:
    error = refusal(tmp_path, bad_models.endless(), timeout_s=1.0)
    assert error.reason is Reason.MODEL_TRIAL
    assert "not done after 1 s" in error.detail or "did not come to an end" in error.detail


def test_a_trial_ends_with_its_gateway(tmp_path: Path) -> None:
    path = tmp_path / "new.staged"
    bundle(model=bad_models.endless()).save(path)
    with pytest.raises(TransientError, match="stopped"):
        run_trial(path, built_in(), timeout_s=TIMEOUT_S, stopped=lambda: True)


def test_a_model_that_eats_memory_is_refused(tmp_path: Path) -> None:
    assert "MiB" in refusal(tmp_path, bad_models.greedy()).detail


def test_a_model_that_gives_nan_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path, bad_models.without_numbers())
    assert error.reason is Reason.MODEL_TRIAL
    assert "NaN" in error.detail and "of 800 readings" in error.detail


def test_a_model_slower_than_its_bounds_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path, None, reading_ms_max=1e-9)
    assert "its bounds allow 1e-09 ms" in error.detail


def test_a_file_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "new.staged"
    path.write_bytes(b"rubbish")
    with pytest.raises(ContractError) as caught:
        run_trial(path, [], timeout_s=TIMEOUT_S)
    assert caught.value.reason is Reason.NOT_AVRO


def test_a_trial_that_cannot_begin_is_no_fault_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "absent"))
    with pytest.raises(TransientError, match="no model can be tried"):
        attempt(tmp_path, None)


def test_a_trial_knows_no_secrets_and_no_open_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOTORCADE_MQTT_PASSWORD", "secret")
    spy = tmp_path / "spy"
    spy.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "fds = sorted(int(fd) for fd in os.listdir('/proc/self/fd'))[:-1]\n"
        "sys.stderr.write(json.dumps([fds, sorted(os.environ)]))\n"
    )
    spy.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(spy))
    with (tmp_path / "open").open("w") as held, pytest.raises(ContractError) as caught:
        assert held.fileno() > 2
        run_trial(tmp_path / "x", [], timeout_s=TIMEOUT_S)
    assert "[0, 1, 2]" in caught.value.detail
    assert "MOTORCADE_MQTT_PASSWORD" not in caught.value.detail


def test_the_built_in_readings_are_sound_and_sweep_every_signal() -> None:
    columns = decode_telemetry(built_in(), framing=Framing.SINGLE_OBJECT, signals=SIGNAL_NAMES)
    assert columns.rejected == []
    assert ((columns.values == columns.values).sum(axis=0) > 500).all()
    assert sorted(set(columns.vehicle_ids)) == [b"trial-0", b"trial-1"]


def test_recorded_readings_are_used_whatever_else_is_among_them() -> None:
    payloads = [batch("car", seq) for seq in range(1, 50)] + [b"rubbish"]
    assert tried(bundle(), payloads).readings == 49


def test_an_empty_spool_gives_nothing() -> None:
    class Empty:
        def first_position(self, _lane: object) -> None:
            return None

        def telemetry(self, **_: int) -> list[object]:
            raise AssertionError

    assert recorded(Empty(), last=0) == []  # type: ignore[arg-type]
