"""Parts of the gateway's tests: batches, a model, a gateway process, readers of the brokers."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from schemas.records import (
    CONFLUENT_HEADER_BYTES,
    Record,
    decode_body,
    decode_single_object,
    encode_single_object,
)
from schemas.signals import SIGNAL_NAMES
from schemas.topics import Topic, mqtt_ack, mqtt_alert, mqtt_telemetry
from scoring.bundle import Bundle, FeatureSpec, Manifest, PolicySettings
from transport.kafka import KafkaSettings, read_to_end
from transport.mqtt import Incoming, MqttClient, SessionSettings
from transport.settings import MqttSettings

Signals = Mapping[str, float]

HEALTHY: Signals = {"speed": 50.0}
FAULTY: Signals = {"speed": 150.0}
SOUND: Signals = {
    "speed": 50.0,
    "engine_speed": 2_000.0,
    "coolant_temperature": 85.0,
    "map": 100.0,
    "maf": 20.0,
}
SICK: Signals = {
    "speed": 50.0,
    "engine_speed": 9_000.0,
    "coolant_temperature": 160.0,
    "map": 480.0,
    "maf": 600.0,
}
"""As `HEALTHY` and `FAULTY`, for the small LSTM."""

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PATIENCE_S = 60.0
EPOCH_MS = 1_700_000_000_000


@dataclass
class FakeClock:
    """A machine's clocks that go as a test wants."""

    wall: int = EPOCH_MS + 100_000_000_000
    monotonic: int = 1_000_000
    right: bool = True
    boot: str = "boot"

    def boot_mark(self) -> str:
        return self.boot

    def wall_ms(self) -> int:
        return self.wall

    def monotonic_ms(self) -> int:
        return self.monotonic

    def synced(self) -> bool:
        return self.right

    def advance(self, ms: int) -> None:
        """Time passes."""
        self.wall += ms
        self.monotonic += ms


def reading(index: int, signals: Signals = HEALTHY) -> Record:
    """One reading, a second after the one before."""
    present = {"engine_speed": 2_000.0, **signals}
    return dict.fromkeys(SIGNAL_NAMES) | present | {"event_time": EPOCH_MS + 1_000 * index}


def batch(
    vehicle: str,
    seq: int,
    *,
    boot: int = 1,
    oldest: int = 1,
    step_ms: int = 0,
    signals: Signals = HEALTHY,
    event_ms: int | None = None,
    uptime_ms: int | None = None,
    synced: bool = True,
) -> bytes:
    """A batch of one reading, as a vehicle sends it; by default a second after the one before."""
    one = reading(seq, signals)
    one["event_time"] = (one["event_time"] if event_ms is None else event_ms) + step_ms
    record = {
        "vehicle_id": vehicle,
        "boot_id": boot,
        "seq": seq,
        "oldest_seq": oldest,
        "uptime_ms": 1_000 * seq if uptime_ms is None else uptime_ms,
        "clock_synced": synced,
        "readings": [one],
    }
    return encode_single_object("TelemetryBatch", record)


def lstm_bundle(version: str = "lstm", *, name: str = "anomaly") -> Bundle:
    """The small LSTM of the scoring tests, over four readings.

    Alerts open with the third of five windows that are off, and close when one of five is.
    """
    found = Bundle.load(HERE.parent / "scoring" / "data" / "small_window.motorcade")
    return replace(found, manifest=replace(found.manifest, version=version, name=name))


def bundle(version: str = "1", *, name: str = "anomaly", model: bytes | None = None) -> Bundle:
    """A model whose output is the mean: the score is the squared distance from 50 km/h, 2,000 rpm.

    Alerts open with the second of three readings that are off, and close when none of three is.
    """
    content = (HERE / "data" / "zero2.tflite").read_bytes() if model is None else model
    return Bundle(
        Manifest(
            name=name,
            version=version,
            created_time_ms=EPOCH_MS,
            features=(FeatureSpec("speed"), FeatureSpec("engine_speed")),
            mean=(50.0, 2_000.0),
            scale=(10.0, 500.0),
            threshold=4.0,
            model_sha256=hashlib.sha256(content).hexdigest(),
            policy=PolicySettings(k=2, n=3, close_k=0),
        ),
        content,
    )


