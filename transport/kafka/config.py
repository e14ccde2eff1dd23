"""From settings to the configuration that the client library takes. Pure."""

from typing import Any

from transport.settings import KafkaSettings

Config = dict[str, Any]

_FORGETFUL: Config = {
    "metadata.max.age.ms": 3_000,
    "topic.metadata.refresh.interval.ms": 1_000,
}
"""What is known of the brokers is asked for again within seconds.

A broker that is missing from the metadata for a moment, as a lone one is while it restarts, is
given up by the library. With its usual minutes between refreshes one consumer in a dozen then
never fetched again, and `send_offsets` waited, past any time-out, for a coordinator that was
cached (confluentinc/librdkafka#5456 and #5511). It costs one small request a second.
"""


def client_config(settings: KafkaSettings) -> Config:
    """What all clients have in common: where, as whom, and how long to wait."""
    return {
        "bootstrap.servers": settings.bootstrap_servers,
        "client.id": settings.client_id,
        "security.protocol": _protocol(settings),
        # The default of 10 s keeps a client away from a broker that has long come back.
        "reconnect.backoff.max.ms": 2_000,
        "socket.keepalive.enable": True,
        # Stalls and lost connections reach the caller as errors of what it does; the library's
        # own lines on stderr say them once more, for every broker.
        "log_level": 2,
        **_FORGETFUL,
        **_sasl(settings),
        **_tls(settings),
    }


def _protocol(settings: KafkaSettings) -> str:
    sasl = settings.username is not None
    if settings.tls is None:
        return "SASL_PLAINTEXT" if sasl else "PLAINTEXT"
    return "SASL_SSL" if sasl else "SSL"


def _sasl(settings: KafkaSettings) -> Config:
    if settings.username is None:
        return {}
    return {
        "sasl.mechanism": settings.sasl_mechanism,
        "sasl.username": settings.username,
        "sasl.password": settings.password or "",
    }


def _tls(settings: KafkaSettings) -> Config:
    if settings.tls is None:
        return {}
    paths = {
        "ssl.ca.location": settings.tls.ca,
        "ssl.certificate.location": settings.tls.certificate,
        "ssl.key.location": settings.tls.key,
    }
    return {key: path for key, path in paths.items() if path is not None}


def consumer_config(settings: KafkaSettings, group_id: str) -> Config:
    """A reader of committed records whose offsets only its caller moves.

    `fetch.queue.backoff.ms` is one second by default: a reader faster than that leaves the
    fetcher asleep whenever the local queue was full, and gets a tenth of what it could.
    """
    return client_config(settings) | {
        "group.id": group_id,
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "fetch.queue.backoff.ms": 1,
        "fetch.wait.max.ms": 50,
        "check.crcs": False,
    }


def producer_config(settings: KafkaSettings) -> Config:
    """An idempotent writer.

    `murmur2_random` puts a key into the partition in which Java producers put it.

    Connections that close when idle belong to `_FORGETFUL`: a transaction that waits for its
    coordinator looks again when some connection changes.
    """
    return client_config(settings) | {
        "enable.idempotence": True,
        "partitioner": "murmur2_random",
        "compression.type": settings.compression,
        "linger.ms": 5,
        "batch.num.messages": 10_000,
        "batch.size": 1_000_000,
        "queue.buffering.max.messages": QUEUE_MESSAGES_MAX,
        "message.max.bytes": MESSAGE_BYTES_MAX,
        "connections.max.idle.ms": 4_000,
    }


QUEUE_MESSAGES_MAX = 500_000
"""Messages that a producer holds; beyond it `produce` waits for room."""

MESSAGE_BYTES_MAX = 1_000_000
"""Largest record, with key and headers; a broker takes 1,048,588 bytes unless told otherwise."""


def registry_config(settings: KafkaSettings) -> Config:
    """Configuration of the schema registry's client."""
    tls = _tls(settings) if settings.registry_url.startswith("https") else {}
    config: Config = {"url": settings.registry_url, "timeout": 10.0, "max.retries": 0, **tls}
    if settings.registry_username is not None:
        credentials = f"{settings.registry_username}:{settings.registry_password or ''}"
        config["basic.auth.user.info"] = credentials
    return config
