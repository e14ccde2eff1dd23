"""Looks at what is around a gateway on its own machine, one thing at a time."""

import os
import platform
import shutil
import socket
import stat
import sys
import tempfile
from pathlib import Path

from edge.budget import Load, budget
from edge.clock import Clock
from edge.control_wire import check_path
from edge.machine import temperature_celsius
from edge.settings import GatewaySettings
from edge.status import HOT_CELSIUS
from schemas.errors import SettingsError

MIB = 1024**2
GB = 1e9


def look_at_board(machine: str | None = None, *, bits: int = sys.maxsize.bit_length() + 1) -> str:
    """A 64-bit system that is not too hot.

    Raises:
        SettingsError: It is of 32 bits, or hot.
    """
    machine = machine or platform.machine()
    if bits < 64 or machine.startswith(("armv6", "armv7")):
        raise SettingsError(
            f"{machine}, {bits} bits: there is no Kafka client and no NumPy for 32-bit ARM; "
            "install a 64-bit system, such as Raspberry Pi OS (64-bit)"
        )
    celsius = temperature_celsius()
    if celsius is not None and celsius >= HOT_CELSIUS:
        raise SettingsError(f"{celsius:.0f} °C: from {HOT_CELSIUS:g} °C on the board slows down")
    return f"{machine}, {'no thermometer' if celsius is None else f'{celsius:.0f} °C'}"


def look_at_disk(settings: GatewaySettings) -> str:
    """A file can be written and synced beside the spool, and there is room for the quota.

    Raises:
        SettingsError: Less is free than is to stay free.
        OSError: It cannot be written.
    """
    directory = settings.spool_path.parent
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=directory) as file:
        file.write(bytes(4096))
        file.flush()
        os.fsync(file.fileno())
    free = shutil.disk_usage(directory).free
    floor = settings.disk_free_min_bytes
    if free < floor:
        raise SettingsError(f"{free // MIB} MiB free in {directory}, wanted {floor // MIB}")
    quota, room = settings.spool_bytes_max, spool_bytes_allowed(settings)
    less = f"; the quota is {quota // MIB} MiB, but there is room for {room // MIB}"
    return f"{free // MIB} MiB free in {directory}{less if room < quota else ''}"


def spool_bytes_allowed(settings: GatewaySettings) -> int:
    """What the spool may take: its quota, or less where the disk has not the room.

    Raises:
        OSError: The disk does not tell.
    """
    free = shutil.disk_usage(settings.spool_path.parent).free
    taken = sum(file.stat().st_size for file in settings.spool_path.rglob("*") if file.is_file())
    return min(settings.spool_bytes_max, taken + max(0, free - settings.disk_free_min_bytes))


def look_at_budget(settings: GatewaySettings, load: Load) -> str:
    """What a power cut costs, what the flash pays, and how long the quota lasts. Raises OSError."""
    found = budget(settings, load, spool_bytes_allowed=spool_bytes_allowed(settings))
    vehicles = "1 vehicle" if load.vehicles == 1 else f"{load.vehicles} vehicles"
    return (
        f"a power cut costs at most {found.loss_ms} ms of unacknowledged data, "
        f"and nothing that was acknowledged; {vehicles} x {load.rate_hz:g} messages/s x "
        f"{load.message_bytes} bytes write {found.flash_bytes_a_day / GB:.1f} GB of flash a day in "
        f"{found.commits_hz:.1f} commits/s; offline, the spool holds {_days_text(found.offline_s)}"
    )


def _days_text(seconds: float) -> str:
    days = seconds / 86_400
    return f"{days:.1f} days" if days >= 1 else f"{seconds / 3_600:.1f} hours"


def look_at_clock(clock: Clock) -> str:
    """Whether the clock is right; a gateway works either way."""
    if clock.synced():
        return "known to be right"
    return "not known to be right; times are corrected once it is"


def look_at_keys(settings: GatewaySettings) -> str:
    """Keys whose signatures count.

    Raises:
        SettingsError: Signatures are required, and there is no key.
    """
    keys = sorted(settings.trusted_keys_path.glob("*.pub"))
    if keys:
        return f"{len(keys)} trusted: {', '.join(key.stem for key in keys)}"
    if settings.signatures_required:
        raise SettingsError(
            f"signatures_required, and no *.pub in {settings.trusted_keys_path}: every model "
            "would be refused"
        )
    return f"none in {settings.trusted_keys_path}; unsigned models are taken"


def look_at_control(path: Path) -> str:
    """The control socket can be made, or a gateway listens there already.

    Raises:
        SettingsError: Its path is too long, or something else lies there.
        OSError: Its directory cannot be written.
    """
    check_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise SettingsError(f"{path.parent} cannot be written by this user")
    if not path.exists():
        return f"{path} will be made"
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise SettingsError(f"{path} is there and no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        heard = probe.connect_ex(os.fspath(path)) == 0
    return f"{path}, {'where a gateway listens' if heard else 'left by an earlier one'}"
