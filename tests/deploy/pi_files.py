"""What the tests of the Raspberry Pi's files share."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

import deploy

FILES = Path(deploy.__file__).parent / "raspberry-pi"
SYSTEMD = FILES / "systemd"
RUN_TIMEOUT_S = 60.0


def need(program: str) -> str:
    """Path of a program; the test skips where it is not installed (CI installs it)."""
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def run(*command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end; if there are `variables`, they are all its environment."""
    return subprocess.run(
        command,
        env=variables or None,
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_TIMEOUT_S,
    )


def certificates(directory: Path, *orders: Sequence[str]) -> Path:
    """An authority in `directory`, made by certificates.sh, that has carried out the orders."""
    need("openssl")
    authority = directory / "authority"
    for order in (("authority",), *orders):
        carry_out(authority, *order)
    return authority


def carry_out(authority: Path, order: str, *names: str) -> None:
    """One order of certificates.sh."""
    done = run("/bin/sh", str(FILES / "certificates.sh"), order, str(authority), *names)
    assert done.returncode == 0, done.stderr
