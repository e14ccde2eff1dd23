"""A real gateway as systemd and its operator see it: a real broker, no Kafka."""

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from edge_parts import HERE, PATIENCE_S, ROOT, batch, until
from mosquitto_broker import MosquittoBroker

from edge.control_client import ask
from motorcade.cli import run as command
from schemas.records import decode_single_object
from schemas.topics import mqtt_health, mqtt_link_state, mqtt_telemetry
from transport.mqtt import Incoming, MqttClient, SessionSettings
from transport.settings import MqttSettings

pytestmark = pytest.mark.integration

FLEET, GATEWAY = "operated", "gw-1"
WATCHDOG_US = 600_000


class Systemd:
    """The notify socket."""

    def __init__(self, directory: Path) -> None:
        self.address = str(directory / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)

    def next(self, wanted: str, *, timeout_s: float = PATIENCE_S) -> str | None:
        """The next datagram that begins so; None when none came in time."""
        deadline_s = time.monotonic() + timeout_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            self._socket.settimeout(left_s)
            try:
                heard = self._socket.recv(4096).decode()
            except TimeoutError:
                break
            if heard.startswith(wanted):
                return heard
        return None

    def drain(self) -> None:
        """Forget what has come."""
        self._socket.setblocking(False)
        try:
            while True:
                self._socket.recv(4096)
        except BlockingIOError:
            return

    def close(self) -> None:
        self._socket.close()


@contextmanager
def watching(mqtt: MqttSettings) -> Iterator[tuple[MqttClient, "queue.Queue[Incoming]"]]:
    """A client that sees what the gateway says of itself."""
    heard: queue.Queue[Incoming] = queue.Queue()
    session = SessionSettings("watcher", manual_ack=False, clean_start=True)
    with MqttClient(mqtt, session, on_message=heard.put) as client:
        client.subscribe([mqtt_link_state(FLEET, GATEWAY), mqtt_health(FLEET, GATEWAY)])
        client.wait_connected(PATIENCE_S)
        yield client, heard


def heard_until(heard: "queue.Queue[Incoming]", true: Callable[[Incoming], bool]) -> Incoming:
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        message = heard.get(timeout=max(0.0, deadline_s - time.monotonic()))
        if true(message):
            return message


def settings_text(port: int, extra: str = "") -> str:
    return f"""
[mqtt]
port = {port}
fleet = "{FLEET}"
backoff_min_s = 0.1

[kafka]
bootstrap_servers = "127.0.0.1:1"
registry_url = "http://127.0.0.1:1"

[gateway]
gateway_id = "{GATEWAY}"
control_path = "c"
spool_path = "spool"
models_path = "models"
disk_free_min_bytes = 0
{extra}
"""


def start(directory: Path, systemd: Systemd) -> "subprocess.Popen[bytes]":
    environ = {
        "PYTHONPATH": str(ROOT),
        "NOTIFY_SOCKET": systemd.address,
        "WATCHDOG_USEC": str(WATCHDOG_US),
    }
    with (directory / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, str(HERE / "operated_child.py"), "hang", "gateway", "run"],
            cwd=directory,
            stdout=log,
            stderr=log,
            env=os.environ | environ,
        )


def test_a_gateway_as_its_operator_sees_it(
    tmp_path: Path,
    mosquitto: MosquittoBroker,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    file, control, hang = (tmp_path / name for name in ("motorcade.toml", "c", "hang"))
    file.write_text(settings_text(mosquitto.port))
    systemd = Systemd(tmp_path)
    mqtt = MqttSettings(port=mosquitto.port, fleet=FLEET)
    process = start(tmp_path, systemd)
    try:
        with watching(mqtt) as (client, heard):
            assert systemd.next("READY=1")

            # Kafka is away all the time, and the watchdog is fed.
            until("a lost uplink", lambda: "refused" in str(ask(control, "status")["notes"]))
            systemd.drain()
            assert systemd.next("WATCHDOG=1")
            assert "uplink away" in (systemd.next("STATUS=") or "")

            # The broker holds its link and its health.
            heard_until(heard, lambda message: message.payload == b"online")
            message = heard_until(heard, lambda message: message.topic.endswith("health"))
            record = decode_single_object("GatewayStatus", message.payload)
            assert (record["gateway_id"], record["mqtt_connected"]) == (GATEWAY, True)

            # Its operator sees the same.
            assert command(["gateway", "status"]) == 0
            assert f"{GATEWAY}: healthy" in capsys.readouterr().out
            assert command(["gateway", "status", "--json"]) == 0
            shown = json.loads(capsys.readouterr().out)
            assert set(record) < set(shown)

            # SIGHUP: what may change does, what may not is named.
            file.write_text(
                settings_text(
                    mosquitto.port,
                    "group_commit_ms = 1\nqueue_messages_max = 5\nspool_bytes_max = 2000000\n"
                    "[tracing]\nsample_share = 0.5\n",
                )
            )
            process.send_signal(signal.SIGHUP)
            assert "MONOTONIC_USEC=" in (systemd.next("RELOADING=1") or "")
            assert systemd.next("READY=1")
            status = ask(control, "status")
            assert (status["group_commit_ms"], status["spool_bytes_allowed"]) == (1, 2_000_000)
            assert status["configuration"]["needs_restart"] == [
                "gateway.queue_messages_max",
                "tracing.sample_share",
            ]

            # A file that is wrong is refused whole, by its line, and the old one holds.
            file.write_text(
                settings_text(mosquitto.port, "group_commit_ms = 2\nack_interval_ms = 0\n")
            )
            assert command(["gateway", "reload"]) == 2
            assert "toml:18: gateway.ack_interval_ms is 0" in capsys.readouterr().err
            process.send_signal(signal.SIGHUP)
            until("refused", lambda: ask(control, "status")["configuration"]["refused"])
            status = ask(control, "status")
            assert status["group_commit_ms"] == 1
            assert "toml:18: gateway.ack_interval_ms" in status["configuration"]["refused"]
            file.write_text(settings_text(mosquitto.port))
            assert command(["gateway", "reload"]) == 0
            assert "group_commit_ms = 5" in capsys.readouterr().out

            # A disk that hangs: no more food, and a way to see why.
            hang.touch()
            client.publish(mqtt_telemetry(FLEET, "car"), batch("car", 1))
            until("it hangs", lambda: "hangs: store" in ask(control, "status")["faults"])
            systemd.drain()
            assert systemd.next("WATCHDOG=1", timeout_s=2 * WATCHDOG_US / 1e6) is None
            assert command(["gateway", "status"]) == 1
            assert "NOT HEALTHY" in capsys.readouterr().out
            hang.unlink()
            assert systemd.next("WATCHDOG=1")
            until("stored", lambda: ask(control, "status")["stored"] == 1)

            # A power cut: the broker says so.
            process.kill()
            process.wait(PATIENCE_S)
            heard_until(heard, lambda message: message.payload == b"offline")
            assert command(["gateway", "status", "--json"]) == 1
            assert json.loads(capsys.readouterr().out)["running"] is False

            # And the next life ends in order.
            systemd.drain()
            process = start(tmp_path, systemd)
            assert systemd.next("READY=1")
            heard_until(heard, lambda message: message.payload == b"online")
            process.terminate()
            assert systemd.next("STOPPING=1")
            assert process.wait(PATIENCE_S) == 0
            heard_until(heard, lambda message: message.payload == b"offline")
    finally:
        process.kill()
        process.wait(PATIENCE_S)
        systemd.close()
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) < 100
    assert all(line.startswith("20") and " motorcade" in line for line in lines), lines
