"""What this machine says of itself: memory of this process, temperature, room on a disk."""

import ctypes
import os
import shutil
from pathlib import Path

STATM = Path("/proc/self/statm")
THERMAL = Path("/sys/class/thermal")

_M_ARENA_MAX = -8  # malloc.h of glibc
_MILLIDEGREES = 1_000.0
_PLAUSIBLE_CELSIUS = (-60.0, 200.0)


def rss_bytes(statm: Path = STATM) -> int:
    """Resident memory of this process; -1 where the system does not tell."""
    try:
        return int(statm.read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return -1


def temperature_celsius(thermal: Path = THERMAL) -> float | None:
    """Of the hottest zone of the board; None where there is none that tells."""
    found = [_zone_celsius(zone / "temp") for zone in sorted(thermal.glob("thermal_zone*"))]
    return max((celsius for celsius in found if celsius is not None), default=None)


def _zone_celsius(file: Path) -> float | None:
    try:
        celsius = int(file.read_text("ascii")) / _MILLIDEGREES
    except (OSError, ValueError):  # a zone that is switched off says so by an error
        return None
    low, high = _PLAUSIBLE_CELSIUS
    return celsius if low <= celsius <= high else None


def disk_free_bytes(directory: Path) -> int:
    """Room on the disk of a directory for this user; -1 where it cannot be asked."""
    try:
        return shutil.disk_usage(directory).free
    except OSError:
        return -1


def keep_one_heap() -> bool:
    """Let all threads that are started from now on share one heap; whether the C library can.

    glibc gives each thread a heap of its own, so that allocations need not wait for each other.
    A gateway's threads wait for the interpreter anyway, and heaps cost a tenth of its memory.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_ARENA_MAX, 1) == 1
