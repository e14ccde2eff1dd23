"""The stack on real brokers: data outlives kill -9, stacks live side by side, faults are said."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Protocol

import paho.mqtt.client as mqtt
import pytest
from confluent_kafka.admin import AdminClient
from kafka_clients import TIMEOUT_S, create_topics, read, wait_for, write
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from deploy import processes
from deploy import stack as stack_module
from deploy.mosquitto import find_mosquitto
from deploy.ports import Ports
from deploy.stack import MqttChoice, Stack
from schemas.errors import SettingsError, TransientError

pytestmark = pytest.mark.integration

BROKERS: tuple[MqttChoice, ...] = ("mosquitto", "artemis")


class FreshStack(Protocol):
    def __call__(self, mqtt: MqttChoice = "auto", name: str = "stack") -> Stack: ...


def require(broker: MqttChoice) -> None:
    if broker == "mosquitto" and find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")


class Link:
    """An MQTT 5 client with a session that outlives its connection."""

    def __init__(self, port: int, client_id: str) -> None:
        self.received: list[tuple[str, bytes]] = []
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id, protocol=mqtt.MQTTv5)
        self._client.on_message = self._keep
        self._connected = threading.Event()
        self._client.on_connect = lambda *_: self._connected.set()
        expiry: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        expiry.SessionExpiryInterval = 3600
        self._client.connect("127.0.0.1", port, clean_start=False, properties=expiry)
        self._client.loop_start()
        assert self._connected.wait(TIMEOUT_S)

    def _keep(self, client: object, data: object, message: mqtt.MQTTMessage) -> None:
        self.received.append((message.topic, bytes(message.payload)))

    def subscribe(self, topic: str) -> None:
        done = threading.Event()
        self._client.on_subscribe = lambda *_: done.set()
        self._client.subscribe(topic, qos=1)
        assert done.wait(TIMEOUT_S)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(TIMEOUT_S)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def test_kafka_keeps_committed_data_through_kill_9_and_restart(fresh_stack: FreshStack) -> None:
    stack = fresh_stack()
    values = [b"%d" % number for number in range(1000)]
    create_topics(stack.endpoints, "kept")
    write(stack.endpoints, ["kept"], values, "writer")
    stack.kill_part("kafka")
    assert [part.answers for part in stack.status()] == [False, True, True]
    stack.start_part("kafka")
    assert read(stack.endpoints, "kept", len(values)) == values
    write(stack.endpoints, ["kept"], values, "writer")
    stack.restart_part("kafka")
    assert read(stack.endpoints, "kept", 2 * len(values)) == values * 2


@pytest.mark.parametrize("broker", BROKERS)
def test_mqtt_keeps_sessions_and_retained_state_through_a_restart(
    tmp_path: Path, java_artifacts: None, broker: MqttChoice
) -> None:
    require(broker)
    stack = Stack(tmp_path, mqtt=broker)
    try:
        stack.start_part("mqtt")
        port = stack.endpoints.mqtt_port
        reader = Link(port, "reader")
        reader.subscribe("v1/+/+/telemetry")
        reader.close()
        writer = Link(port, "writer")
        writer.publish("v1/f/a/telemetry", b"queued")
        writer.publish("v1/f/a/state/link", b"online", retain=True)
        writer.close()
        stack.restart_part("mqtt")
        reader = Link(port, "reader")
        wait_for(lambda: ("v1/f/a/telemetry", b"queued") in reader.received, "what was queued")
        reader.subscribe("v1/+/+/state/link")
        wait_for(lambda: ("v1/f/a/state/link", b"online") in reader.received, "what is retained")
        reader.close()
    finally:
        stack.stop()


@pytest.mark.parametrize("broker", BROKERS)
def test_mqtt_keeps_what_reached_its_store_through_kill_9(
    tmp_path: Path, java_artifacts: None, broker: MqttChoice
) -> None:
    require(broker)
    stack = Stack(tmp_path, mqtt=broker)
    try:
        stack.start_part("mqtt")
        port = stack.endpoints.mqtt_port
        writer = Link(port, "writer")
        writer.publish("v1/f/a/state/link", b"online-before-kill", retain=True)
        store = tmp_path / broker
        wait_for(lambda: holds(store, b"online-before-kill"), "the store")
        stack.kill_part("mqtt")
        writer.close()
        stack.start_part("mqtt")
        reader = Link(port, "reader")
        reader.subscribe("v1/+/+/state/link")
        wait_for(lambda: reader.received, "what is retained")
        assert reader.received == [("v1/f/a/state/link", b"online-before-kill")]
        reader.close()
    finally:
        stack.stop()


def holds(directory: Path, content: bytes) -> bool:
    """Whether a file of the store has it; Mosquitto's is not one before it has lost its `.new`."""

    def read(path: Path) -> bytes:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return b""

    files = [path for path in directory.rglob("*") if path.is_file() and path.suffix != ".new"]
    return any(content in read(path) for path in files)


def test_two_stacks_at_once_do_not_meet(fresh_stack: FreshStack) -> None:
    one, two = fresh_stack(name="one"), fresh_stack(mqtt="artemis", name="two")
    first, second = one.endpoints, two.endpoints
    assert len({first.kafka_bootstrap, second.kafka_bootstrap}) == 2
    assert len({first.mqtt_port, second.mqtt_port, first.registry_url, second.registry_url}) == 4
    create_topics(first, "only-here")
    admin = AdminClient({"bootstrap.servers": second.kafka_bootstrap})
    assert "only-here" not in admin.list_topics(timeout=TIMEOUT_S).topics
    two.stop()
    assert all(part.answers for part in one.status())
    assert two.status()[1].program.startswith("Apache ActiveMQ Artemis 2.")