def until(what: str, true: Callable[[], object], *, timeout_s: float = PATIENCE_S) -> None:
    """Wait until something holds; fail with `what` if it never does."""
    deadline_s = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline_s, f"never happened: {what}"
        time.sleep(0.02)


@dataclass
class Fleet:
    """Vehicles on one MQTT connection that keep what is not acknowledged end to end."""

    mqtt: MqttSettings
    held: dict[tuple[str, int, int], bytes] = field(default_factory=dict)
    acks: list[Record] = field(default_factory=list)
    alerts: dict[str, bytes] = field(default_factory=dict)
    topics: dict[str, bytes] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._lock = threading.Lock()
        self.client = MqttClient(
            self.mqtt,
            SessionSettings(
                client_id=f"fleet-{self.mqtt.fleet}", manual_ack=False, clean_start=True
            ),
            on_message=self._heard,
        )
        self.client.subscribe(
            [mqtt_ack(self.mqtt.fleet, "+"), mqtt_alert(self.mqtt.fleet, "+", "+")]
        )
        self.client.start()
        self.client.wait_connected(PATIENCE_S)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.client.stop()

    def _heard(self, message: Incoming) -> None:
        _, _, vehicle, kind, *_ = message.topic.split("/")
        if kind == "alert":
            self.alerts[vehicle] = self.topics[message.topic] = message.payload
            return
        ack = decode_single_object("Ack", message.payload)
        self.acks.append(ack)
        with self._lock:
            for key in [key for key in self.held if key[:2] == (vehicle, ack["boot_id"])]:
                if _covers(ack, key[2]):
                    del self.held[key]

    def send(
        self,
        vehicle: str,
        seq: int,
        *,
        boot: int = 1,
        step_ms: int = 0,
        signals: Signals = HEALTHY,
        synced: bool = True,
        says_oldest: bool = False,
    ) -> None:
        """Measure a batch and publish it; it may say which is the oldest that is still held."""
        with self._lock:
            oldest = min((at for v, b, at in self.held if (v, b) == (vehicle, boot)), default=seq)
            payload = batch(
                vehicle,
                seq,
                boot=boot,
                oldest=oldest if says_oldest else 1,
                step_ms=step_ms,
                signals=signals,
                synced=synced,
            )
            self.held[vehicle, boot, seq] = payload
        self.publish(vehicle, payload)

    def hold(self, vehicle: str, seq: int, payload: bytes, *, boot: int = 1) -> None:
        """Publish a batch that was made elsewhere, and keep it until it is acknowledged."""
        with self._lock:
            self.held[vehicle, boot, seq] = payload
        self.publish(vehicle, payload)

    def publish(
        self, vehicle: str, payload: bytes, *, leaf: str = "telemetry", boot_seq: str = ""
    ) -> None:
        """Publish bytes as a vehicle; `boot_seq` ("1/7") also states them as user properties."""
        boot, _, seq = boot_seq.partition("/")
        properties = [("boot_id", boot), ("seq", seq)] if boot_seq else []
        topic = mqtt_telemetry(self.mqtt.fleet, vehicle).removesuffix("telemetry") + leaf
        self.client.publish(topic, payload, user_properties=properties)

    def send_again(self) -> None:
        """Publish whatever is not acknowledged."""
        with self._lock:
            held = dict(self.held)
        for (vehicle, _, _), payload in held.items():
            self.publish(vehicle, payload)

    def settle(self) -> None:
        """Send again, as vehicles do, until all is acknowledged."""
        deadline_s = time.monotonic() + PATIENCE_S
        again_s = time.monotonic() + 2.0
        while self.held:
            assert time.monotonic() < deadline_s, f"{len(self.held)} batches never acknowledged"
            if time.monotonic() >= again_s:
                again_s = time.monotonic() + 2.0
                self.send_again()
            time.sleep(0.02)


