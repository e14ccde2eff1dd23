"""A Debian userland of another architecture, to run in what a Raspberry Pi runs.

It is made once by debootstrap from the mirror that this machine's apt uses, and kept in the cache
that the jars are in. Programs run in it through chroot; on another processor the kernel hands
them to qemu's user-mode emulation (binfmt_misc). What they write goes to a layer in memory, so that
the userland in the cache stays as it was made. All mounts are made in a mount namespace
of the calling process and vanish with it, however it ends.
"""

import contextlib
import fcntl
import os
import platform as this_machine
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.artifacts import cache_directory
from schemas.errors import SettingsError, TransientError

MIRROR_VARIABLE = "MOTORCADE_DEBIAN_MIRROR"

SUITES = {"3.11": "bookworm", "3.13": "trixie"}
"""The Debian, and so the Raspberry Pi OS, that comes with a Python."""

DEBIAN_NAMES = {"aarch64": "arm64", "x86_64": "amd64"}
PACKAGES = ("python3", "python3-venv")

MAKE_TIMEOUT_S = 1_800.0
LAYER_BYTES_MAX = 2 << 30

BINFMT = Path("/proc/sys/fs/binfmt_misc")
_BINFMT_NAME = "qemu-aarch64"
_QEMU = "qemu-aarch64-static"
# ELF, 64 bits, little-endian, executable or shared object, machine 183.
_MAGIC = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
_MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
_OPEN_NOW = "F"  # the kernel opens qemu when it is registered, so no chroot needs a copy


@dataclass(frozen=True, slots=True)
class UserlandKind:
    """Which userland.

    Attributes:
        machine: As `uname -m` says it there.
        suite: Debian's name of the release.
    """

    machine: str
    suite: str

    @property
    def name(self) -> str:
        """What its directory is called."""
        return f"{self.suite}-{DEBIAN_NAMES[self.machine]}"


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Among all processes of this user: one would take the other's emulation away."""
    directory = cache_directory() / "userland"
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def require_tools(machine: str) -> None:
    """Say what is missing before anything is begun.

    Raises:
        SettingsError: Names the packages, or says that root is needed.
    """
    if os.geteuid() != 0:
        raise SettingsError("making and entering a userland needs root (debootstrap, chroot)")
    wanted = {"debootstrap": "debootstrap", "unshare": "util-linux", "apt-get": "apt"}
    if machine != this_machine.machine():
        wanted[_QEMU] = "qemu-user-static"
    missing = sorted({package for tool, package in wanted.items() if shutil.which(tool) is None})
    if missing:
        raise SettingsError(f"not installed: apt install {' '.join(missing)}")


def userland(kind: UserlandKind) -> Path:
    """The directory of a userland, which is made if it is not in the cache yet; call it `alone`.

    Raises:
        SettingsError: This machine's apt knows no Debian mirror.
        TransientError: It could not be made.
    """
    directory = cache_directory() / "userland"
    place, arriving = directory / kind.name, directory / f"{kind.name}.arriving"
    if place.is_dir():
        return place
    shutil.rmtree(arriving, ignore_errors=True)
    with emulation(kind.machine):
        _debootstrap(kind, arriving)
    arriving.rename(place)
    return place


def _debootstrap(kind: UserlandKind, place: Path) -> None:
    done = subprocess.run(
        [
            "debootstrap",
            f"--arch={DEBIAN_NAMES[kind.machine]}",
            "--variant=minbase",
            f"--include={','.join(PACKAGES)}",
            kind.suite,
            str(place),
            mirror(kind.suite),
        ],
        capture_output=True,
        text=True,
        timeout=MAKE_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        log = place / "debootstrap" / "debootstrap.log"
        text = log.read_text("utf-8") if log.is_file() else done.stdout + done.stderr
        raise TransientError(f"debootstrap of {kind.name} failed: {text[-2_000:]}")


def mirror(suite: str) -> str:
    """Where this machine's apt has Debian from, that suite or another.

    Raises:
        SettingsError: Its apt knows no Debian.
    """
    if asked := os.environ.get(MIRROR_VARIABLE):
        return asked
    done = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)", "Origin: Debian"],
        capture_output=True,
        text=True,
        timeout=60.0,
        check=False,
    )
    found = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    main = {name: uri for name, uri in found.items() if "-" not in name}
    if not main:
        raise SettingsError(
            f"this machine's apt knows no Debian: run apt-get update, or set {MIRROR_VARIABLE}"
        )
    return main.get(suite, next(iter(main.values())))


@contextlib.contextmanager
def emulation(machine: str) -> Iterator[None]:
    """Programs of `machine` run while inside; what had to be registered for it is undone.

    Raises:
        SettingsError: The kernel cannot hand programs to an emulator.
    """
    if machine == this_machine.machine() or (BINFMT / _BINFMT_NAME).exists():
        yield
        return
    mounted = not (BINFMT / "register").exists()
    if mounted:
        _mount(["-t", "binfmt_misc", "binfmt_misc", str(BINFMT)])
    rule = f":{_BINFMT_NAME}:M::{_MAGIC}:{_MASK}:{shutil.which(_QEMU)}:{_OPEN_NOW}"
    (BINFMT / "register").write_text(rule, "ascii")
    try:
        yield
    finally:
        (BINFMT / _BINFMT_NAME).write_text("-1", "ascii")
        if mounted:
            subprocess.run(["umount", str(BINFMT)], check=True, timeout=30.0)


class Inside:
    """A userland with a writable layer in memory, for this process and its children.

    The process must have a mount namespace of its own (`unshare --mount`), or the mounts stay.

    Args:
        base: As `userland` gives it; not changed.
        scratch: An empty directory to mount on.
        shown: Directories of this machine, by where they are seen inside, for reading.
    """

    def __init__(self, base: Path, scratch: Path, shown: Mapping[str, Path]) -> None:
        self._base = base
        self._scratch = scratch
        self._shown = shown
        self.root = scratch / "root"

    def mount(self) -> None:
        """Make everything visible; the end of the namespace takes it away."""
        layer = self._scratch / "layer"
        for directory in (self.root, layer):
            directory.mkdir()
        _mount(["-t", "tmpfs", "-o", f"size={LAYER_BYTES_MAX}", "layer", str(layer)])
        for directory in (layer / "upper", layer / "work"):
            directory.mkdir()
        options = f"lowerdir={self._base},upperdir={layer}/upper,workdir={layer}/work"
        _mount(["-t", "overlay", "-o", options, "userland", str(self.root)])
        _mount(["-t", "proc", "proc", str(self.root / "proc")])
        (self.root / "dev" / "shm").mkdir(exist_ok=True)
        _mount(["-t", "tmpfs", "shm", str(self.root / "dev" / "shm")])
        for place, directory in self._shown.items():
            self._show(place, directory)

    def _show(self, place: str, directory: Path) -> None:
        target = self.root / place.lstrip("/")
        target.mkdir(parents=True, exist_ok=True)
        _mount(["--bind", str(directory), str(target)])
        _mount(["-o", "remount,bind,ro", str(target)])

    def run(
        self, command: Sequence[str], timeout_s: float, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program inside; output is kept, errors are the caller's to look at."""
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", **variables}
        return subprocess.run(
            ["chroot", str(self.root), *command],
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )


def _mount(arguments: Sequence[str]) -> None:
    done = subprocess.run(
        ["mount", *arguments], capture_output=True, text=True, timeout=30.0, check=False
    )
    if done.returncode != 0:
        raise SettingsError(f"mount {' '.join(arguments)}: {done.stderr.strip()}")
