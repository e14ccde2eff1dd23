"""A real gateway process whose way to a real Kafka breaks in every manner.

MOTORCADE_SEED repeats which segments a lossy way loses.
"""

import os
import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from edge_parts import FAULTY, Fleet, GatewayProcess, bundle, identities, in_kafka, running, until
from far_kafka import FarKafka, far_kafka
from tcp_proxy import TcpProxy

from deploy.stack import Stack
from edge.models import ModelStore
from schemas.records import Record
from schemas.topics import ALERTS, TELEMETRY, TOPICS, Topic
from transport.kafka import KafkaSettings, delete_topics, ensure_topics, register_schemas
from transport.settings import MqttSettings

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def kafka(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarKafka]:
    """One for all of these tests: none of them stops it."""
    seed = int(os.environ.get("MOTORCADE_SEED") or random.SystemRandom().randrange(1 << 31))
    print(f"MOTORCADE_SEED={seed}")
    directory = tmp_path_factory.mktemp("far")
    with far_kafka(directory, stack.endpoints.registry_url, seed=seed) as made:
        ensure_topics(made.near, TOPICS)
        register_schemas(made.near)
        yield made


@dataclass
class Road:
    """A fleet and gateways of the test's own, on a way that it may break."""

    kafka: FarKafka
    mqtt: MqttSettings
    directory: Path

    @property
    def name(self) -> str:
        return self.mqtt.fleet

    @property
    def proxy(self) -> TcpProxy:
        return self.kafka.proxy

    def gateway(
        self, place: str = "gateway", kafka: KafkaSettings | None = None, **settings: object
    ) -> GatewayProcess:
        wanted = {"gateway_id": self.name, "model_name": self.name, "status_interval_s": 1.0}
        store = ModelStore(self.directory / place / "models")
        store.install(bundle(name=self.name))
        return GatewayProcess(
            self.directory / place, self.mqtt, kafka or self.kafka.far, **(wanted | settings)
        )

    def vehicle(self, name: str) -> str:
        return f"{self.name}-{name}"

    def mine(self, topic: Topic) -> list[Record]:
        return in_kafka(self.kafka.near, topic, self.name)

    def wait_for(self, topic: Topic, count: int) -> list[Record]:
        until(f"{count} in {topic.name}", lambda: len(self.mine(topic)) >= count)
        return self.mine(topic)


@pytest.fixture
def road(stack: Stack, kafka: FarKafka, tmp_path: Path) -> Iterator[Road]:
    ends = stack.endpoints
    mqtt = MqttSettings(
        host=ends.mqtt_host,
        port=ends.mqtt_port,
        fleet=f"u{uuid.uuid4().hex[:8]}",
        backoff_min_s=0.1,
        backoff_max_s=1.0,
    )
    kafka.proxy.heal()
    yield Road(kafka, mqtt, tmp_path)
    kafka.proxy.heal()


@pytest.fixture
def fleet(road: Road) -> Iterator[Fleet]:
    with Fleet(road.mqtt) as fleet:
        yield fleet


def expected(car: str, last: int, *, first: int = 1) -> list[tuple[str, int, int]]:
    return [(car, 1, seq) for seq in range(first, last + 1)]


def says(gateway: GatewayProcess, *words: str) -> Callable[[], bool]:
    return lambda: all(word in gateway.uplink for word in words)


BREAKS: dict[str, tuple[Callable[[TcpProxy], None], str]] = {
    "refused": (TcpProxy.refuse, "away"),
    "black hole": (TcpProxy.black_hole, "away"),
    "two seconds late": (lambda proxy: proxy.delay(1.0), "connected"),
    "a third lost": (lambda proxy: proxy.lose(0.3), ""),
}


@pytest.mark.parametrize("how", BREAKS)
def test_the_gateway_goes_on_and_all_arrives_once(road: Road, fleet: Fleet, how: str) -> None:
    break_it, state = BREAKS[how]
    car = road.vehicle("a")
    with running(road.gateway()) as gateway:
        fleet.send(car, 1)
        road.wait_for(TELEMETRY, 1)
        assert gateway.uplink == "connected"
        break_it(road.proxy)
        for seq in range(2, 40):
            fleet.send(car, seq, signals=FAULTY)
        fleet.settle()
        until("alert on MQTT", lambda: fleet.alerts.get(car))
        if state:
            until(f"it says {state}", says(gateway, state))
        if state != "away":
            road.wait_for(TELEMETRY, 39)  # Slow is not broken.
        road.proxy.heal()
        for seq in range(40, 50):
            fleet.send(car, seq)
        fleet.settle()
        until("alert emptied", lambda: fleet.alerts.get(car) == b"")
        road.wait_for(TELEMETRY, 49)
        road.wait_for(ALERTS, 2)
        until("it is connected", says(gateway, "connected"))
        assert gateway.stop() == 0
    assert identities(road.mine(TELEMETRY)) == expected(car, 49)
    assert [alert["state"] for alert in road.mine(ALERTS)] == ["OPEN", "CLOSED"]


def test_a_topic_that_is_deleted_is_named_and_waited_for(road: Road, fleet: Fleet) -> None:
    car = road.vehicle("a")
    with running(road.gateway()) as gateway:
        fleet.send(car, 1)
        road.wait_for(TELEMETRY, 1)
        delete_topics(road.kafka.near, [TELEMETRY.name])
        for seq in range(2, 12):
            fleet.send(car, seq)
        fleet.settle()
        until("it says which", says(gateway, "missing topic", TELEMETRY.name))
        ensure_topics(road.kafka.near, [TELEMETRY])
        road.wait_for(TELEMETRY, 10)
        until("it is connected", says(gateway, "connected"))
        assert gateway.stop() == 0
    assert identities(road.mine(TELEMETRY)) == expected(car, 11, first=2)
