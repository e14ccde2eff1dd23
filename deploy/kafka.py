"""Apache Kafka as one KRaft node on the loopback."""

import base64
import shutil
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy import artifacts, probes
from deploy.java import JavaProgram
from deploy.ports import LOOPBACK
from schemas.errors import SettingsError, TransientError

HEAP_MB = 512
MESSAGE_BYTES_MAX = 4 << 20
PARTITION_BYTES_MAX = 4 << 30
"""What a partition keeps; the oldest goes first. 200 vehicles take weeks to fill it."""

_FORMAT_TIMEOUT_S = 120.0
_UNRECORDED = "4.4.0"
"""Which Kafka wrote a store that is older than the record of it."""

_NODE = 1


@dataclass(frozen=True, slots=True)
class Listener:
    """A further way to the broker on the loopback, beside that of the stack's own clients.

    Attributes:
        name: Upper case; unique.
        port: Where the broker listens.
        advertised_port: Where it tells clients to come: that of a proxy before it.
        users: Name to password; clients have to say who they are (SASL PLAIN). Empty: nobody asks.
    """

    name: str
    port: int
    advertised_port: int
    users: Mapping[str, str] = field(default_factory=dict)

    @property
    def protocol(self) -> str:
        """As Kafka calls it."""
        return "SASL_PLAINTEXT" if self.users else "PLAINTEXT"

    def properties(self) -> str:
        """Its lines of the settings; without users there are none."""
        if not self.users:
            return ""
        known = " ".join(f'user_{name}="{password}"' for name, password in self.users.items())
        prefix = f"listener.name.{self.name.lower()}"
        return (
            f"{prefix}.sasl.enabled.mechanisms=PLAIN\n"
            f"{prefix}.plain.sasl.jaas.config="
            f"org.apache.kafka.common.security.plain.PlainLoginModule required {known};\n"
        )


_AUTHORIZER = """\
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
"""
"""Who says who he is needs rights; nobody in particular, as on the loopback, has them all."""


def server_properties(
    data: Path, port: int, controller_port: int, listeners: Sequence[Listener] = ()
) -> str:
    """The settings of a single node that keeps its data in `data`.

    One node, so every replication factor is 1. Few partitions of the internal topics: the
    defaults of 50 are for clusters, and cost seconds at the first transaction. Groups settle at
    once, and a member that died is missed after the session time-out it asked for (1 s or more).
    A broker that was killed may register again once the controller, which is the same process,
    has missed it for the broker session: 2 s, not 9 s, as there is no network between the two.
    """
    quorum = f"{_NODE}@{LOOPBACK}:{controller_port}"
    more = "".join(f",{each.name}://{LOOPBACK}:{each.port}" for each in listeners)
    told = "".join(f",{each.name}://{LOOPBACK}:{each.advertised_port}" for each in listeners)
    protocols = "".join(f",{each.name}:{each.protocol}" for each in listeners)
    rights = _AUTHORIZER if any(each.users for each in listeners) else ""
    return f"""\
process.roles=broker,controller
node.id={_NODE}
controller.quorum.voters={quorum}
listeners=CLIENT://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{controller_port}{more}
advertised.listeners=CLIENT://{LOOPBACK}:{port}{told}
listener.security.protocol.map=CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}
controller.listener.names=CONTROLLER
inter.broker.listener.name=CLIENT
log.dirs={data}

offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
default.replication.factor=1
min.insync.replicas=1

broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
auto.create.topics.enable=false

message.max.bytes={MESSAGE_BYTES_MAX}
replica.fetch.max.bytes={MESSAGE_BYTES_MAX}
log.retention.bytes={PARTITION_BYTES_MAX}
log.cleaner.dedupe.buffer.size={16 << 20}
num.network.threads=2
num.io.threads=4
{rights}{"".join(each.properties() for each in listeners)}"""


@dataclass(frozen=True)
class Kafka:
    """Kafka part of the stack.

    Attributes:
        directory: Its own directory.
        port: Port for clients.
        controller_port: Port of the metadata quorum.
        listeners: Further ways to it.
    """

    directory: Path
    port: int
    controller_port: int
    listeners: tuple[Listener, ...] = ()
    name: str = "kafka"

    @property
    def program(self) -> str:
        """Name and version, from the lock."""
        return f"Apache Kafka {locked_version()}"

    @property
    def ports(self) -> tuple[int, ...]:
        """For clients, for the quorum."""
        return (self.port, self.controller_port)

    @property
    def log(self) -> Path:
        """Kafka's own log."""
        return self.directory / "kafka.log"

    def prepare(self) -> None:
        """Write the settings; format the store the first time (about a second).

        Raises:
            SettingsError: A newer Kafka wrote the store.
            TransientError: The store could not be made, or a jar not be had.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        self._java.prepare()
        if self._data.is_dir():
            self._require_readable()
        # Before there is a store, so that none is ever without it.
        self._record_version()
        if not self._data.is_dir():
            self._format()
        self._write_settings(self._data)

    def command(self) -> list[str]:
        """Run the broker in the foreground."""
        return self._java.command("kafka.Kafka", [str(self._settings)])

    def answers(self) -> bool:
        """Whether every partition has a leader."""
        return probes.kafka_answers(self.port)

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    @property
    def _settings(self) -> Path:
        return self.directory / "server.properties"

    @property
    def _java(self) -> JavaProgram:
        return JavaProgram("kafka", self.directory, self.log, HEAP_MB)

    @property
    def _version_file(self) -> Path:
        return self.directory / "version"

    def _require_readable(self) -> None:
        try:
            written_by = self._version_file.read_text("ascii").strip()
        except FileNotFoundError:
            written_by = _UNRECORDED
        if _order(written_by) > _order(locked_version()):
            raise SettingsError(
                f"{self._data} was written by Apache Kafka {written_by}, and {locked_version()} "
                f"cannot read what a newer one wrote; remove {self.directory} to begin anew"
            )

    def _record_version(self) -> None:
        scratch = self._version_file.with_suffix(".new")
        scratch.write_text(f"{locked_version()}\n", "ascii")
        scratch.replace(self._version_file)

    def _write_settings(self, data: Path) -> None:
        text = server_properties(data, self.port, self.controller_port, self.listeners)
        self._settings.write_text(text, "utf-8")

    def _format(self) -> None:
        # Into a scratch directory that is renamed when whole: a format that was cut short must
        # not be taken for a store.
        scratch = self.directory / "data.new"
        shutil.rmtree(scratch, ignore_errors=True)
        self._write_settings(scratch)
        arguments = ["format", "-t", new_cluster_id(), "-c", str(self._settings)]
        done = subprocess.run(
            self._java.command("kafka.tools.StorageTool", arguments),
            capture_output=True,
            text=True,
            timeout=_FORMAT_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            raise TransientError(f"Kafka could not format {scratch}: {done.stdout}{done.stderr}")
        scratch.rename(self._data)


def locked_version() -> str:
    """The version of Kafka in the lock, such as `4.2.2`."""
    return next(j.version for j in artifacts.jars_of("kafka") if j.group.endswith("kafka"))


def _order(version: str) -> tuple[int, ...]:
    """What compares as the version does."""
    return tuple(int(number) for number in version.split("."))


def new_cluster_id() -> str:
    """A random cluster id: 16 bytes in URL-safe Base64, never with a dash in front.

    Kafka's command line would take that for an option.
    """
    return "M" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii")[1:22]
