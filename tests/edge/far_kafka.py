"""A Kafka with three doors: one for the test, one behind a proxy, and one that asks for names."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge_parts import until
from tcp_proxy import TcpProxy

from deploy import processes
from deploy.kafka import Kafka, Listener
from deploy.ports import LOOPBACK, free_ports
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
