"""A real gateway process whose way to a real Kafka breaks in every manner.

MOTORCADE_SEED repeats which segments a lossy way loses.
"""

import os
import random
import signal
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from edge_parts import (
    FAULTY,
    Fleet,
    GatewayProcess,
    batch,
    bundle,
    identities,
    in_kafka,
    reading,
    running,
    until,
)
from far_kafka import FarKafka, far_kafka, grant, limit_topic, revoke_topics
from gateway_child import FENCED_STATUS
from mosquitto_broker import MosquittoBroker
from tcp_proxy import TcpProxy

from deploy.stack import Stack
from edge.models import ModelStore
from schemas.errors import Reason
from schemas.records import Record, decode_single_object, encode_single_object
from schemas.signals import SIGNAL_NAMES
from schemas.topics import ALERTS, DEAD_LETTERS, TELEMETRY, TOPICS, Topic, mqtt_health
from transport.kafka import KafkaSettings, delete_topics, ensure_topics, register_schemas
from transport.mqtt import MqttClient, SessionSettings
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
        wanted: dict[str, Any] = {
            "gateway_id": self.name,
            "model_name": self.name,
            "status_interval_s": 1.0,
        }
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


def test_rights_that_are_taken_away_are_asked_for_until_they_are_back(
    road: Road, fleet: Fleet
) -> None:
    car = road.vehicle("a")
    grant(road.kafka.near)
    with running(road.gateway(kafka=road.kafka.named)) as gateway:
        fleet.send(car, 1)
        road.wait_for(TELEMETRY, 1)
        revoke_topics(road.kafka.near)
        for seq in range(2, 12):
            fleet.send(car, seq)
        fleet.settle()
        until("it says why", says(gateway, "refused", "authorization"))
        assert gateway.status is None, "it goes on storing"
        grant(road.kafka.near)
        road.wait_for(TELEMETRY, 11)
        until("it is connected", says(gateway, "connected"))
        assert gateway.stop() == 0
    assert identities(road.mine(TELEMETRY)) == expected(car, 11)


def test_a_wrong_password_is_not_called_an_outage(road: Road) -> None:
    wrong = replace(road.kafka.named, password="wrong")
    with running(road.gateway(kafka=wrong)) as gateway:
        until("it says why", says(gateway, "refused", "uthentication"))
        assert gateway.stop() == 0


def retained(mqtt: MqttSettings, topic: str) -> bytes:
    """What a broker tells whoever begins to listen."""
    heard: list[bytes] = []
    session = SessionSettings(client_id=f"late-{mqtt.fleet}", manual_ack=False, clean_start=True)
    client = MqttClient(mqtt, session, on_message=lambda message: heard.append(message.payload))
    client.subscribe([topic])
    client.start()
    try:
        until("something is retained", lambda: heard)
    finally:
        client.stop()
    return heard[0]


def test_a_gateway_that_was_away_while_another_took_over_stops(
    road: Road, fleet: Fleet, mosquitto: MosquittoBroker
) -> None:
    """Each in a car of its own: at one broker they would fight for the MQTT session as well."""
    car = road.vehicle("a")
    older = road.gateway("older")
    elsewhere = replace(road, mqtt=replace(road.mqtt, port=mosquitto.port))
    newer = elsewhere.gateway("newer", kafka=road.kafka.near)
    with running(older):
        fleet.send(car, 1)
        road.wait_for(TELEMETRY, 1)
        road.proxy.refuse()
        until("it is away", says(older, "away"))
        with running(newer), Fleet(elsewhere.mqtt) as others:
            until("the newer one is connected", says(newer, "connected"))
            road.proxy.heal()
            assert older.wait_gone() == FENCED_STATUS
            assert "fenced" in older.uplink and "fenced" in older.log()
            health = retained(road.mqtt, mqtt_health(road.name, road.name))
            told = decode_single_object("GatewayStatus", health)
            assert told["uplink"].startswith("fenced since")
            others.send(car, 2)
            others.settle()
            road.wait_for(TELEMETRY, 2)
            assert newer.stop() == 0
    assert identities(road.mine(TELEMETRY)) == expected(car, 2)


def test_another_gateway_id_goes_on_where_the_one_before_was(road: Road, fleet: Fleet) -> None:
    """The one before leaves a transaction open, of which the brokers know only its own id."""
    car = road.vehicle("a")
    gateway = road.gateway(gateway_id=f"{road.name}-old")
    try:
        gateway.start(crash=("before commit", 4))
        for seq in range(1, 20):
            fleet.send(car, seq)
        assert gateway.wait_gone() == -signal.SIGKILL
        renamed = road.gateway(gateway_id=f"{road.name}-new")
        renamed.start()
        fleet.send(car, 20)
        fleet.settle()
        road.wait_for(TELEMETRY, 20)
        assert renamed.stop() == 0
        gateway.start()
        fleet.send(car, 21)
        fleet.settle()
        road.wait_for(TELEMETRY, 21)
        assert gateway.stop() == 0
    finally:
        gateway.kill()
        renamed.kill()
    assert identities(road.mine(TELEMETRY)) == expected(car, 21)


