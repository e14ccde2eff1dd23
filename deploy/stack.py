"""The local stack: Kafka, an MQTT broker and a schema registry as child processes.

Everything lives in one directory: `stack.json` (ports and which MQTT broker), and a directory for
each part with its data, log and PID file. Any number of stacks run side by side. A `Stack` holds
nothing that the directory does not, so that one process can stop what another started.

By default the parts end with the process that started them, even if that is killed
(`deploy.keeper`). A `detached` stack's parts run until somebody stops them.
"""

import contextlib
import fcntl
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from deploy import processes
from deploy.artemis import Artemis
from deploy.kafka import Kafka
from deploy.keeper import Keeper
from deploy.mosquitto import Mosquitto, find_mosquitto
from deploy.parts import Part
from deploy.ports import LOOPBACK, Ports, choose_ports, port_is_free
from deploy.processes import ProcessId
from deploy.registry_part import Registry
from schemas.errors import SettingsError, TransientError

MqttChoice = Literal["auto", "mosquitto", "artemis"]

PART_NAMES = ("kafka", "mqtt", "registry")
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
LOCK_TIMEOUT_S = 90.0
ERROR_LOG_LINES = 15

_TAIL_BYTES = 1 << 18
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where clients find the parts.

    Attributes:
        kafka_bootstrap: `host:port` for Kafka clients.
        mqtt_host: Host of the MQTT broker.
        mqtt_port: Its port, without TLS.
        registry_url: Base address of the schema registry.
    """

    kafka_bootstrap: str
    mqtt_host: str
    mqtt_port: int
    registry_url: str


@dataclass(frozen=True, slots=True)
class PartStatus:
    """How a part is.

    Attributes:
        name: `kafka`, `mqtt` or `registry`.
        program: What runs, for people.
        pid: Its process, None if it does not run.
        answers: Whether it answered a client just now.
        port: Where clients find it on the loopback.
        log: Its log file.
    """

    name: str
    program: str
    pid: int | None
    answers: bool
    port: int
    log: Path


class Stack:
    """Real brokers on this machine, for a demo, a test or a developer.

    Not meant for two threads at once, but `kill_part` may be called from any.

    Args:
        directory: Where everything lives; made by `start`.
        ports: Ports to use. None keeps those of the last start, or chooses free ones.
        mqtt: `mosquitto`, `artemis`, or `auto`: as at the last start, else Mosquitto if it is
            installed, else Artemis.
        detached: Leave the parts running when this process ends.

    Example:
        >>> with Stack(Path("run")) as stack:  # doctest: +SKIP
        ...     print(stack.endpoints.kafka_bootstrap)
    """

    def __init__(
        self,
        directory: Path | str,
        *,
        ports: Ports | None = None,
        mqtt: MqttChoice = "auto",
        detached: bool = False,
    ) -> None:
        self.directory = Path(directory).absolute()
        self._ports = ports
        self._mqtt = mqtt
        self._detached = detached
        self._keeper = Keeper(self.directory / "keeper.log")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start every part that does not run, and wait until each answers.

        If one fails, those this call started are stopped again.

        Raises:
            SettingsError: Something is missing, damaged, or a port is taken.
            TransientError: A part ended, or did not answer in time; the message has the end of
                its log.
        """
        with self._locked():
            self._settle()
            started = [part for part in self._parts() if self._running(part) is None]
            try:
                for part in started:
                    self._spawn(part)
                for part in self._parts():
                    self._await(part)
            except BaseException:
                for part in started:
                    self._end(part)
                raise

    def stop(self) -> None:
        """Stop every part in order, whoever started it; what does not run is left alone.

        A part that has not ended after `STOP_TIMEOUT_S` is killed.
        """
        if not self.directory.is_dir():
            return
        with self._locked():
            for part in reversed(self._parts()) if self._is_settled() else ():
                self._end(part)
        self._keeper.stop()

    def start_part(self, name: str) -> None:
        """Start one part, and wait until it answers; raises as `start` does."""
        with self._locked():
            self._settle()
            part = self._part(name)
            if self._running(part) is None:
                self._spawn(part)
            self._await(part)

    def stop_part(self, name: str) -> None:
        """Stop one part in order; killed if it has not ended after `STOP_TIMEOUT_S`."""
        with self._locked():
            self._end(self._part(name))

    def kill_part(self, name: str) -> None:
        """End one part at once, as a power cut would (SIGKILL)."""
        part = self._part(name)
        process = self._running(part)
        if process is not None:
            processes.kill(process)
        self._pid_file(part).unlink(missing_ok=True)

    def restart_part(self, name: str) -> None:
        """Stop one part in order and start it again."""
        self.stop_part(name)
        self.start_part(name)

    def status(self) -> list[PartStatus]:
        """How each part is now; an empty list if the stack was never started."""
        if not self._is_settled():
            return []
        return [self._status_of(part) for part in self._parts()]

    def logs(self, name: str, lines: int = 50) -> list[str]:
        """The last lines of a part's log, and of what it wrote to its standard output."""
        part = self._part(name)
        files = dict.fromkeys((part.log, self._output(part)))
        return [line for file in files for line in _tail(file, lines)][-lines:]

    @property
    def endpoints(self) -> Endpoints:
        """Where clients find the parts, running or not.

        Raises:
            SettingsError: The stack was never started, so its ports are not chosen.
        """
        ports, _ = self._saved()
        return Endpoints(
            kafka_bootstrap=f"{LOOPBACK}:{ports.kafka}",
            mqtt_host=LOOPBACK,
            mqtt_port=ports.mqtt,
            registry_url=f"http://{LOOPBACK}:{ports.registry}",
        )

    # What is remembered

    @property
    def _state_file(self) -> Path:
        return self.directory / "stack.json"

    def _is_settled(self) -> bool:
        return self._state_file.is_file()

    def _saved(self) -> tuple[Ports, str]:
        try:
            state = json.loads(self._state_file.read_text("utf-8"))
            return Ports(**state["ports"]), str(state["mqtt"])
        except FileNotFoundError as error:
            raise SettingsError(f"no stack was ever started in {self.directory}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise SettingsError(
                f"{self._state_file} is damaged ({error}); remove it to choose ports anew"
            ) from error

    def _settle(self) -> None:
        """Choose ports and broker, or keep what was chosen, and write it down."""
        saved = self._saved() if self._is_settled() else None
        ports, choice = _combine(self._ports or Ports(), self._mqtt, saved)
        if (ports, choice) == saved:
            return
        self._forbid_change_while_running(saved)
        state = {"ports": asdict(choose_ports(ports)), "mqtt": choice}
        scratch = self._state_file.with_suffix(".new")
        scratch.write_text(json.dumps(state, indent=2) + "\n", "utf-8")
        scratch.replace(self._state_file)

    def _forbid_change_while_running(self, saved: tuple[Ports, str] | None) -> None:
        if saved is not None and any(self._running(part) for part in self._parts()):
            raise SettingsError(
                f"the stack in {self.directory} runs with other settings; stop it first"
            )

    def _parts(self) -> tuple[Part, ...]:
        ports, choice = self._saved()
        mqtt: Part = (
            Mosquitto(self.directory / "mosquitto", ports.mqtt)
            if choice == "mosquitto"
            else Artemis(self.directory / "artemis", ports.mqtt)
        )
        return (
            Kafka(self.directory / "kafka", ports.kafka, ports.controller),
            mqtt,
            Registry(self.directory / "registry", ports.registry),
        )

    def _part(self, name: str) -> Part:
        for part in self._parts():
            if part.name == name:
                return part
        raise SettingsError(f"no part is called {name!r}; there are {', '.join(PART_NAMES)}")

    # Processes

    def _pid_file(self, part: Part) -> Path:
        return part.directory / "pid"

    def _output(self, part: Part) -> Path:
        return part.directory / "output.log"

    def _running(self, part: Part) -> ProcessId | None:
        return processes.read_pid_file(self._pid_file(part))

    def _spawn(self, part: Part) -> None:
        for port in part.ports:
            if not port_is_free(port):
                raise SettingsError(
                    f"{part.program} cannot listen: port {port} is taken by another program; "
                    f"stop that, or give the stack in {self.directory} other ports"
                )
        part.prepare()
        self._output(part).unlink(missing_ok=True)
        process = processes.spawn(part.command(), log=self._output(part))
        if not self._detached:
            self._keeper.start()
            self._keeper.keep(process)
        processes.write_pid_file(self._pid_file(part), process)

    def _await(self, part: Part) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not part.answers():
            if self._running(part) is None:
                raise self._failure(part, "ended while starting")
            if time.monotonic() > deadline:
                raise self._failure(part, f"did not answer within {START_TIMEOUT_S:.0f} s")
            time.sleep(_POLL_S)

    def _failure(self, part: Part, what: str) -> TransientError:
        tail = "\n".join(f"    {line}" for line in self.logs(part.name, ERROR_LOG_LINES))
        return TransientError(
            f"{part.program} {what}; the end of its log:\n{tail or '    (empty)'}"
        )

    def _end(self, part: Part) -> None:
        process = self._running(part)
        if process is not None:
            processes.terminate(process, STOP_TIMEOUT_S)
        self._pid_file(part).unlink(missing_ok=True)

    def _status_of(self, part: Part) -> PartStatus:
        process = self._running(part)
        return PartStatus(
            name=part.name,
            program=part.program,
            pid=process.pid if process else None,
            answers=process is not None and part.answers(),
            port=part.ports[0],
            log=part.log,
        )

    # One at a time

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "lock").open("w") as file:
            self._take_lock(file.fileno())
            yield

    def _take_lock(self, descriptor: int) -> None:
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise TransientError(
                        f"another program has been starting or stopping the stack in "
                        f"{self.directory} for {LOCK_TIMEOUT_S:.0f} s"
                    ) from error
                time.sleep(_POLL_S)


def _combine(ports: Ports, mqtt: MqttChoice, saved: tuple[Ports, str] | None) -> tuple[Ports, str]:
    """What was asked for, and what was saved where nothing was."""
    if saved is None:
        broker = "mosquitto" if find_mosquitto() else "artemis"
        return ports, broker if mqtt == "auto" else mqtt
    asked = {name: port for name, port in asdict(ports).items() if port}
    return replace(saved[0], **asked), saved[1] if mqtt == "auto" else mqtt


def _tail(path: Path, lines: int) -> list[str]:
    """The last lines of a file, from its last 256 KiB; none if it is absent."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            return file.read().decode("utf-8", errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        return []
