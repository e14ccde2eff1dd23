"""Disks for the gateway's spool that can be made to refuse, and healed.

The real thing where this machine lets us mount file systems and make files immutable; else the same
errors at the spool's own door to the disk, or by a limit on the size of files.
"""

import errno
import resource
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from edge_parts import GatewayProcess

NO_LIMIT = resource.RLIM_INFINITY
TMPFS_BYTES = 4 * 1024 * 1024
IMAGE_BYTES = 16 * 1024 * 1024


class Disk(Protocol):
    """Where a gateway's spool lies.

    Attributes:
        heals_only_unmounted: Whether the gateway has to let go of it before it can be healed.
        says: What the gateway is to say of it while it refuses.
    """

    heals_only_unmounted: bool
    says: str

    def refuse(self, gateway: GatewayProcess) -> None:
        """From now on nothing can be written."""

    def heal(self, gateway: GatewayProcess) -> None:
        """From now on everything can."""


def run(*command: str | Path) -> None:
    """A command that has to succeed."""
    subprocess.run([str(part) for part in command], check=True, capture_output=True, timeout=60)


def may(*command: str | Path) -> bool:
    """Whether a command succeeds here."""
    with suppress(OSError, subprocess.SubprocessError):
        run(*command)
        return True
    return False


def may_mount() -> bool:
    """Whether this process may mount file systems."""
    with tempfile.TemporaryDirectory() as place:
        mounted = may("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place)
        return mounted and may("umount", place)


@contextmanager
def unmounted_at_the_end(place: Path) -> Iterator[None]:
    """Whatever is mounted there goes."""
    try:
        yield
    finally:
        run("umount", "--lazy", place)


class FullDisk:
    """A small file system that something else fills to the last byte."""

    heals_only_unmounted = False
    says = "No space left on device"

    def __init__(self, spool: Path) -> None:
        self._ballast = spool / "ballast"

    def refuse(self, _gateway: GatewayProcess) -> None:
        with self._ballast.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass

    def heal(self, _gateway: GatewayProcess) -> None:
        self._ballast.unlink()


@contextmanager
def full_disk(spool: Path) -> Iterator[Disk]:
    """A tmpfs that gets full."""
    run("mount", "-t", "tmpfs", "-o", f"size={TMPFS_BYTES}", "tmpfs", spool)
    with unmounted_at_the_end(spool):
        yield FullDisk(spool)


class LimitedFiles:
    """Files that may not grow any more."""

    heals_only_unmounted = False
    says = "File too large"

    def refuse(self, gateway: GatewayProcess) -> None:
        self._limit(gateway, 0)

    def heal(self, gateway: GatewayProcess) -> None:
        self._limit(gateway, NO_LIMIT)

    def _limit(self, gateway: GatewayProcess, soft: int) -> None:
        resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE, (soft, NO_LIMIT))


@contextmanager
def limited_files(_spool: Path) -> Iterator[Disk]:
    """No privilege needed."""
    yield LimitedFiles()


class FailingCard:
    """An ext4 that finds an error in itself and goes read-only, as on a card that dies."""

    heals_only_unmounted = True
    says = "Read-only file system"

    def __init__(self, spool: Path, image: Path) -> None:
        self._spool = spool
        self._image = image

    def mount(self) -> None:
        run("mount", "-o", "loop,errors=remount-ro", self._image, self._spool)

    def refuse(self, _gateway: GatewayProcess) -> None:
        device = subprocess.run(
            ["findmnt", "-n", "-o", "SOURCE", str(self._spool)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error").write_text("1\n", "ascii")

    def heal(self, _gateway: GatewayProcess) -> None:
        """As a reboot does: it is checked and mounted again."""
        run("umount", self._spool)
        checked = subprocess.run(
            ["e2fsck", "-fy", str(self._image)], check=False, capture_output=True, timeout=60
        )
        assert checked.returncode in (0, 1), checked.stdout
        self.mount()


@contextmanager
def failing_card(spool: Path) -> Iterator[Disk]:
    """An ext4 in a file of its own."""
    image = spool.with_name("card.img")
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    run("mke2fs", "-q", "-F", "-t", "ext4", image)
    card = FailingCard(spool, image)
    card.mount()
    with unmounted_at_the_end(spool):
        yield card


class ImmutableFiles:
    """Files and directories that nobody may change any more, root included."""

    heals_only_unmounted = False
    says = "Operation not permitted"

    def __init__(self, spool: Path) -> None:
        self._spool = spool

    def refuse(self, _gateway: GatewayProcess) -> None:
        run("chattr", "-R", "+i", self._spool)

    def heal(self, _gateway: GatewayProcess) -> None:
        run("chattr", "-R", "-i", self._spool)


@contextmanager
def immutable_files(spool: Path) -> Iterator[Disk]:
    """On an ext4 of its own, which knows such files for certain."""
    with failing_card(spool):
        disk = ImmutableFiles(spool)
        try:
            yield disk
        finally:
            run("chattr", "-R", "-i", spool)


class ToldToRefuse:
    """The spool's own door to the disk, with an error of choice."""

    heals_only_unmounted = False

    def __init__(self, switch: Path, number: int, says: str) -> None:
        self._switch = switch
        self._number = number
        self.says = says

    def refuse(self, _gateway: GatewayProcess) -> None:
        written = self._switch.with_suffix(".new")
        written.write_text(str(self._number), "ascii")
        written.replace(self._switch)

    def heal(self, _gateway: GatewayProcess) -> None:
        self._switch.unlink()


def switch_of(spool: Path) -> Path:
    """The file that makes a gateway with the hook `refuse` refuse."""
    return spool.with_name("refuse")


@contextmanager
def read_only_door(spool: Path) -> Iterator[Disk]:
    """As a file system that was remounted read-only, and is writable again while it is open."""
    yield ToldToRefuse(switch_of(spool), errno.EROFS, "Read-only file system")


@contextmanager
def forbidden_door(spool: Path) -> Iterator[Disk]:
    """As files that belong to somebody else now."""
    yield ToldToRefuse(switch_of(spool), errno.EACCES, "Permission denied")


MakeDisk = Callable[[Path], AbstractContextManager[Disk]]

WITHOUT_MOUNTS: tuple[MakeDisk, ...] = (limited_files, read_only_door, forbidden_door)
WITH_MOUNTS: tuple[MakeDisk, ...] = (full_disk, failing_card, immutable_files, read_only_door)
"""The last one heals while the gateway has it open, which no real file system does here."""
