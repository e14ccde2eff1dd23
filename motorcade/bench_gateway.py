"""`motorcade bench gateway`: what one core of a gateway carries, beside paho alone.

The receiver has a core for itself; brokers and sender share the others. Rounds of the same stream
alternate between paho alone and a gateway that stores, scores and forwards all of it. Then a
steady rate, with a fault in some messages, tells how long an alert takes.
"""

import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cloud.bench_fleet import bench_bundle
from deploy.stack import Endpoints, MqttChoice, Stack
from edge.models import ModelStore
from motorcade.bench_mqtt import Sender
from motorcade.bench_receiver import Progress, Receiver
from motorcade.bench_stream import StreamPlan, faulty, packets
from schemas.errors import TransientError
from schemas.records import decode_single_object
from schemas.topics import TOPICS, mqtt_alert
from scoring.bundle import Bundle, PolicySettings
from transport.kafka import KafkaSettings, ensure_topics
from transport.mqtt import Incoming, MqttClient, SessionSettings
from transport.settings import MqttSettings

OUTSTANDING_MAX = 4_000
"""Sent and not yet received at most: fewer than brokers begin to drop at."""

ALL_OF_IT = ("received", "stored", "forwarded", "scored")
STALLED_S = 60.0
WARM_S = 2.0
_TOGETHER = 50
_BUNDLE_THRESHOLD = 3.0
"""Of the scores of `bench_stream`, healthy ones stay far below and faulty ones far above it."""


@dataclass(frozen=True, slots=True)
class GatewayPlan:
    """What is measured.

    Attributes:
        messages: Of a round.
        readings: Of a message.
        vehicles: Send in turn.
        rounds: Of each kind.
        rate: Messages/s while alerts are timed.
        seconds: Length of that.
        mqtt: Which broker.
    """

    messages: int = 60_000
    readings: int = 10
    vehicles: int = 1_000
    rounds: int = 2
    rate: int = 1_000
    seconds: float = 15.0
    mqtt: MqttChoice = "auto"


