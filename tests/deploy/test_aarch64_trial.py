"""The parts of `make test-aarch64` that decide; the rest of it is the test."""

from pathlib import Path

import numpy as np
import pytest

from deploy import userland
from deploy.aarch64_trial import KINDS, MODELS, ROWS, TrialError, likeness, rows_for
from schemas.errors import SettingsError
from scoring.bundle import Bundle


def scores(*values: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.array(values, np.float32)


def test_equal_bits_are_counted_and_the_worst_difference_is_found() -> None:
    found = likeness(scores(1.0, 3.0, np.nan), scores(1.0, 3.4, np.nan))
    assert (found.rows, found.same_bits) == (3, 2)
    assert found.difference == pytest.approx(0.1)


def test_a_score_that_is_missing_on_one_side_is_no_small_difference() -> None:
    assert likeness(scores(1.0), scores(np.nan)).difference == np.inf
    with pytest.raises(TrialError, match="scores instead of"):
        likeness(scores(1.0, 2.0), scores(1.0))


@pytest.mark.parametrize("name", KINDS.values())
def test_rows_fit_the_model_and_are_the_same_each_time(name: str) -> None:
    bundle = Bundle.load(MODELS / f"{name}.motorcade")
    rows = rows_for(bundle)
    assert rows.shape == (ROWS, bundle.manifest.window * len(bundle.manifest.features))
    assert 0 < np.isnan(rows).mean() < 0.1
    np.testing.assert_array_equal(rows, rows_for(bundle))


def apt(directory: Path, *targets: str) -> str:
    """A PATH on which apt-get lists these index targets."""
    lines = "\n".join(f"echo '{target}'" for target in targets)
    program = directory / "apt-get"
    program.write_text(f"#!/bin/sh\n{lines}\n", "utf-8")
    program.chmod(0o755)
    return str(directory)


def test_the_mirror_is_the_one_of_this_machines_apt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(userland.MIRROR_VARIABLE, raising=False)
    security = "bookworm-security http://security.example/"
    main = "bookworm http://mirror.example/debian/"
    monkeypatch.setenv("PATH", apt(tmp_path, security, main))
    assert userland.mirror("bookworm") == "http://mirror.example/debian/"
    assert userland.mirror("trixie") == "http://mirror.example/debian/"
    monkeypatch.setenv(userland.MIRROR_VARIABLE, "http://own.example/")
    assert userland.mirror("bookworm") == "http://own.example/"


def test_an_apt_that_knows_no_debian_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(userland.MIRROR_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", apt(tmp_path))
    with pytest.raises(SettingsError, match=userland.MIRROR_VARIABLE):
        userland.mirror("bookworm")


def test_what_is_missing_is_named_before_anything_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(SettingsError, match="needs root"):
        userland.require_tools("aarch64")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SettingsError, match=r"apt install .*debootstrap.* qemu-user-static"):
        userland.require_tools("aarch64")
