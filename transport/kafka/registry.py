"""Schema ids of Confluent's wire format, from a registry with the Confluent REST interface."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from schemas.errors import SettingsError, TransientError
from schemas.records import fingerprint_of, schema_json
from schemas.topics import TOPICS, Topic, subject
from schemas.versions import versions_by_fingerprint
from transport.kafka.config import registry_config
from transport.settings import KafkaSettings

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import SchemaRegistryClient

_REFUSED = {401, 403, 409, 422}


@dataclass(frozen=True, slots=True)
class SchemaIds:
    """Which schema id stands before which topic's values.

    Attributes:
        by_topic: Topic name to the id to write with.
        older_by_topic: Topic name to the ids of other versions of its subject, ascending; readers
            may meet them in old records.
        releases: Those of these ids that a release of Motorcade wrote telemetry with, to the
            release; for `decode_telemetry`.
    """

    by_topic: dict[str, int]
    older_by_topic: dict[str, tuple[int, ...]] = field(default_factory=dict)
    releases: dict[int, str] = field(default_factory=dict)

    def id_of(self, topic: Topic) -> int:
        """The id to write with. Raises KeyError for a topic that was not registered."""
        return self.by_topic[topic.name]

    def is_known(self, topic: Topic, schema_id: int) -> bool:
        """Whether the id is of any version of the topic's subject."""
        return schema_id == self.by_topic.get(topic.name) or schema_id in self.older_by_topic.get(
            topic.name, ()
        )


def register_schemas(settings: KafkaSettings, topics: Sequence[Topic] = TOPICS) -> SchemaIds:
    """Register the schemas of topics under `{topic}-value`; what is registered already stays.

    Args:
        settings: Where the registry is.
        topics: Whose values are written or read.

    Raises:
        TransientError: The registry cannot be reached, or has a fault of its own.
        SettingsError: It refuses the schema as incompatible, or this client; or the registry's
            client is not installed.
    """
    with _registry_errors(settings.registry_url), closing(_client(settings)) as client:
        by_topic = {topic.name: _register(client, topic) for topic in topics}
        older = {topic.name: _older(client, topic, by_topic[topic.name]) for topic in topics}
    return SchemaIds(
        by_topic, {name: tuple(sorted(found)) for name, found in older.items()}, _releases(older)
    )


def _client(settings: KafkaSettings) -> "SchemaRegistryClient":
    from confluent_kafka.schema_registry import SchemaRegistryClient

    return SchemaRegistryClient(registry_config(settings))


def _register(client: "SchemaRegistryClient", topic: Topic) -> int:
    from confluent_kafka.schema_registry import Schema

    return client.register_schema(subject(topic), Schema(schema_json(topic.record), "AVRO"))


def _older(client: "SchemaRegistryClient", topic: Topic, current: int) -> dict[int, str]:
    """Id and schema of the other versions of a topic's values."""
    name = subject(topic)
    versions = client.get_versions(name)
    if len(versions) == 1:
        return {}
    found = [client.get_version(name, version) for version in versions]
    texts = {each.schema_id: each.schema.schema_str for each in found}
    return {
        schema_id: text
        for schema_id, text in texts.items()
        if schema_id is not None and text is not None and schema_id != current
    }


def _releases(older: dict[str, dict[int, str]]) -> dict[int, str]:
    known = versions_by_fingerprint()
    texts = {schema_id: text for found in older.values() for schema_id, text in found.items()}
    releases = {schema_id: known.get(fingerprint_of(text)) for schema_id, text in texts.items()}
    return {schema_id: name for schema_id, name in releases.items() if name is not None}


def _http_library() -> Any:
    """What the registry's client speaks HTTP with: httpx2, and httpx in its older versions."""
    try:
        return import_module("httpx2")
    except ImportError:
        return import_module("httpx")


@contextmanager
def _registry_errors(url: str) -> Iterator[None]:
    """Raises what the registry and the way to it throw as our errors."""
    try:
        from confluent_kafka.schema_registry.error import SchemaRegistryError

        httpx = _http_library()
    except ImportError as error:
        raise SettingsError(
            "the schema registry's client is missing: install confluent-kafka[schemaregistry]"
        ) from error
    try:
        yield
    except SchemaRegistryError as error:
        text = f"schema registry {url}: {error}"
        refused = error.http_status_code in _REFUSED
        raise (SettingsError(text) if refused else TransientError(text)) from error
    except httpx.TransportError as error:
        raise TransientError(f"schema registry {url}: {error}") from error
    except (httpx.InvalidURL, ValueError) as error:
        raise SettingsError(f"registry_url {url!r}: {error}") from error
