"""A wheelhouse: all that a gateway's computer needs to install Motorcade without a network.

    python -m deploy.wheelhouse --machine aarch64 --python 3.11    (make wheelhouse)

It holds the locked wheels of the edge and of the simulator for one machine and one Python, the
project's own wheel made from this checkout, `requirements.txt` with the hash of each, the installer
and all it places (`deploy/raspberry-pi/`), and SHA256SUMS over everything. It is a directory of
plain files without links, so that a FAT stick can carry it.
"""

import argparse
import hashlib
import os
import platform as this_machine
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import deploy
from deploy.wheel_lock import MACHINES, PYTHONS, Locked, Platform, locked_for
from schemas.errors import MotorcadeError, SettingsError, TransientError

CHECKOUT = Path(deploy.__file__).parents[1]
FILES = CHECKOUT / "deploy" / "raspberry-pi"
PAGE = CHECKOUT / "docs" / "raspberry-pi.md"
LOCKS = ("edge", "simulator")

NOT_NEEDED = frozenset({"setuptools"})
"""In every lock to build the project with; here it comes built."""

ROOMS = ("schemas", "scoring", "transport", "simulator", "edge", "cloud", "deploy", "motorcade")
_BUILT_FROM = ("pyproject.toml", "README.md", "LICENSE")

DOWNLOAD_TIMEOUT_S = 900.0
BUILD_TIMEOUT_S = 300.0
RELEASE_DIGITS = 12
SOURCE_EPOCH_S = "946684800"
_PIPS = ((sys.executable, "-m", "pip"), ("python3", "-m", "pip"), ("pip3",))


def directory_name(platform: Platform) -> str:
    """What a wheelhouse is called."""
    return f"wheelhouse-py{platform.python}-{platform.machine}"


def make_wheelhouse(platform: Platform, build: Path) -> Path:
    """Make the wheelhouse of one platform below `build`; what was there of it is replaced.

    Raises:
        SettingsError: A locked version has no wheel for this platform, or there is no pip.
        TransientError: The wheels cannot be had now.
    """
    place = build / directory_name(platform)
    build.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="wheelhouse-", dir=build) as scratch:
        arriving = Path(scratch) / "new"
        shutil.copytree(FILES, arriving, ignore=shutil.ignore_patterns("debian"))
        shutil.copy(PAGE, arriving)
        wheels = arriving / "wheels"
        wheels.mkdir()
        wanted = locked(platform)
        download(wanted, platform, wheels)
        build_project(wheels)
        _write_lists(arriving, platform, wheels)
        shutil.rmtree(place, ignore_errors=True)
        arriving.rename(place)
    return place


def locked(platform: Platform) -> list[Locked]:
    """What the edge and the simulator need there, by name."""
    entries: dict[str, Locked] = {}
    for lock in LOCKS:
        text = (CHECKOUT / "requirements" / f"{lock}.txt").read_text("utf-8")
        entries |= locked_for(text, platform)
    return [entries[name] for name in sorted(entries) if name not in NOT_NEEDED]


def download(wanted: Sequence[Locked], platform: Platform, wheels: Path) -> None:
    """Bring the wheels; pip refuses any whose hash is not in the lock.

    Raises:
        SettingsError: There is no pip, or no wheel of a version for this platform.
        TransientError: They cannot be had now.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as requirements:
        requirements.write("".join(f"{entry.line()}\n" for entry in wanted))
        requirements.flush()
        tags = [word for tag in platform.tags for word in ("--platform", tag)]
        done = _run(
            [
                *_pip(),
                *("download", "--quiet", "--no-deps", "--require-hashes"),
                *("--only-binary", ":all:", "--implementation", "cp"),
                *("--python-version", platform.python, *tags),
                *("--dest", str(wheels), "--requirement", requirements.name),
            ],
            DOWNLOAD_TIMEOUT_S,
        )
    if "No matching distribution" in done.stderr:
        raise SettingsError(f"no wheel for {platform.machine}: {done.stderr.strip()}")
    if done.returncode != 0:
        raise TransientError(f"the wheels cannot be had: {done.stderr.strip()}")


def _pip() -> list[str]:
    """Words that run a pip; it may be another Python's, as it is told what to download for."""
    for words in _PIPS:
        if shutil.which(words[0]) and _run([*words, "--version"], 60.0).returncode == 0:
            return list(words)
    raise SettingsError("no pip here; on Debian and Ubuntu: apt install python3-pip")


