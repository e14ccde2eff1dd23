"""A Debian package of the gateway, for one architecture and one Python; built without root.

    python -m deploy.debian_package --machine aarch64 --python 3.11    (make deb)

It carries the wheelhouse (`deploy.wheelhouse`); its `postinst` makes the environment from it,
offline, with the same installer. Only dpkg-deb is needed, for whatever architecture.
"""

import argparse
import gzip
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.userland import DEBIAN_NAMES
from deploy.wheel_lock import Platform
from deploy.wheelhouse import (
    CHECKOUT,
    FILES,
    SOURCE_EPOCH_S,
    make_wheelhouse,
    platform_arguments,
    sums_of,
    version_of,
)
from schemas.errors import MotorcadeError, SettingsError

NAME = "motorcade-gateway"
DEBIAN = FILES / "debian"
BUILD_TIMEOUT_S = 600.0

_SHARE = Path("usr/share/motorcade")
_DOC = Path("usr/share/doc") / NAME
_UNITS = Path("usr/lib/systemd/system")
_SCRIPTS = ("postinst", "prerm", "postrm")
_BACKOFF_FROM = "3.13"
"""Debian 13's systemd knows growing pauses; that of Debian 12 would complain of their keys."""


def make_package(platform: Platform, build: Path) -> Path:
    """Build the package of one platform into `build`; returns its path.

    Raises:
        SettingsError: dpkg-deb is missing or refuses, or a wheel does not exist.
        TransientError: The wheels cannot be had now.
    """
    if shutil.which("dpkg-deb") is None:
        raise SettingsError("dpkg-deb is not here; this builds on Debian and its relatives")
    build.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="deb-", dir=build) as scratch:
        wheelhouse = make_wheelhouse(platform, Path(scratch))
        root = Path(scratch) / "root"
        version = f"{version_of(wheelhouse / 'wheels')}+py{platform.python.replace('.', '')}"
        _place(root, wheelhouse, platform)
        _control(root, platform, version)
        package = build / f"{NAME}_{version}_{DEBIAN_NAMES[platform.machine]}.deb"
        _build(root, package)
    return package


def _place(root: Path, wheelhouse: Path, platform: Platform) -> None:
    """Everything at its place; modes are the package's, owners are root's."""
    share, units = root / _SHARE, root / _UNITS
    shutil.copytree(wheelhouse, share)
    _install(FILES / "motorcade.sh", root / "usr/bin/motorcade", 0o755)
    _install(FILES / "motorcade.toml", root / "etc/motorcade/motorcade.toml", 0o644)
    for unit in ("motorcade-gateway.service", "media-motorcade.mount"):
        _install(FILES / "systemd" / unit, units / unit, 0o644)
    if platform.python >= _BACKOFF_FROM:
        drop_in = Path("motorcade-gateway.service.d/backoff.conf")
        _install(FILES / "systemd" / drop_in, units / drop_in, 0o644)
    _install(DEBIAN / "copyright", root / _DOC / "copyright", 0o644)
    _compressed((CHECKOUT / "CHANGELOG.md").read_text("utf-8"), root / _DOC / "CHANGELOG.md.gz")
    (share / "SHA256SUMS").unlink()
    (share / "SHA256SUMS").write_text(sums_of(share), "utf-8")
    for path in root.rglob("*"):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def _install(source: Path, target: Path, mode: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
    target.chmod(mode)


def _compressed(text: str, target: Path) -> None:
    target.write_bytes(gzip.compress(text.encode(), mtime=0))
    target.chmod(0o644)


def _control(root: Path, platform: Platform, version: str) -> None:
    """The package's own files, filled in."""
    control = root / "DEBIAN"
    control.mkdir()
    payload = [path for path in root.rglob("*") if path.is_file()]
    facts = {
        "VERSION": version,
        "ARCHITECTURE": DEBIAN_NAMES[platform.machine],
        "PYTHON": platform.python,
        "PYTHON_NEXT": _next(platform.python),
        "INSTALLED_KIB": str(sum(path.stat().st_size for path in payload) // 1024 + 1),
    }
    text = filled((DEBIAN / "control").read_text("utf-8"), facts)
    (control / "control").write_text(text, "utf-8")
    changelog = filled((DEBIAN / "changelog").read_text("utf-8"), facts)
    _compressed(changelog, root / _DOC / "changelog.gz")
    shutil.copy(DEBIAN / "conffiles", control)
    for script in _SCRIPTS:
        _install(DEBIAN / script, control / script, 0o755)


def filled(template: str, facts: Mapping[str, str]) -> str:
    """A template with each `@NAME@` replaced."""
    for name, value in facts.items():
        template = template.replace(f"@{name}@", value)
    return template


def _next(python: str) -> str:
    major, minor = python.split(".")
    return f"{major}.{int(minor) + 1}"


def _build(root: Path, package: Path) -> None:
    # Wheels are compressed already; xz would take minutes to gain nothing.
    done = subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", str(root), str(package)],
        env={**os.environ, "SOURCE_DATE_EPOCH": SOURCE_EPOCH_S},
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise SettingsError(f"dpkg-deb refuses: {done.stderr.strip()}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of this module; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.debian_package", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    platform_arguments(parser)
    given = parser.parse_args(arguments)
    try:
        package = make_package(Platform(given.machine, given.python), given.build)
    except MotorcadeError as error:
        print(f"motorcade: {error}", file=sys.stderr)
        return 1
    print(f"{package}: {package.stat().st_size / 1e6:.0f} MB; sudo apt install {package}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
