"""Where brokers are, and where to tell what is measured: settings without a client library.

They stand apart so that reading a settings file, or a command's `--help`, needs no extra.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from schemas.errors import SettingsError
from transport.limits import Between, OneOf, Words, check

SASL_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
COMPRESSIONS = ("none", "lz4", "zstd", "snappy", "gzip")

_PORT = Between(1, 65_535)
_SPAN_S = Between(0, 86_400, unit="s", above=True)


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """Certificates for a broker behind TLS; paths of PEM files.

    Attributes:
        ca: Certificates to trust; None: those of the system.
        certificate: This client's certificate, where the broker asks for one.
        key: Its key.
    """

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class MqttSettings:
    """Where the broker is and how to talk to it.

    Attributes:
        host: Name or address of the broker.
        port: Its TCP port.
        fleet: Second level of every topic; keeps fleets apart on one broker.
        version: 5, or 4 for MQTT 3.1.1.
        username: Who this client is to the broker; None: nobody in particular.
        password: What proves it.
        tls: Certificates; None: no TLS.
        keepalive_s: A connection silent for one and a half of it is dead to the broker.
        session_expiry_s: How long the broker keeps session and queue of an absent client.
        connect_timeout_s: Longest wait for a connection to open.
        backoff_min_s: First pause before connecting again; doubles with each failure.
        backoff_max_s: Longest such pause.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, _PORT] = 1883
    fleet: Annotated[str, Words(1, 128, without="/+#")] = "demo"
    version: Annotated[int, OneOf((4, 5))] = 5
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: TlsSettings | None = None
    keepalive_s: Annotated[int, Between(1, 65_535, unit="s")] = 30
    session_expiry_s: Annotated[int, Between(0, 2**32 - 1, unit="s")] = 3 * 86_400
    connect_timeout_s: Annotated[float, _SPAN_S] = 5.0
    backoff_min_s: Annotated[float, _SPAN_S] = 1.0
    backoff_max_s: Annotated[float, _SPAN_S] = 120.0

    def __post_init__(self) -> None:
        check(self, of="mqtt")
        if self.backoff_min_s > self.backoff_max_s:
            raise SettingsError("mqtt backoff_min_s is above backoff_max_s")


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """Where Kafka and the schema registry are and how to talk to them.

    Attributes:
        bootstrap_servers: Brokers to ask first, `host:port` separated by commas.
        registry_url: Schema registry with the Confluent REST interface.
        client_id: What brokers call this client in their logs and quotas.
        tls: Certificates; None: no TLS, neither to the brokers nor to the registry.
        sasl_mechanism: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; used where a username is given.
        username: Who this client is to the brokers; None: nobody in particular.
        password: What proves it.
        registry_username: Who this client is to the registry; None: nobody in particular.
        registry_password: What proves it.
        compression: Of what is produced: none, lz4, zstd, snappy or gzip.
        replication_factor: Of topics that are made; -1: the broker's default.
    """

    bootstrap_servers: Annotated[str, Words(1, 65_536)] = "127.0.0.1:9092"
    registry_url: str = "http://127.0.0.1:8081"
    client_id: str = "motorcade"
    tls: TlsSettings | None = None
    sasl_mechanism: Annotated[str, OneOf(SASL_MECHANISMS)] = "SCRAM-SHA-512"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    registry_username: str | None = None
    registry_password: str | None = field(default=None, repr=False)
    compression: Annotated[str, OneOf(COMPRESSIONS)] = "none"
    replication_factor: Annotated[int, Between(-1, 32_767)] = -1

    def __post_init__(self) -> None:
        check(self, of="kafka")


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """Where Prometheus finds this process's metrics.

    Attributes:
        host: Address to listen on; 0.0.0.0 for every one of this machine.
        port: `/metrics` is served there; 0: nothing is.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Between(0, 65_535)] = 0

    def __post_init__(self) -> None:
        check(self, of="metrics")


@dataclass(frozen=True, slots=True)
class TracingSettings:
    """Where to send traces.

    Attributes:
        exporter: off; otlp sends to a collector, console writes to standard error, file appends a
            line of JSON for each span to `file`.
        endpoint: Of the collector, for OTLP over HTTP.
        file: For the exporter of that name.
        service_name: What this process is called in a trace; empty: after its command.
        sample_share: Share of the batches, or requests, that a trace is begun for; what comes with
            a trace is always followed.
    """

    exporter: Literal["off", "otlp", "console", "file"] = "off"
    endpoint: str = "http://127.0.0.1:4318/v1/traces"
    file: Path = Path(".motorcade/traces.jsonl")
    service_name: str = ""
    sample_share: Annotated[float, Between(0, 1)] = 0.001

    def __post_init__(self) -> None:
        check(self, of="tracing")