def test_a_started_stack_is_left_alone_and_can_be_stopped_by_another(
    fresh_stack: FreshStack,
) -> None:
    stack = fresh_stack()
    before = [part.pid for part in stack.status()]
    other = Stack(stack.directory)
    other.start()
    assert [part.pid for part in other.status()] == before
    assert other.endpoints == stack.endpoints
    other.stop()
    assert [part.pid for part in stack.status()] == [None] * 3
    assert not any(part.answers for part in stack.status())


class TestWithoutKafka:
    """What one part shows as well as three; the registry starts quickest."""

    def test_a_port_that_is_taken_is_said_with_who_and_where(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            stack = Stack(tmp_path, ports=Ports(registry=port))
            with pytest.raises(SettingsError, match=f"port {port} is taken by another program"):
                stack.start_part("registry")
        stack.start_part("registry")
        stack.stop()

    def test_a_stale_pid_file_is_neither_believed_nor_signalled(self, tmp_path: Path) -> None:
        bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        stack = Stack(tmp_path)
        try:
            stack.start_part("registry")
            stack.kill_part("registry")
            pid_file = tmp_path / "registry" / "pid"
            pid_file.write_text(f"{bystander.pid} 1\n")
            stack.stop_part("registry")
            assert bystander.poll() is None
            pid_file.write_text(f"{bystander.pid} 1\n")
            assert {part.name: part.pid for part in stack.status()}["registry"] is None
            stack.start_part("registry")
            assert bystander.poll() is None
        finally:
            stack.stop()
            bystander.kill()
            bystander.wait()

    def test_a_part_that_ends_while_starting_shows_its_log(self, tmp_path: Path) -> None:
        (tmp_path / "registry").mkdir()
        (tmp_path / "registry" / "schemas.sqlite").write_bytes(b"no database" * 100)
        stack = Stack(tmp_path)
        with pytest.raises(TransientError, match=r"(?s)ended while starting.*not a database"):
            stack.start_part("registry")
        assert "not a database" in "\n".join(stack.logs("registry"))
        stack.stop()

    def test_a_part_that_never_answers_is_given_up(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stack_module, "START_TIMEOUT_S", 0.1)
        monkeypatch.setattr("deploy.probes.registry_answers", lambda port: False)
        stack = Stack(tmp_path)
        with pytest.raises(TransientError, match="did not answer within"):
            stack.start_part("registry")
        stack.stop()

    def test_ports_are_remembered_and_can_be_changed_when_stopped(self, tmp_path: Path) -> None:
        stack = Stack(tmp_path)
        stack.start_part("registry")
        first = stack.endpoints
        assert Stack(tmp_path).endpoints == first
        moved = Stack(tmp_path, ports=Ports(mqtt=21_883))
        with pytest.raises(SettingsError, match="runs with other settings; stop it first"):
            moved.start_part("registry")
        stack.stop()
        moved.start_part("registry")
        assert (moved.endpoints.mqtt_port, moved.endpoints.registry_url) == (
            21_883,
            first.registry_url,
        )
        moved.stop()

    def test_a_stack_that_was_never_started(self, tmp_path: Path) -> None:
        stack = Stack(tmp_path / "never")
        assert stack.status() == []
        stack.stop()
        assert not stack.directory.exists()
        with pytest.raises(SettingsError, match="no stack was ever started"):
            _ = stack.endpoints

    def test_a_part_nobody_knows(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match="there are kafka, mqtt, registry"):
            Stack(tmp_path).start_part("zookeeper")

    @pytest.mark.parametrize("content", ["", "{}", "[]", '{"ports": {"x": 1}, "mqtt": "auto"}'])
    def test_a_damaged_state_file_is_said(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "stack.json").write_text(content)
        with pytest.raises(SettingsError, match=r"stack.json is damaged"):
            Stack(tmp_path).status()


START_AND_WAIT = """
import sys, time
from deploy.stack import Stack
stack = Stack(sys.argv[1], detached=sys.argv[2] == "detached")
stack.start_part("registry")
print("up", flush=True)
if sys.argv[2] == "detached":
    sys.exit()
time.sleep(600)
"""


def start_in_another_program(directory: Path, how: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", START_AND_WAIT, str(directory), how]
    program = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert program.stdout is not None
    assert program.stdout.readline() == b"up\n"
    program.stdout.close()
    return program


def test_parts_end_with_the_program_that_started_them_even_if_that_is_killed(
    tmp_path: Path,
) -> None:
    program = start_in_another_program(tmp_path, "bound")
    registry = processes.read_pid_file(tmp_path / "registry" / "pid")
    assert registry is not None
    os.kill(program.pid, signal.SIGKILL)
    program.wait()
    wait_for(lambda: not processes.is_alive(registry), "the keeper to end the part")


def test_parts_of_a_detached_stack_go_on(tmp_path: Path) -> None:
    program = start_in_another_program(tmp_path, "detached")
    assert program.wait(TIMEOUT_S) == 0
    stack = Stack(tmp_path)
    running = {part.name: part.answers for part in stack.status()}
    stack.stop()
    assert running == {"kafka": False, "mqtt": False, "registry": True}
    state = json.loads((tmp_path / "stack.json").read_text())
    assert set(state) == {"ports", "mqtt"}