def _covers(ack: Record, seq: int) -> bool:
    return seq <= ack["seq"] or any(r["first"] <= seq <= r["last"] for r in ack["ranges"])


class GatewayProcess:
    """A gateway in a process of its own, which can be killed, also at a named point."""

    def __init__(
        self,
        directory: Path,
        mqtt: MqttSettings,
        kafka: KafkaSettings,
        *,
        hooks: Mapping[str, object] | None = None,
        **settings: Any,
    ) -> None:
        """`hooks`: what of the product is replaced; see `gateway_child`."""
        self.directory = directory
        self._wanted = {
            "mqtt": {
                "host": mqtt.host,
                "port": mqtt.port,
                "fleet": mqtt.fleet,
                "session_expiry_s": mqtt.session_expiry_s,
            },
            "kafka": {
                "bootstrap_servers": kafka.bootstrap_servers,
                "registry_url": kafka.registry_url,
                "sasl_mechanism": kafka.sasl_mechanism,
                "username": kafka.username,
                "password": kafka.password,
            },
            "settings": {"gateway_id": "gw", "ack_interval_ms": 50} | settings,
            "directory": str(directory),
            "hooks": dict(hooks or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, crash: tuple[str, int] | None = None) -> None:
        """Start, and wait until it is connected or gone.

        Args:
            crash: A point of `gateway_child` and at which passing of it the process kills itself.
        """
        ready = self.directory / "ready"
        ready.unlink(missing_ok=True)
        self.directory.mkdir(exist_ok=True)
        wanted = self._wanted | {"crash": crash, "ready": str(ready)}
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(HERE / "gateway_child.py"), json.dumps(wanted)],
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )
        until("gateway is ready", lambda: ready.exists() or self.status is not None)

    def uplinks(self) -> list[str]:
        """What it said of its uplink, in all its lives; each said once in a row."""
        path = self.directory / "uplinks"
        return path.read_text("utf-8").splitlines() if path.exists() else []

    @property
    def uplink(self) -> str:
        """What it says of its uplink now."""
        return (self.uplinks() or ["nothing said yet"])[-1]

    @property
    def status(self) -> int | None:
        """Exit status; None while it runs."""
        return None if self._process is None else self._process.poll()

    def wait_gone(self) -> int:
        """Wait until it has ended by itself; its status."""
        assert self._process is not None
        return self._process.wait(PATIENCE_S)

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """A clean stop; the exit status."""
        return self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> int:
        if self._process is None:
            return 0
        process, self._process = self._process, None
        if process.poll() is None:
            process.send_signal(how)
        return process.wait(PATIENCE_S)

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def rss_bytes(self) -> int:
        """What it holds of the machine's memory now."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text("ascii")
        kilobytes = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(kilobytes.split()[1]) * 1024

    def log(self) -> str:
        """What it said so far, in all its lives."""
        return (self.directory / "log").read_text("utf-8")


@contextmanager
def running(gateway: GatewayProcess) -> Iterator[GatewayProcess]:
    """A gateway that is killed at the end, should it still run."""
    gateway.start()
    try:
        yield gateway
    finally:
        gateway.kill()


def in_kafka(kafka: KafkaSettings, topic: Topic, name: str) -> list[Record]:
    """Committed records of a topic that hold `name`; tombstones are left out.

    The log is shared, and others write things into it that are no records at all.
    """
    wanted = name.encode()
    return [
        decode_body(topic.record, value[CONFLUENT_HEADER_BYTES:])
        for messages in read_to_end(kafka, topic.name)
        for message in messages
        if (value := message.value()) is not None and wanted in value
    ]


def identities(records: Sequence[Record]) -> list[tuple[str, int, int]]:
    """Who is in Kafka, sorted; a repeated one shows twice."""
    return sorted((r["vehicle_id"], r["boot_id"], r["seq"]) for r in records)
