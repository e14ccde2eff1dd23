"""Apache ActiveMQ Artemis as the stack's MQTT broker where Mosquitto is not installed."""

from dataclasses import dataclass
from pathlib import Path

from deploy import artifacts, probes
from deploy.java import JavaProgram
from deploy.ports import LOOPBACK

HEAP_MB = 256
ADDRESS_BYTES_MAX = 16 << 20
"""What a topic holds in memory; more is paged to disk."""

PAGED_BYTES_MAX = 256 << 20
"""What a topic holds on disk. At the limit the newest is dropped: a vehicle keeps what the gateway
has not acknowledged, and sends it again."""

PACKET_BYTES_MAX = 1 << 20
DISK_USED_PERCENT_MAX = 99

_MAIN = "org.apache.activemq.artemis.core.server.embedded.Main"
_ACCEPTOR = "org.apache.activemq.artemis.core.remoting.impl.netty.NettyAcceptorFactory"


def broker_properties(data: Path, port: int) -> str:
    """The settings of a broker that keeps its journal in `data`.

    NIO for journal and network: the native libraries differ from machine to machine, and the
    lock holds none. Delivery is tried without end: the default gives a message up after ten
    lost connections, which would break the promise of QoS 1.
    """
    return f"""\
name=motorcade
securityEnabled=false
persistenceEnabled=true
journalType=NIO
journalDirectory={data}/journal
bindingsDirectory={data}/bindings
pagingDirectory={data}/paging
largeMessagesDirectory={data}/large
maxDiskUsage={DISK_USED_PERCENT_MAX}
acceptorConfigurations.mqtt.factoryClassName={_ACCEPTOR}
acceptorConfigurations.mqtt.params.host={LOOPBACK}
acceptorConfigurations.mqtt.params.port={port}
acceptorConfigurations.mqtt.params.useEpoll=false
acceptorConfigurations.mqtt.params.useKQueue=false
acceptorConfigurations.mqtt.extraParams.protocols=MQTT
acceptorConfigurations.mqtt.extraParams.maximumPacketSize={PACKET_BYTES_MAX}
addressSettings."#".maxDeliveryAttempts=-1
addressSettings."#".redeliveryDelay=0
addressSettings."#".maxSizeBytes={ADDRESS_BYTES_MAX}
addressSettings."#".addressFullMessagePolicy=PAGE
addressSettings."#".pageLimitBytes={PAGED_BYTES_MAX}
addressSettings."#".pageFullMessagePolicy=DROP
"""


@dataclass(frozen=True)
class Artemis:
    """MQTT part of the stack, by Artemis.

    Attributes:
        directory: Its own directory.
        port: Port for clients, MQTT 5 and 3.1.1.
    """

    directory: Path
    port: int
    name: str = "mqtt"

    @property
    def program(self) -> str:
        """Name and version, from the lock."""
        jars = artifacts.jars_of("artemis")
        version = next(jar.version for jar in jars if jar.artifact == "artemis-server")
        return f"Apache ActiveMQ Artemis {version}"

    @property
    def ports(self) -> tuple[int, ...]:
        """For clients."""
        return (self.port,)

    @property
    def log(self) -> Path:
        """Artemis's own log."""
        return self.directory / "artemis.log"

    def prepare(self) -> None:
        """Write the settings."""
        self._settings.mkdir(parents=True, exist_ok=True)
        self._java.prepare()
        text = broker_properties(self.directory / "data", self.port)
        (self._settings / "broker.properties").write_text(text, "utf-8")

    def command(self) -> list[str]:
        """Run the broker in the foreground."""
        return self._java.command(_MAIN, [str(self.directory), f"{self._settings}/"])

    def answers(self) -> bool:
        """Whether it accepts an MQTT 5 connection."""
        return probes.mqtt_answers(self.port)

    @property
    def _settings(self) -> Path:
        return self.directory / "etc"

    @property
    def _java(self) -> JavaProgram:
        return JavaProgram("artemis", self.directory, self.log, HEAP_MB)
