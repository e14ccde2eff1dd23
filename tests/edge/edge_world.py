"""Brokers with a fleet, a gateway id and a model name of a test's own."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_parts import GatewayProcess, bundle, in_kafka, until
from mosquitto_broker import MosquittoBroker

from deploy.stack import Stack
from edge.models import ModelStore
from schemas.records import Record
from schemas.topics import TOPICS, Topic
from scoring.bundle import Bundle
from transport.kafka import ensure_topics
from transport.settings import KafkaSettings, MqttSettings


@dataclass
class World:
    """Brokers, with a fleet, a gateway id and a model name of the test's own."""

    stack: Stack
    name: str
    directory: Path
    broker: MosquittoBroker | None = None
    session_expiry_s: int = 3 * 86_400

    @property
    def mqtt(self) -> MqttSettings:
        ends = self.stack.endpoints
        return MqttSettings(
            host=ends.mqtt_host if self.broker is None else self.broker.host,
            port=ends.mqtt_port if self.broker is None else self.broker.port,
            fleet=self.name,
            backoff_min_s=0.1,
            backoff_max_s=1.0,
            session_expiry_s=self.session_expiry_s,
        )

    @property
    def kafka(self) -> KafkaSettings:
        ends = self.stack.endpoints
        return KafkaSettings(bootstrap_servers=ends.kafka_bootstrap, registry_url=ends.registry_url)

    def gateway(
        self,
        place: str = "gateway",
        *,
        hooks: Mapping[str, object] | None = None,
        **settings: object,
    ) -> GatewayProcess:
        wanted = {"gateway_id": self.name, "model_name": self.name} | settings
        directory = self.directory / place
        return GatewayProcess(directory, self.mqtt, self.kafka, hooks=hooks, **wanted)

    def bundle(self, version: str = "1") -> Bundle:
        return bundle(version, name=self.name)

    def install(self, place: str = "gateway") -> None:
        """Put the model on the gateway's disk, as if an earlier life had fetched it."""
        ModelStore(self.directory / place / "models").install(self.bundle())

    def vehicle(self, name: str) -> str:
        return f"{self.name}-{name}"

    def mine(self, topic: Topic) -> list[Record]:
        """This test's records of a topic."""
        return in_kafka(self.kafka, topic, self.name)

    def wait_for(self, topic: Topic, count: int) -> list[Record]:
        until(f"{count} records in {topic.name}", lambda: len(self.mine(topic)) >= count)
        return self.mine(topic)


def made(stack: Stack, directory: Path) -> World:
    world = World(stack, f"w{uuid.uuid4().hex[:8]}", directory)
    ensure_topics(world.kafka, TOPICS)
    return world
