"""`make test-aarch64`: the real aarch64 wheels in a Debian arm64 userland, looked at from outside.

    python -m deploy.aarch64_trial --python 3.11

Installs the wheelhouse there with its own installer, runs `motorcade gateway check --local`, scores
rows with TFLite models and compares them with this machine's scores, runs the spool's tests, and
installs, removes and purges the Debian package. Needs root. The userland is kept in the cache;
nothing is left mounted or running.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.debian_package import NAME, make_package
from deploy.userland import (
    SUITES,
    Inside,
    UserlandKind,
    alone,
    emulation,
    require_tools,
    userland,
)
from deploy.wheel_lock import Platform, locked_for
from deploy.wheelhouse import CHECKOUT, directory_name, download, make_wheelhouse
from schemas.errors import MotorcadeError
from scoring.bundle import Bundle

MACHINE = "aarch64"
INSTALL_TIMEOUT_S = 1_800.0
CHECK_TIMEOUT_S = 600.0
TESTS_TIMEOUT_S = 3_600.0

TEST_LIBRARIES = frozenset(
    {"hypothesis", "iniconfig", "packaging", "pluggy", "pytest", "pytest-timeout"}
    | {"sortedcontainers"}
)
SPOOL_TESTS = ("test_spool*.py", "spool/test_*.py")
MODELS = CHECKOUT / "tests" / "scoring" / "data"
KINDS = {"autoencoder": "small", "windowed LSTM": "small_window"}
"""What is scored: a model of readings and one of windows."""

ROWS = 4_096
ABSENT_SHARE = 0.05

DIFFERENCE_MAX = 1e-5
"""Largest difference of a score, as a part of 1 + score. Both machines round float32 as IEEE 754
says, but the runtime sums in another order on each."""

PYTHON = "/opt/motorcade/current/bin/python"
CHECK = ("motorcade", "gateway", "check", "--local")
STATE = "/var/lib/motorcade"

PACKAGE = "gateway.deb"

# A test's own deadline is for a processor that is there.
PATIENT_TESTS = """\
from hypothesis import HealthCheck, settings
settings.register_profile("emulated", deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile("emulated")
"""


class TrialError(MotorcadeError):
    """Something did not work in the userland; says what, with its output."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """How alike two machines score.

    Attributes:
        rows: Compared.
        same_bits: Rows whose scores are equal to the bit.
        difference: Largest difference, as a part of 1 + score.
    """

    rows: int
    same_bits: int
    difference: float


def run(python: str) -> bool:
    """Prepare everything, then go on in a mount namespace; whether all was well.

    Raises:
        SettingsError: A tool or root is missing.
        TransientError: Packages or wheels cannot be had now.
    """
    require_tools(MACHINE)
    platform = Platform(MACHINE, python)
    kind = UserlandKind(MACHINE, SUITES[python])
    with _told(f"userland {kind.name}"):
        base = userland(kind)
    with tempfile.TemporaryDirectory(prefix="aarch64-") as scratch:
        place = Path(scratch)
        for name in ("mounts", "tests"):
            (place / name).mkdir()
        with _told("wheels"):
            _prepare(platform, place)
        with emulation(MACHINE):
            return _in_namespace("--python", python, "--inside", str(base), str(place))


def _in_namespace(*arguments: str) -> bool:
    """Run this module again where mounts and children end with it; whether it went well."""
    apart = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
    command = [*apart, sys.executable, "-m", "deploy.aarch64_trial", *arguments]
    return subprocess.run(command, cwd=CHECKOUT, check=False).returncode == 0


def _prepare(platform: Platform, place: Path) -> None:
    """The wheelhouse, the libraries of the tests, the rows, and this machine's scores of them."""
    make_wheelhouse(platform, place)
    make_package(platform, place).rename(place / PACKAGE)
    lock = (CHECKOUT / "requirements" / "dev.txt").read_text("utf-8")
    wanted = [entry for name, entry in locked_for(lock, platform).items() if name in TEST_LIBRARIES]
    download(wanted, platform, place / "tests")
    (place / "tests" / "patient_tests.py").write_text(PATIENT_TESTS, "utf-8")
    for name in KINDS.values():
        model = MODELS / f"{name}.motorcade"
        np.save(place / f"{name}-rows.npy", rows_for(Bundle.load(model)))
        files = [str(model), f"{place}/{name}-rows.npy", f"{place}/{name}-here.npy"]
        score = [sys.executable, "-m", "deploy.score_rows", *files]
        subprocess.run(score, cwd=CHECKOUT, check=True, timeout=CHECK_TIMEOUT_S)


def rows_for(bundle: Bundle) -> NDArray[np.float32]:
    """Rows around what a model was trained on, some features absent.

    Returns:
        Shape (ROWS, C): of a windowed model the readings of each window, one behind the other.
    """
    rng = np.random.default_rng(7)
    m = bundle.manifest
    rows = rng.normal(m.mean, m.scale, size=(ROWS, m.window, len(m.features)))
    rows[rng.random(rows.shape) < ABSENT_SHARE] = np.nan
    return rows.astype(np.float32).reshape(ROWS, -1)


def try_inside(python: str, base: Path, place: Path) -> None:
    """Install, check, score, test; each step says how long it took.

    Raises:
        TrialError: The first step that failed.
    """
    shown = {"/mnt/given": place, "/mnt/checkout": CHECKOUT}
    inside = Inside(base, place / "mounts", shown)
    inside.mount()
    step = _Steps(inside)
    wheelhouse = directory_name(Platform(MACHINE, python))
    step("install", ["sh", f"/mnt/given/{wheelhouse}/install.sh"], INSTALL_TIMEOUT_S)
    print(step("check", CHECK, CHECK_TIMEOUT_S), end="")
    for kind, name in KINDS.items():
        _compare(step, place, kind, name)
    _run_spool_tests(step)
    step("uninstall", ["sh", f"/mnt/given/{wheelhouse}/install.sh", "uninstall"], CHECK_TIMEOUT_S)
    _try_package(step)


class _Steps:
    """Runs one command after another inside, and tells of each."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside

    def __call__(
        self, name: str, command: Sequence[str], timeout_s: float, **variables: str
    ) -> str:
        with _told(name):
            try:
                done = self._inside.run(command, timeout_s, **variables)
            except subprocess.TimeoutExpired as error:
                raise TrialError(f"{name} was not done in {timeout_s:.0f} s") from error
        if done.returncode != 0:
            raise TrialError(f"{name} failed ({done.returncode}): {done.stdout}{done.stderr}")
        return done.stdout

    def fetch(self, path: str) -> Path:
        """Where a file of the userland is on this machine."""
        return self._inside.root / path.lstrip("/")


def _compare(step: _Steps, place: Path, kind: str, name: str) -> None:
    model = f"/mnt/checkout/{MODELS.relative_to(CHECKOUT)}/{name}.motorcade"
    files = [model, f"/mnt/given/{name}-rows.npy", f"/tmp/{name}.npy"]
    step(kind, [PYTHON, "-m", "deploy.score_rows", *files], CHECK_TIMEOUT_S)
    there = np.load(step.fetch(f"/tmp/{name}.npy"))
    found = likeness(np.load(place / f"{name}-here.npy"), there)
    print(
        f"      {found.rows} rows, {found.same_bits} of them with the same bits as here, "
        f"largest difference {found.difference:.2g} of 1 + score"
    )
    if not found.difference <= DIFFERENCE_MAX:
        raise TrialError(f"scores differ by up to {found.difference:.2g} from this machine's")


def likeness(here: NDArray[np.float32], there: NDArray[np.float32]) -> Likeness:
    """Compare scores of the same rows. A NaN on one side alone is an infinite difference."""
    if here.shape != there.shape:
        raise TrialError(f"{there.shape} scores instead of {here.shape}")
    same = here.view(np.uint32) == there.view(np.uint32)
    apart = np.abs(here.astype(np.float64) - there) / (1.0 + np.abs(here))
    apart = np.where(same | (np.isnan(here) & np.isnan(there)), 0.0, apart)
    worst = float(np.where(np.isnan(apart), np.inf, apart).max(initial=0.0))
    return Likeness(len(here), int(same.sum()), worst)


def _run_spool_tests(step: _Steps) -> None:
    wheels = ["--no-index", "--find-links", "/mnt/given/tests", "--target", "/tmp/tests"]
    pip = [PYTHON, "-m", "pip", "install", "--quiet", "--no-deps", *wheels]
    step("test libraries", [*pip, *sorted(TEST_LIBRARIES)], INSTALL_TIMEOUT_S)
    edge = CHECKOUT / "tests" / "edge"
    found = sorted(path for pattern in SPOOL_TESTS for path in edge.glob(pattern))
    files = [f"/mnt/checkout/{path.relative_to(CHECKOUT)}" for path in found]
    flags = ["-q", "-p", "patient_tests", "-p", "no:cacheprovider", "--rootdir", "/mnt/checkout"]
    told = step(
        "spool's tests",
        ["env", "-C", "/mnt/checkout", PYTHON, "-m", "pytest", *flags, *files],
        TESTS_TIMEOUT_S,
        PYTHONPATH="/tmp/tests:/mnt/given/tests",
        PYTHONDONTWRITEBYTECODE="1",
        HYPOTHESIS_STORAGE_DIRECTORY="/tmp/hypothesis",
    )
    print(f"      {told.strip().splitlines()[-1]}")


def _try_package(step: _Steps) -> None:
    """The package after the installer: both know the same places, so what stays must be kept."""
    step("package", ["dpkg", "--install", f"/mnt/given/{PACKAGE}"], INSTALL_TIMEOUT_S)
    step("its check", CHECK, CHECK_TIMEOUT_S)
    step("remove", ["dpkg", "--remove", NAME], CHECK_TIMEOUT_S)
    if not step.fetch(STATE).is_dir():
        raise TrialError(f"removing the package took {STATE}")
    step("purge", ["dpkg", "--purge", NAME], CHECK_TIMEOUT_S)
    if step.fetch(STATE).exists():
        raise TrialError(f"purging the package left {STATE}")


@contextmanager
def _told(what: str) -> Iterator[None]:
    began_s = time.monotonic()
    yield
    print(f"ok    {what:<24} {time.monotonic() - began_s:6.1f} s", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of this module; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.aarch64_trial", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--python", choices=sorted(SUITES), default="3.11")
    parser.add_argument("--inside", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    try:
        if given.inside:
            try_inside(given.python, *given.inside)
            return 0
        with alone():
            return 0 if run(given.python) else 1
    except MotorcadeError as error:
        print(f"motorcade: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
