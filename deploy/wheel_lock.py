"""What a lock asks of one platform: its markers decided, its hashes kept.

pip decides markers for the Python that it runs on, whatever platform it is asked to download for.
So they are decided here, for the machine that the wheels are meant for.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from schemas.errors import SettingsError

PYTHONS = ("3.11", "3.12", "3.13")
MACHINES = ("aarch64", "x86_64")

GLIBC_MINOR_MIN, GLIBC_MINOR_MAX = 17, 36
"""glibc 2.17 is the oldest that wheels are built for; 2.36 is that of Debian 12."""

_HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Platform:
    """A Linux machine with CPython.

    Attributes:
        machine: As `uname -m` says it: aarch64 or x86_64.
        python: Major and minor version, such as 3.11.
    """

    machine: str
    python: str

    def __post_init__(self) -> None:
        if self.machine.startswith(("armv", "armhf")):
            raise SettingsError(
                f"{self.machine}: 32-bit ARM has no wheels of confluent-kafka and NumPy; "
                "a 64-bit system on the same board is aarch64"
            )
        if self.machine not in MACHINES:
            raise SettingsError(f"{self.machine}: the machine may be {' or '.join(MACHINES)}")
        if self.python not in PYTHONS:
            raise SettingsError(f"{self.python}: the Python may be {', '.join(PYTHONS)}")

    @property
    def tags(self) -> list[str]:
        """Platform tags of wheels that run there, the newest first."""
        minors = range(GLIBC_MINOR_MAX, GLIBC_MINOR_MIN - 1, -1)
        tags = [f"manylinux_2_{minor}_{self.machine}" for minor in minors]
        return [*tags, f"manylinux2014_{self.machine}"]

    @property
    def markers(self) -> dict[str, str]:
        """What the markers of requirements are decided by."""
        return {
            "implementation_name": "cpython",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_system": "Linux",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }


@dataclass(frozen=True, slots=True)
class Locked:
    """One exact version and the hashes that its files may have.

    Attributes:
        name: Normalised.
        version: Exact.
        hashes: `sha256:…`, at least one.
    """

    name: str
    version: str
    hashes: tuple[str, ...]

    def line(self) -> str:
        """As pip reads it with `--require-hashes`."""
        return " ".join([f"{self.name}=={self.version}", *(f"--hash={h}" for h in self.hashes)])


def locked_for(lock: str, platform: Platform) -> dict[str, Locked]:
    """The entries of a lock that this platform needs, by name.

    Raises:
        SettingsError: An entry names no exact version or no hash.
    """
    entries = [_entry(text, platform.markers) for text in _logical_lines(lock)]
    return {entry.name: entry for entry in entries if entry is not None}


def _logical_lines(lock: str) -> Iterator[str]:
    whole = lock.replace("\\\n", " ")
    return (line for line in map(str.strip, whole.splitlines()) if line and line[0] != "#")


def _entry(text: str, markers: Mapping[str, str]) -> Locked | None:
    requirement = Requirement(text.partition("--hash=")[0].strip())
    if requirement.marker is not None and not requirement.marker.evaluate(dict(markers)):
        return None
    hashes = tuple(_HASH.findall(text))
    pins = [pin.version for pin in requirement.specifier if pin.operator == "=="]
    if len(pins) != 1 or not hashes:
        raise SettingsError(f"the lock's entry for {requirement.name} has no version or no hash")
    return Locked(canonicalize_name(requirement.name), pins[0], hashes)
