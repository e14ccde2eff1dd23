"""MLServer in an environment of its own: a peer to measure against, and a foreign model server.

It pins much of what Motorcade uses too and takes no Python 3.13, so it is never installed beside
it. The environment is made once from `requirements/mlserver.txt`, hash-locked, in the cache that
the jars are in; after that it needs no network. The server hosts bare networks
(`deploy/mlserver_network.py`) in its fastest configuration: no worker processes, no metrics, no
adaptive batching.
"""

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import deploy
from deploy import processes
from deploy.artifacts import cache_directory
from deploy.ports import LOOPBACK
from deploy.processes import ProcessId
from schemas.errors import SettingsError, TransientError

CHECKOUT = Path(deploy.__file__).parents[1]
LOCK = CHECKOUT / "requirements" / "mlserver.txt"
MAKER = CHECKOUT / "requirements" / "make_environment.sh"

INSTALL_TIMEOUT_S = 600.0
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 15.0
PROBE_TIMEOUT_S = 2.0
_POLL_S = 0.1
_PYTHONS = ("python3.12", "python3.11")


@dataclass(frozen=True, slots=True)
class Network:
    """A bare network that MLServer is to host: normalised rows in, reproduced rows out.

    Attributes:
        name: Model name.
        version: Its version.
        model: TFLite bytes.
        columns: Of its input and its output.
    """

    name: str
    version: str
    model: bytes
    columns: int


def environment(cache: Path | None = None) -> Path:
    """Python of the environment, which is made if it is not there yet (about half a minute).

    Raises:
        SettingsError: There is no Python that MLServer takes.
        TransientError: It could not be installed.
    """
    python = _python()
    text = f"{python}\n{LOCK.read_text('utf-8')}"
    directory = (cache or cache_directory()) / "mlserver"
    home = directory / hashlib.sha256(text.encode()).hexdigest()[:16]
    done = home / "complete"
    if not done.is_file():
        directory.mkdir(parents=True, exist_ok=True)
        with _alone(directory / "lock"):
            if not done.is_file():
                _make(home, python)
                done.touch()
    return home / "bin" / "python"


def _python() -> str:
    """A Python below 3.13, this one if it is."""
    if sys.version_info < (3, 13):
        return sys.executable
    found = next((path for name in _PYTHONS if (path := shutil.which(name))), None)
    if found is None:
        raise SettingsError(f"MLServer needs one of {', '.join(_PYTHONS)} on the PATH")
    return found


def _make(home: Path, python: str) -> None:
    shutil.rmtree(home, ignore_errors=True)
    done = subprocess.run(
        ["/bin/sh", str(MAKER), str(home), str(LOCK), python],
        env={**os.environ, "WITHOUT_PROJECT": "1"},
        capture_output=True,
        text=True,
        timeout=INSTALL_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise TransientError(f"MLServer could not be installed: {done.stdout}{done.stderr}")


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Among all processes of this user."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class MlServer:
    """A running MLServer on the loopback; a context manager.

    Args:
        python: As `environment` gives it.
        directory: Its own; made if absent. Settings, models and log go there.
        networks: What it hosts.
        http_port: For REST; must be free.
        grpc_port: For gRPC; must be free.
        metrics_port: Its metrics server takes a port even without an endpoint; must be free.
    """

    def __init__(
        self,
        python: Path,
        directory: Path,
        networks: list[Network],
        *,
        http_port: int,
        grpc_port: int,
        metrics_port: int,
    ) -> None:
        self._python = python
        self._directory = directory
        self._networks = networks
        self._metrics_port = metrics_port
        self._process: ProcessId | None = None
        self.http_port = http_port
        self.grpc_port = grpc_port

    @property
    def log(self) -> Path:
        """Its log file."""
        return self._directory / "mlserver.log"

    @property
    def process(self) -> ProcessId | None:
        """While it runs."""
        return self._process

    def __enter__(self) -> Self:
        """Start it and wait until every network answers. Raises TransientError."""
        self._prepare()
        environ = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = str(CHECKOUT)
        try:
            self._process = processes.spawn(self._command(), log=self.log)
        finally:
            del os.environ["PYTHONPATH"]
            if environ is not None:
                os.environ["PYTHONPATH"] = environ
        try:
            self._wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End it; harmless when repeated."""
        process, self._process = self._process, None
        if process is not None:
            processes.terminate(process, STOP_TIMEOUT_S)

    def _command(self) -> list[str]:
        # MLServer's own command is a script; -m would need a module that it does not have.
        program = "import sys; from mlserver.cli import main; sys.exit(main())"
        return [str(self._python), "-c", program, "start", str(self._directory)]

    def _prepare(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        settings = {
            "host": LOOPBACK,
            "http_port": self.http_port,
            "grpc_port": self.grpc_port,
            "metrics_port": self._metrics_port,
            "metrics_endpoint": None,
            "parallel_workers": 0,
            "debug": False,
        }
        (self._directory / "settings.json").write_text(json.dumps(settings), "utf-8")
        for network in self._networks:
            self._prepare_network(network)

    def _prepare_network(self, network: Network) -> None:
        home = self._directory / "models" / network.name / network.version
        home.mkdir(parents=True, exist_ok=True)
        (home / "model.tflite").write_bytes(network.model)
        settings = {
            "name": network.name,
            "implementation": "deploy.mlserver_network.NetworkModel",
            "parameters": {
                "uri": "./model.tflite",
                "version": network.version,
                "extra": {"columns": network.columns},
            },
        }
        (home / "model-settings.json").write_text(json.dumps(settings), "utf-8")

    def _wait_ready(self) -> None:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not all(self._answers(network) for network in self._networks):
            process = self._process
            if process is None or not processes.is_alive(process):
                raise TransientError(f"MLServer ended: {_tail(self.log)}")
            if time.monotonic() > deadline_s:
                raise TransientError(f"MLServer not ready in {START_TIMEOUT_S:g} s")
            time.sleep(_POLL_S)

    def _answers(self, network: Network) -> bool:
        path = f"/v2/models/{network.name}/versions/{network.version}/ready"
        connection = http.client.HTTPConnection(LOOPBACK, self.http_port, timeout=PROBE_TIMEOUT_S)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def _tail(log: Path, chars: int = 2000) -> str:
    return log.read_text("utf-8", errors="replace")[-chars:] if log.is_file() else "no log"
