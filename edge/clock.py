"""The clocks of this machine, and whether the wall clock is known to be right.

A Raspberry Pi has no battery behind its clock: it boots in 1970, or at the time of its last stop,
until NTP has answered. So the wall clock is believed only while something says that it is kept
right, and time that passes is measured by CLOCK_BOOTTIME, which never steps and counts suspension.
"""

import csv
import ctypes
import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import NamedTuple, Protocol

NOT_BEFORE_MS = 1_793_491_200_000
"""2026-11-01, before this release was made: a wall clock that shows less is wrong."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
TIMESYNCD = Path("/run/systemd/timesync/synchronized")
CHRONY = Path("/run/chrony")

CHRONY_TIMEOUT_S = 2.0
CHRONY_OFFSET_MAX_S = 1.0

_TIME_ERROR = 5
_STA_UNSYNC = 0x40


class Look(NamedTuple):
    """All clocks at one moment.

    `synced` is whether `wall_ms` is known to be right; `monotonic_ms` is since the boot.
    """

    wall_ms: int
    monotonic_ms: int
    synced: bool


class Clock(Protocol):
    """A machine's clocks; safe for several threads."""

    def boot_mark(self) -> str:
        """The same until the next boot, and never again."""

    def wall_ms(self) -> int:
        """The wall clock, right or not, in milliseconds since the epoch."""

    def monotonic_ms(self) -> int:
        """Since the boot; never steps."""

    def synced(self) -> bool:
        """Whether the wall clock is known to be right now; may take as long as a process."""


class Evidence(NamedTuple):
    """What this machine says of its wall clock; None where it cannot be asked."""

    kernel: bool | None
    timesyncd: bool
    chrony: bool | None


def is_synced(evidence: Evidence, wall_ms: int) -> bool:
    """Whether a wall clock is known to be right.

    The kernel knows best: whoever disciplines the clock tells it, and whoever sets it by hand
    takes that back. The file of systemd-timesyncd stays then, so it counts only where the kernel
    cannot be asked; chrony tells the kernel nothing unless `rtcsync` is on, so it is asked itself.

    Example:
        >>> is_synced(Evidence(kernel=False, timesyncd=True, chrony=None), 1_800_000_000_000)
        False
        >>> is_synced(Evidence(kernel=True, timesyncd=False, chrony=None), 1_800_000_000_000)
        True
        >>> is_synced(Evidence(kernel=True, timesyncd=True, chrony=True), 5_000)
        False
    """
    if wall_ms < NOT_BEFORE_MS:
        return False
    if evidence.kernel is None:
        return evidence.timesyncd or evidence.chrony is True
    return evidence.kernel or evidence.chrony is True


def chrony_says(tracking: str) -> bool | None:
    """Whether `chronyc -c tracking` says that the clock is right; None for another output.

    Example:
        >>> chrony_says("C0A80001,ntp,3,1793.1,0.000012,0,0,-7.1,0,0.1,0.02,0.01,64.2,Normal")
        True
        >>> chrony_says("00000000,,0,0.0,0.0,0,0,0,0,0,1,1,0,Not synchronised")
        False
    """
    fields = next(csv.reader([tracking.strip()]), [])
    try:
        stratum, offset_s, leap = int(fields[2]), float(fields[4]), fields[13]
    except (IndexError, ValueError):
        return None
    return leap != "Not synchronised" and stratum > 0 and abs(offset_s) < CHRONY_OFFSET_MAX_S


class SystemClock:
    """The clocks of the machine that this runs on."""

    def boot_mark(self) -> str:
        """The kernel's id of this boot."""
        return BOOT_ID.read_text("ascii").strip()

    def wall_ms(self) -> int:
        """See `Clock`."""
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        """See `Clock`."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000

    def synced(self) -> bool:
        """See `Clock`."""
        kernel = _kernel_says()
        chrony = None if kernel else _ask_chrony()
        return is_synced(Evidence(kernel, TIMESYNCD.exists(), chrony), self.wall_ms())


def clock_synced() -> bool:
    """Whether this machine's wall clock is known to be right."""
    return SystemClock().synced()


def mark_number(boot_mark: str) -> int:
    """A boot's mark as a number of 40 bits."""
    return int.from_bytes(hashlib.blake2b(boot_mark.encode(), digest_size=5).digest(), "big")


class _Timex(ctypes.Structure):
    """The head of the kernel's `struct timex` on 64-bit machines, and room for the rest."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


def _kernel_says() -> bool | None:
    """Whether the kernel holds its clock for right; None where it does not say."""
    timex = _Timex()  # modes 0: only look
    try:
        state = int(ctypes.CDLL(None).adjtimex(ctypes.byref(timex)))
    except (AttributeError, OSError):
        return None
    if state < 0:
        return None
    return state != _TIME_ERROR and not timex.status & _STA_UNSYNC


def _ask_chrony() -> bool | None:
    """What chrony says; None where it does not run or does not answer."""
    program = shutil.which("chronyc", path=f"{os.defpath}:/usr/sbin")
    if program is None or not CHRONY.is_dir():
        return None
    try:
        done = subprocess.run(
            [program, "-n", "-c", "tracking"],
            capture_output=True,
            check=False,
            text=True,
            timeout=CHRONY_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return chrony_says(done.stdout) if done.returncode == 0 else None