def build_project(wheels: Path) -> Path:
    """Make the project's own wheel from this checkout, as it lies there.

    It is made from a copy, since setuptools puts into a wheel what earlier builds left behind.

    Raises:
        SettingsError: It cannot be built.
    """
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch)
        for name in _BUILT_FROM:
            shutil.copy(CHECKOUT / name, source)
        for room in ROOMS:
            skip = shutil.ignore_patterns("__pycache__", "raspberry-pi")
            shutil.copytree(CHECKOUT / room, source / room, ignore=skip)
        order = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
        done = _run(
            [sys.executable, "-c", order, str(wheels.resolve())], BUILD_TIMEOUT_S, directory=source
        )
    if done.returncode != 0:
        raise SettingsError(f"the project cannot be built: {done.stderr.strip()}")
    return next(wheels.glob("motorcade-*.whl"))


def _run(
    command: Sequence[str], timeout_s: float, *, directory: Path | None = None
) -> subprocess.CompletedProcess[str]:
    # The same checkout makes the same bytes: a wheel's hash says whether anything changed.
    environment = {**os.environ, "SOURCE_DATE_EPOCH": SOURCE_EPOCH_S}
    return subprocess.run(
        command,
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def _write_lists(place: Path, platform: Platform, wheels: Path) -> None:
    requirements = requirements_of(wheels)
    (place / "requirements.txt").write_text(requirements, "utf-8", newline="\n")
    release = f"{version_of(wheels)}-{_sha256(requirements.encode())[:RELEASE_DIGITS]}"
    facts = {"machine": platform.machine, "python": platform.python, "release": release}
    (place / "platform").write_text("".join(f"{k}={v}\n" for k, v in facts.items()), "utf-8")
    (place / "SHA256SUMS").write_text(sums_of(place), "utf-8", newline="\n")


def requirements_of(wheels: Path) -> str:
    """One line a wheel: exact version and the hash of the very file."""
    lines = []
    for path in sorted(wheels.glob("*.whl")):
        name, version = path.name.split("-")[:2]
        lines.append(Locked(name, version, (f"sha256:{_sha256(path.read_bytes())}",)).line())
    return "".join(f"{line}\n" for line in lines)


def version_of(wheels: Path) -> str:
    """The project's version, from its wheel."""
    return next(wheels.glob("motorcade-*.whl")).name.split("-")[1]


def sums_of(place: Path) -> str:
    """What `sha256sum --check` reads, over every file below `place`."""
    files = sorted(path for path in place.rglob("*") if path.is_file())
    return "".join(f"{_sha256(p.read_bytes())}  {p.relative_to(place)}\n" for p in files)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def platform_arguments(parser: argparse.ArgumentParser) -> None:
    """`--machine` and `--python`, with this machine's as defaults."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    parser.add_argument("--machine", default=this_machine.machine(), help=" or ".join(MACHINES))
    parser.add_argument("--python", default=here, help=", ".join(PYTHONS))
    parser.add_argument("--build", type=Path, default=CHECKOUT / "build", help="where to")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of this module; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.wheelhouse", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    platform_arguments(parser)
    given = parser.parse_args(arguments)
    try:
        place = make_wheelhouse(Platform(given.machine, given.python), given.build)
    except MotorcadeError as error:
        print(f"motorcade: {error}", file=sys.stderr)
        return 1
    count = len(list((place / "wheels").iterdir()))
    size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    print(f"{place}: {count} wheels, {size / 1e6:.0f} MB; copy it to a stick, then: sh install.sh")
    return 0


if __name__ == "__main__":
    sys.exit(main())
