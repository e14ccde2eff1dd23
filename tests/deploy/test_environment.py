"""The environment: locks without addresses, and a maker that refuses what it cannot use."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import deploy

CHECKOUT = Path(deploy.__file__).parents[1]
REQUIREMENTS = CHECKOUT / "requirements"
SCRIPT = REQUIREMENTS / "make_environment.sh"
LOCKS = sorted(REQUIREMENTS.glob("*.txt"))
FOREIGN = {"mlserver"}
"""Programs in environments of their own, with versions of their own."""


def fake_python(directory: Path, name: str, version: str, *modules: str) -> None:
    """A program that says it is Python `version` and has some modules, and cannot run more."""
    known = " ".join(f"'import {module}'" for module in modules)
    path = directory / name
    path.write_text(
        f"""#!/bin/sh
case "$1" in
    --version) echo 'Python {version}' ;;
    -c)
        case "$2" in
            *version_info*) [ {int(float(version) >= 3.11)} = 1 ] ;;
            *) for known in {known or "''"}; do [ "$2" = "$known" ] && exit 0; done; exit 1 ;;
        esac ;;
    *) exit 1 ;;
esac
"""
    )
    path.chmod(0o755)


def make(tmp_path: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the script with nothing on the PATH but the given fakes."""
    command = ["/bin/sh", str(SCRIPT), str(tmp_path / "venv"), "no-lock", *arguments]
    return subprocess.run(
        command,
        env={"PATH": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


@pytest.mark.parametrize("asked", [(), ("python3",)])
def test_python_that_is_too_old_is_refused_in_words(tmp_path: Path, asked: tuple[str, ...]) -> None:
    fake_python(tmp_path, "python3", "3.1")
    done = make(tmp_path, *asked)
    assert done.returncode == 1
    assert "Python 3.11, 3.12 or 3.13 is needed; python3 is Python 3.1" in done.stderr
    assert "make PYTHON=" in done.stderr


def test_debian_without_venv_pip_uv_or_virtualenv_is_told_what_to_install(tmp_path: Path) -> None:
    fake_python(tmp_path, "python3", "3.12")
    done = make(tmp_path)
    assert done.returncode == 1
    assert "neither ensurepip nor pip" in done.stderr
    assert "apt install python3-venv" in done.stderr


def test_an_environment_of_another_python_is_not_touched(tmp_path: Path) -> None:
    fake_python(tmp_path, "python3", "3.12", "ensurepip")
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    fake_python(tmp_path / "venv" / "bin", "python", "3.1")
    done = make(tmp_path)
    assert done.returncode == 1
    assert "make VENV=" in done.stderr


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_has_a_hash_for_everything_and_no_address(lock: Path) -> None:
    text = lock.read_text("utf-8")
    entries = re.split(r"\n(?=\S)", text)
    pinned = [entry for entry in entries if not entry.startswith("#")]
    assert pinned
    assert all("==" in entry and "--hash=sha256:" in entry for entry in pinned)
    assert "://" not in text
    assert "index-url" not in text


def test_there_is_a_lock_for_each_extra_and_all_agree_with_the_one_for_development() -> None:
    ours = [lock for lock in LOCKS if lock.stem not in FOREIGN]
    project = tomllib.loads((REQUIREMENTS.parent / "pyproject.toml").read_text("utf-8"))
    assert {lock.stem for lock in ours} == set(project["project"]["optional-dependencies"])
    pinned = {lock.stem: set(re.findall(r"^(\S+==\S+)", lock.read_text(), re.M)) for lock in ours}
    assert all(versions <= pinned["dev"] for versions in pinned.values())


def test_the_lock_of_the_edge_brings_no_tensorflow() -> None:
    assert "\ntensorflow" not in (REQUIREMENTS / "edge.txt").read_text("utf-8")


def test_each_room_resolves_inside_the_checkout() -> None:
    import cloud
    import edge
    import motorcade
    import schemas
    import scoring
    import simulator
    import transport

    for room in (cloud, deploy, edge, motorcade, schemas, scoring, simulator, transport):
        assert room.__file__ is not None
        assert Path(room.__file__).parents[1] == CHECKOUT


def test_make_help_names_the_two_commands() -> None:
    done = subprocess.run(
        ["make", "-C", str(CHECKOUT), "--no-print-directory", "help"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"]},
    )
    assert "make demo" in done.stdout
    assert "make test" in done.stdout
