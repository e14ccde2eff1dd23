"""Topics: made where they are missing, checked where they are there."""

import math
import time
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import Future

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._metadata import TopicMetadata
from confluent_kafka.cimpl import NewTopic

from schemas.errors import SettingsError, TransientError
from schemas.topics import TOPICS, Topic
from transport.kafka.config import client_config
from transport.kafka.faults import kafka_error, translate, translated
from transport.settings import KafkaSettings

_LOOK_S = 3.0
"""While brokers are silent, why is looked for this often."""


def ensure_topics(
    settings: KafkaSettings, topics: Sequence[Topic] = TOPICS, *, timeout_s: float = 30.0
) -> None:
    """Make those topics that are missing; one that is there stays as it is.

    Args:
        settings: Where Kafka is.
        topics: What must be there afterwards.
        timeout_s: Longest wait for the brokers; also for the new topics to show.

    Raises:
        TransientError: Kafka did not answer in time.
        SettingsError: It refuses, for want of rights or a setting that it does not take.
    """
    with translated():
        asker = _Asker(settings)
        known = asker.topics(timeout_s)
        missing = [topic for topic in topics if topic.name not in known]
        if missing:
            # The library dies of a topic that is named twice.
            once = {topic.name: topic for topic in missing}.values()
            wanted = [_new_topic(topic, settings.replication_factor) for topic in once]
            _settle(asker.client, wanted, timeout_s)


def partition_counts(
    settings: KafkaSettings, topics: Iterable[str], *, timeout_s: float = 30.0
) -> dict[str, int]:
    """Partitions of each topic; 0 for one that is not there.

    Raises:
        TransientError: Kafka did not answer in time.
    """
    with translated():
        known = _Asker(settings).topics(timeout_s)
    return {name: len(known[name].partitions) if name in known else 0 for name in topics}


def missing_topics(
    settings: KafkaSettings, topics: Iterable[str], *, timeout_s: float = 30.0
) -> list[str]:
    """Those of the topics that are not there.

    Raises:
        TransientError: Kafka did not answer in time.
        SettingsError: One may be there, but Kafka does not let this client see it.
    """
    with translated():
        asker = _Asker(settings)
        known = asker.topics(timeout_s)
        missing = [name for name in topics if name not in known]
        for name in missing:
            # What a client may not see is left out of a list, and told apart only when named.
            _raise_refusal(asker.topics(timeout_s, name)[name].error)
    return missing


class TopicDirectory:
    """Which topics there are, asked again only when one is not known. For one thread.

    Args:
        settings: Where Kafka is.
        timeout_s: Longest wait for the brokers.
        forget_after_s: After it a topic that was known is asked for again.
    """

    def __init__(
        self, settings: KafkaSettings, *, timeout_s: float = 10.0, forget_after_s: float = 30.0
    ) -> None:
        self._settings = settings
        self._timeout_s = timeout_s
        self._forget_after_s = forget_after_s
        self._admin: AdminClient | None = None
        self._counts: dict[str, int] = {}
        self._asked_s = -math.inf

    def partitions(self, topics: Collection[str]) -> dict[str, int]:
        """Partitions of each topic; 0 for one that is not there.

        Asks the brokers at most once; several unknown topics cost no more than one.

        Raises:
            TransientError: Kafka did not answer in time.
        """
        old = time.monotonic() - self._asked_s > self._forget_after_s
        if old or any(name not in self._counts for name in topics):
            self._ask()
        return {name: self._counts.get(name, 0) for name in topics}

    def _ask(self) -> None:
        with translated():
            if self._admin is None:
                self._admin = AdminClient(client_config(self._settings))
            known = self._admin.list_topics(timeout=self._timeout_s).topics
        self._counts = {name: len(topic.partitions) for name, topic in known.items()}
        self._asked_s = time.monotonic()


def require_topics(
    settings: KafkaSettings, topics: Iterable[str], *, timeout_s: float = 30.0
) -> None:
    """Refuse to go on where topics are missing: writing to one would only time out.

    Raises:
        SettingsError: They are missing.
        TransientError: Kafka did not answer in time.
    """
    counts = partition_counts(settings, topics, timeout_s=timeout_s)
    missing = [topic for topic, count in counts.items() if not count]
    if missing:
        raise SettingsError(
            f"there is no topic {', '.join(missing)} at {settings.bootstrap_servers}; "
            "`motorcade topics create` makes what is missing"
        )


def delete_topics(
    settings: KafkaSettings, topics: Sequence[str], *, timeout_s: float = 30.0
) -> None:
    """Delete topics with all that they hold; those that are not there are passed over.

    Raises:
        TransientError: Kafka did not answer in time.
        SettingsError: It refuses.
    """
    with translated():
        admin = AdminClient(client_config(settings))
        futures = admin.delete_topics(
            list(topics), operation_timeout=timeout_s, request_timeout=timeout_s
        )
        # The client must live until they are done: it fails them when it is let go of.
        for name, future in futures.items():
            _wait(name, future, timeout_s, KafkaError.UNKNOWN_TOPIC_OR_PART)


class _Asker:
    """A client for a few questions.

    One that is not let in hears nothing but silence as an answer; why, the library says beside it.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._told: list[KafkaError] = []
        self.client = AdminClient(client_config(settings) | {"error_cb": self._told.append})

    def topics(self, timeout_s: float, name: str | None = None) -> dict[str, TopicMetadata]:
        """All topics that the client may see, or one; raises as the library does.

        Raises:
            SettingsError: Kafka does not let this client in.
        """
        until_s = time.monotonic() + timeout_s
        while True:
            left_s = max(0.1, until_s - time.monotonic())
            try:
                found = self.client.list_topics(name, timeout=min(left_s, _LOOK_S))
            except KafkaException:
                self.client.poll(0)
                for error in self._told:
                    _raise_refusal(error)
                if left_s <= _LOOK_S:
                    raise
            else:
                return dict(found.topics)


def _raise_refusal(error: KafkaError | None) -> None:
    if error is not None and isinstance(refusal := translate(error), SettingsError):
        raise refusal


def _new_topic(topic: Topic, replication_factor: int) -> NewTopic:
    config = {"cleanup.policy": "compact"} if topic.compacted else {}
    return NewTopic(
        topic.name,
        num_partitions=topic.partitions,
        replication_factor=replication_factor,
        config=config,
    )


def _settle(admin: AdminClient, wanted: list[NewTopic], timeout_s: float) -> None:
    futures = admin.create_topics(wanted, operation_timeout=timeout_s, request_timeout=timeout_s)
    for name, future in futures.items():
        # Two processes that start at once both find it missing; one of them makes it.
        _wait(name, future, timeout_s, KafkaError.TOPIC_ALREADY_EXISTS)


def _wait(name: str, future: "Future[None]", timeout_s: float, harmless: int) -> None:
    try:
        future.result(timeout=timeout_s)
    except KafkaException as error:
        if kafka_error(error).code() != harmless:
            raise translate(kafka_error(error)) from error
    except TimeoutError as error:
        raise TransientError(f"Kafka did not settle topic {name} in {timeout_s:g} s") from error
