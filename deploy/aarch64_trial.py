"""`make test-aarch64`: the real aarch64 wheels in a Debian arm64 userland, looked at from outside.

    python -m deploy.aarch64_trial --python 3.11

Installs the wheelhouse there with its own installer, runs `motorcade gateway check --local`, scores
rows with a TFLite model and compares them with this machine's scores, and runs the spool's tests.
Needs root. The userland is kept in the cache; nothing is left mounted.
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

from deploy.userland import SUITES, Inside, UserlandKind, emulation, require_tools, userland
from deploy.wheel_lock import Platform, locked_for
from deploy.wheelhouse import CHECKOUT, directory_name, download, make_wheelhouse
from schemas.errors import MotorcadeError
from scoring.bundle import Bundle

MACHINE = "aarch64"
INSTALL_TIMEOUT_S = 900.0
CHECK_TIMEOUT_S = 300.0
TESTS_TIMEOUT_S = 1_800.0

TEST_LIBRARIES = frozenset(
    {"hypothesis", "iniconfig", "packaging", "pluggy", "pytest", "pytest-timeout"}
    | {"sortedcontainers"}
)
SPOOL_TESTS = ("test_spool*.py", "spool/test_*.py")
MODEL = CHECKOUT / "tests" / "scoring" / "data" / "small.motorcade"
ROWS = 4_096
ABSENT_SHARE = 0.05

DIFFERENCE_MAX = 1e-5
"""Largest difference of a score, as a part of 1 + score. Both machines round float32 as IEEE 754
says, but the runtime sums in another order on each."""

PYTHON = "/opt/motorcade/current/bin/python"
MOTORCADE = "/usr/local/bin/motorcade"

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
    """Run this module again where mounts vanish with the process; whether it went well."""
    apart = ["unshare", "--mount", "--propagation", "private"]
    command = [*apart, sys.executable, "-m", "deploy.aarch64_trial", *arguments]
    return subprocess.run(command, cwd=CHECKOUT, check=False).returncode == 0


def _prepare(platform: Platform, place: Path) -> None:
    """The wheelhouse, the libraries of the tests, the rows, and this machine's scores of them."""
    make_wheelhouse(platform, place)
    lock = (CHECKOUT / "requirements" / "dev.txt").read_text("utf-8")
    wanted = [entry for name, entry in locked_for(lock, platform).items() if name in TEST_LIBRARIES]
    download(wanted, platform, place / "tests")
    (place / "tests" / "patient_tests.py").write_text(PATIENT_TESTS, "utf-8")
    np.save(place / "rows.npy", rows_for(Bundle.load(MODEL)))
    score = ["-m", "deploy.score_rows", str(MODEL), f"{place}/rows.npy", f"{place}/here.npy"]
    subprocess.run([sys.executable, *score], cwd=CHECKOUT, check=True, timeout=CHECK_TIMEOUT_S)


def rows_for(bundle: Bundle) -> NDArray[np.float32]:
    """Rows around what a model was trained on, some features absent. Shape (ROWS, F)."""
    rng = np.random.default_rng(7)
    manifest = bundle.manifest
    rows = rng.normal(manifest.mean, manifest.scale, size=(ROWS, len(manifest.features)))
    rows[rng.random(rows.shape) < ABSENT_SHARE] = np.nan
    return rows.astype(np.float32)


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
    print(step("check", [MOTORCADE, "gateway", "check", "--local"], CHECK_TIMEOUT_S), end="")
    _compare(step, place)
    _run_spool_tests(step)


class _Steps:
    """Runs one command after another inside, and tells of each."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside

    def __call__(
        self, name: str, command: Sequence[str], timeout_s: float, **variables: str
    ) -> str:
        with _told(name):
            done = self._inside.run(command, timeout_s, **variables)
        if done.returncode != 0:
            raise TrialError(f"{name} failed ({done.returncode}): {done.stdout}{done.stderr}")
        return done.stdout

    def fetch(self, path: str) -> Path:
        """Where a file of the userland is on this machine."""
        return self._inside.root / path.lstrip("/")


def _compare(step: _Steps, place: Path) -> None:
    model = f"/mnt/checkout/{MODEL.relative_to(CHECKOUT)}"
    files = [model, "/mnt/given/rows.npy", "/tmp/there.npy"]
    step("score", [PYTHON, "-m", "deploy.score_rows", *files], CHECK_TIMEOUT_S)
    found = likeness(np.load(place / "here.npy"), np.load(step.fetch("/tmp/there.npy")))
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
        return 0 if run(given.python) else 1
    except MotorcadeError as error:
        print(f"motorcade: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