def bench_gateway(plan: GatewayPlan, *, on_progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure.

    Returns:
        `messages_per_s`, `readings_per_s`, `bare_paho_messages_per_s`, `ratio_to_bare_paho`;
        `cpu_us_per_message` of both; `alerts`, `alert_p50_ms` and `alert_p99_ms`, from the sending
        of the reading to the alert at a watcher of the same broker; `rss_mb`;
        `flash_bytes_per_reading` at the steady rate, and at full load.

    Raises:
        MotorcadeError: A part did not start, or a message was lost on the way.
    """
    cores = sorted(os.sched_getaffinity(0))
    on_progress("training a model")
    bundle = bench_bundle(memory=False)
    with (
        tempfile.TemporaryDirectory(prefix="motorcade-bench-") as directory,
        _on_cores(cores[:-1] or cores),
    ):
        root = Path(directory)
        on_progress("starting the brokers")
        with Stack(root / "stack", mqtt=plan.mqtt) as stack:
            bench = _Bench(
                plan,
                root,
                stack.endpoints,
                receiver_cores=cores[-1:],
                bundle=bundle,
                on_progress=on_progress,
            )
            return {**bench.throughput(), **bench.latency()}


@contextmanager
def _on_cores(cores: Sequence[int]) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class _Bench:
    def __init__(
        self,
        plan: GatewayPlan,
        root: Path,
        ends: Endpoints,
        *,
        receiver_cores: Sequence[int],
        bundle: Bundle,
        on_progress: Callable[[str], None],
    ) -> None:
        self._plan = plan
        self._root = root
        self._mqtt = MqttSettings(host=ends.mqtt_host, port=ends.mqtt_port)
        self._kafka = KafkaSettings(
            bootstrap_servers=ends.kafka_bootstrap, registry_url=ends.registry_url
        )
        self._cores = list(receiver_cores)
        self._bundle = bundle
        self._say = on_progress
        self._run = 0
        ensure_topics(self._kafka, TOPICS)

    # -- full load

    def throughput(self) -> dict[str, Any]:
        plan = self._plan
        rounds: dict[str, list[dict[str, float]]] = {"bare": [], "gateway": []}
        for number in range(2 * plan.rounds):
            kind = ("bare", "gateway")[number % 2]
            rounds[kind].append(self._round(kind))
            self._say(f"{kind}: {rounds[kind][-1]['messages_per_s']:,.0f} messages/s")
        alone, full = (_means(rounds[kind]) for kind in ("bare", "gateway"))
        return {
            "messages_per_s": round(full["messages_per_s"]),
            "readings_per_s": round(full["messages_per_s"] * plan.readings),
            "bare_paho_messages_per_s": round(alone["messages_per_s"]),
            "ratio_to_bare_paho": round(full["messages_per_s"] / alone["messages_per_s"], 3),
            "cpu_us_per_message": round(full["cpu_us"], 1),
            "bare_paho_cpu_us_per_message": round(alone["cpu_us"], 1),
            "rss_mb": round(full["rss_mb"], 1),
            "flash_bytes_per_reading_full_load": round(full["disk_bytes"] / plan.readings, 1),
        }

    def _round(self, kind: str) -> dict[str, float]:
        """One stream from the first message to the end of all work on it."""
        plan = self._plan
        fleet = self._next_fleet()
        stream = packets(
            StreamPlan(fleet, plan.vehicles, plan.messages, plan.readings), together=_TOGETHER
        )
        wanted = _all_done(kind, plan.messages, plan.readings)
        with (
            self._receiver(kind, fleet, self._bundle) as receiver,
            Sender(self._mqtt.host, self._mqtt.port, f"bench-{fleet}") as sender,
        ):
            before = receiver.now
            for number, part in enumerate(stream):
                held = (number + 1) * _TOGETHER - OUTSTANDING_MAX
                receiver.wait({"received": held}, timeout_s=STALLED_S)
                sender.send(part)
            after = receiver.wait(wanted, timeout_s=STALLED_S)
        return _costs(before, after, plan.messages)

    # -- alerts

    def latency(self) -> dict[str, Any]:
        plan = self._plan
        fleet = self._next_fleet()
        messages = round(plan.rate * (plan.seconds + WARM_S))
        stream = StreamPlan(fleet, plan.vehicles, messages, plan.readings, faults=True)
        manifest = replace(
            self._bundle.manifest,
            threshold=_BUNDLE_THRESHOLD,
            policy=PolicySettings(k=1, n=1, close_k=0),
        )
        alerting = Bundle(manifest, self._bundle.model)
        with (
            self._receiver("gateway", fleet, alerting) as receiver,
            _Watcher(replace(self._mqtt, fleet=fleet)) as watcher,
            Sender(self._mqtt.host, self._mqtt.port, f"bench-{fleet}") as sender,
        ):
            before = receiver.now
            sent_s = self._paced(stream, sender)
            after = receiver.wait(
                _all_done("gateway", messages, plan.readings), timeout_s=STALLED_S
            )
            expected = {number for number in range(messages) if faulty(number, stream)}
            watcher.wait(len(expected), timeout_s=STALLED_S)
        warm = round(plan.rate * WARM_S)
        delays_ms = [
            1e3 * (came_s - sent_s[number])
            for number, came_s in watcher.opened(stream).items()
            if number >= warm
        ]
        costs = _costs(before, after, messages)
        return {
            "alerts": len(delays_ms),
            "alert_p50_ms": round(float(np.percentile(delays_ms, 50)), 2),
            "alert_p99_ms": round(float(np.percentile(delays_ms, 99)), 2),
            "flash_bytes_per_reading": round(costs["disk_bytes"] / plan.readings, 1),
        }

    def _paced(self, stream: StreamPlan, sender: Sender) -> list[float]:
        """Send at the rate; when each message was sent."""
        sent_s = []
        begin_s = time.monotonic()
        for number, part in enumerate(packets(stream, together=1)):
            wait_s = begin_s + number / self._plan.rate - time.monotonic()
            if wait_s > 0:
                time.sleep(wait_s)
            sent_s.append(time.monotonic())
            sender.send(part)
        return sent_s

    def _next_fleet(self) -> str:
        self._run += 1
        return f"bench-{self._run}"

    def _receiver(self, kind: str, fleet: str, bundle: Bundle) -> Receiver:
        directory = self._root / fleet
        directory.mkdir()
        ModelStore(directory / "models").install(bundle)
        return Receiver(
            kind,
            {
                "cores": self._cores,
                "directory": str(directory),
                "mqtt": {"host": self._mqtt.host, "port": self._mqtt.port, "fleet": fleet},
                "kafka": {key: value for key, value in asdict(self._kafka).items() if value},
                "settings": {"model_name": bundle.manifest.name},
            },
        )


def _all_done(kind: str, messages: int, readings: int) -> dict[str, float]:
    if kind == "bare":
        return {"received": messages}
    return {name: float(messages) for name in ALL_OF_IT} | {"scored": float(messages * readings)}


def _costs(before: Progress, after: Progress, messages: int) -> dict[str, float]:
    return {
        "messages_per_s": messages / (after["at_s"] - before["at_s"]),
        "cpu_us": 1e6 * (after["cpu_s"] - before["cpu_s"]) / messages,
        "rss_mb": after["rss_bytes"] / 1e6,
        "disk_bytes": (after["disk_bytes"] - before["disk_bytes"]) / messages,
    }


def _means(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: statistics.mean(found[key] for found in rounds) for key in rounds[0]}


class _Watcher:
    """Hears the alerts of a fleet as anyone would, and notes when each opening came."""

    def __init__(self, mqtt: MqttSettings) -> None:
        self._came: list[tuple[float, bytes]] = []
        self._changed = threading.Condition()
        session = SessionSettings("bench-watcher", receive_max=1_000, manual_ack=False)
        self._client = MqttClient(mqtt, session, on_message=self._heard)
        self._client.subscribe([mqtt_alert(mqtt.fleet, "+", "+")])

    def __enter__(self) -> "_Watcher":
        self._client.start()
        self._client.wait_connected(STALLED_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.stop()

    def _heard(self, message: Incoming) -> None:
        if message.payload:
            with self._changed:
                self._came.append((time.monotonic(), message.payload))
                self._changed.notify_all()

    def wait(self, alerts: int, *, timeout_s: float) -> None:
        """Wait for so many openings. Raises TransientError."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._came) >= alerts, timeout_s):
                raise TransientError(f"{len(self._came)} alerts came, not {alerts}")

    def opened(self, stream: StreamPlan) -> dict[int, float]:
        """When the alert of each faulty message came, by the message's place in the stream."""
        found: dict[int, float] = {}
        for came_s, payload in self._came:
            _, vehicle_id, _, seq, *_ = decode_single_object("Alert", payload)["alert_id"].split(
                "/"
            )
            found.setdefault(stream.number_of(vehicle_id, int(seq)), came_s)
        return found