def test_whoever_took_over_a_former_id_is_left_alone(road: Road, fleet: Fleet) -> None:
    car, other = road.vehicle("a"), road.vehicle("b")
    first = road.gateway("first")
    with running(first):
        fleet.send(car, 1)
        road.wait_for(TELEMETRY, 1)
        assert first.stop() == 0
    heir = road.gateway("heir", gateway_id=road.name)
    with running(heir):
        until("the heir is connected", says(heir, "connected"))
        renamed = road.gateway("first", gateway_id=f"{road.name}-new")
        with running(renamed):
            until("it is connected", says(renamed, "connected"))
            fleet.send(other, 1)
            until("both forward", lambda: len(in_kafka_of(road, other)) >= 2)
            assert heir.status is None
            assert renamed.stop() == 0
        assert heir.stop() == 0
    assert identities(road.mine(TELEMETRY)) == [*expected(car, 1), *2 * expected(other, 1)]


def in_kafka_of(road: Road, car: str) -> list[Record]:
    return [record for record in road.mine(TELEMETRY) if record["vehicle_id"] == car]


def test_an_alert_overtakes_the_backlog_on_a_narrow_way(road: Road, fleet: Fleet) -> None:
    car, waiting = road.vehicle("a"), 3_000
    with running(road.gateway(backlog_after_s=1.0, backlog_rate=0.0)) as gateway:
        until("it is connected", says(gateway, "connected"))
        road.proxy.refuse()
        until("it is away", says(gateway, "away"))
        for seq in range(1, waiting + 1):
            fleet.send(car, seq)
        fleet.settle()
        road.proxy.narrow(20_000.0)
        until("the backlog is on its way", lambda: road.mine(TELEMETRY))
        for seq in range(waiting + 1, waiting + 4):
            fleet.send(car, seq, signals=FAULTY)
        road.wait_for(ALERTS, 1)
        then = identities(road.mine(TELEMETRY))
        assert len(then) < waiting, "the alert came first"
        road.proxy.heal()
        road.wait_for(TELEMETRY, waiting + 3)
        fleet.settle()
        assert gateway.stop() == 0
    assert identities(road.mine(TELEMETRY)) == expected(car, waiting + 3)


def large(car: str, seq: int, readings: int) -> bytes:
    """A batch with a reading that has all signals, as often as asked for."""
    record = decode_single_object("TelemetryBatch", batch(car, seq))
    full = reading(seq, dict.fromkeys(SIGNAL_NAMES, 10.0))
    return encode_single_object("TelemetryBatch", record | {"readings": readings * [full]})


def test_what_kafka_finds_too_large_is_a_dead_letter_and_blocks_nothing(
    road: Road, fleet: Fleet
) -> None:
    """By the topics' own limits, which only brokers know; one letter does not fit either."""
    car = road.vehicle("a")
    readings = {5: 3_500, 9: 800, 12: 800}
    limits = {TELEMETRY: 100_000, DEAD_LETTERS: 200_000}
    for topic, bytes_max in limits.items():
        limit_topic(road.kafka.near, topic.name, bytes_max)
    try:
        with running(road.gateway(max_payload_bytes=4 << 20)) as gateway:
            for seq in range(1, 15):
                fleet.publish(car, large(car, seq, readings.get(seq, 1)))
            road.wait_for(DEAD_LETTERS, 3)
            road.wait_for(TELEMETRY, 11)
            fleet.send(car, 15)
            road.wait_for(TELEMETRY, 12)
            assert gateway.stop() == 0
    finally:
        for topic in limits:
            limit_topic(road.kafka.near, topic.name, 1_000_000)
    small = [identity for identity in expected(car, 15) if identity[2] not in readings]
    assert identities(road.mine(TELEMETRY)) == small
    letters = {int(letter["headers"][1]["value"]): letter for letter in road.mine(DEAD_LETTERS)}
    assert sorted(letters) == [5, 9, 12]
    for seq, letter in letters.items():
        assert (letter["reason"], letter["topic"]) == (Reason.OVERSIZED, TELEMETRY.name)
        payload = large(car, seq, readings[seq])
        assert letter["payload_bytes"] == len(payload)
        assert letter["payload"] == (None if seq == 5 else payload)
