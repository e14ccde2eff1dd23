"""A Kafka with three doors: one for the test, one behind a proxy, and one that asks for names."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
)
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType
from edge_parts import until
from tcp_proxy import TcpProxy

from deploy import processes
from deploy.kafka import Kafka, Listener
from deploy.ports import LOOPBACK, free_ports
from transport.kafka.config import client_config
from transport.settings import KafkaSettings

USER, PASSWORD = "depot", "secret"


@dataclass(frozen=True)
class FarKafka:
    """A running broker, and the ways to it.

    Attributes:
        near: For the test itself; may do anything.
        far: Through `proxy`.
        named: Says that it is USER, who may do what the test allows.
        proxy: Between gateway and broker.
    """

    near: KafkaSettings
    far: KafkaSettings
    named: KafkaSettings
    proxy: TcpProxy


@contextmanager
def far_kafka(directory: Path, registry_url: str, *, seed: int) -> Iterator[FarKafka]:
    """Start one, and end it."""
    port, controller, far, proxied, named = free_ports(5)
    listeners = (
        Listener("FAR", far, proxied),
        Listener("NAMED", named, named, {USER: PASSWORD}),
    )
    broker = Kafka(directory, port, controller, listeners)
    broker.prepare()
    process = processes.spawn(broker.command(), log=directory / "output")
    try:
        until("Kafka answers", broker.answers, timeout_s=120.0)
        with TcpProxy(proxied, far, seed=seed) as proxy:
            yield FarKafka(
                near=_at(port, registry_url),
                far=_at(proxied, registry_url),
                named=KafkaSettings(
                    bootstrap_servers=f"{LOOPBACK}:{named}",
                    registry_url=registry_url,
                    sasl_mechanism="PLAIN",
                    username=USER,
                    password=PASSWORD,
                ),
                proxy=proxy,
            )
    finally:
        processes.kill(process)


def _at(port: int, registry_url: str) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=f"{LOOPBACK}:{port}", registry_url=registry_url)


_EVERYTHING = (
    (ResourceType.TOPIC, "*"),
    (ResourceType.GROUP, "*"),
    (ResourceType.TRANSACTIONAL_ID, "*"),
    (ResourceType.BROKER, "kafka-cluster"),
)


def grant(kafka: KafkaSettings) -> None:
    """Let USER do everything."""
    rights = [_right(kind, name) for kind, name in _EVERYTHING]
    admin = AdminClient(client_config(kafka))  # It must live until they are done.
    for future in admin.create_acls(rights).values():
        future.result(30.0)


def limit_topic(kafka: KafkaSettings, topic: str, bytes_max: int) -> None:
    """Let a topic take no greater batches."""
    entry = ConfigEntry(
        "max.message.bytes",
        str(bytes_max),
        incremental_operation=AlterConfigOpType.SET,
    )
    wanted = [ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])]
    admin = AdminClient(client_config(kafka))
    for future in admin.incremental_alter_configs(wanted).values():
        future.result(30.0)


def revoke_topics(kafka: KafkaSettings) -> None:
    """Take USER's rights over topics away."""
    admin = AdminClient(client_config(kafka))
    right = _right(ResourceType.TOPIC, "*")
    wanted = AclBindingFilter(
        right.restype,
        right.name,
        right.resource_pattern_type,
        right.principal,
        right.host,
        right.operation,
        right.permission_type,
    )
    for future in admin.delete_acls([wanted]).values():
        assert future.result(30.0), "there was such a right"


def _right(kind: ResourceType, name: str) -> AclBinding:
    return AclBinding(
        kind,
        name,
        ResourcePatternType.LITERAL,
        f"User:{USER}",
        "*",
        AclOperation.ALL,
        AclPermissionType.ALLOW,
    )
