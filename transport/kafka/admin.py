"""Topics: made where they are missing, checked where they are there."""

import math
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from schemas.errors import SettingsError, TransientError
from schemas.topics import TOPICS, Topic
from transport.kafka.config import client_config
from transport.kafka.faults import kafka_error, translate, translated
from transport.settings import KafkaSettings


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
    with _asking(settings) as admin:
        missing = _missing(admin, topics, timeout_s)
        if missing:
            # The library dies of a topic that is named twice.
            once = {topic.name: topic for topic in missing}.values()
            wanted = [_new_topic(topic, settings.replication_factor) for topic in once]
            _settle(admin, wanted, timeout_s)


def partition_counts(
    settings: KafkaSettings, topics: Iterable[str], *, timeout_s: float = 30.0
) -> dict[str, int]:
    """Partitions of each topic; 0 for one that is not there.

    Raises:
        TransientError: Kafka did not answer in time.
    """
    with _asking(settings) as admin:
        known = admin.list_topics(timeout=timeout_s).topics
    return {name: len(known[name].partitions) if name in known else 0 for name in topics}


def missing_topics(
    settings: KafkaSettings, topics: Iterable[str], *, timeout_s: float = 30.0
) -> list[str]:
    """Those of the topics that are not there.

    Raises:
        TransientError: Kafka did not answer in time.
        SettingsError: One may be there, but Kafka does not let this client see it.
    """
    with _asking(settings) as admin:
        known = admin.list_topics(timeout=timeout_s).topics
        missing = [name for name in topics if name not in known]
        for name in missing:
            # What a client may not see is left out of a list, and told apart only when named.
            _raise_refusal(admin.list_topics(name, timeout=timeout_s).topics[name].error)
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


@contextmanager
def _asking(settings: KafkaSettings) -> Iterator[AdminClient]:
    """A client for a few questions; its errors leave as ours.

    One that is not let in only times out; why, it says beside it.
    """
    told: list[KafkaError] = []
    with translated():
        admin = AdminClient(client_config(settings) | {"error_cb": told.append})
        try:
            yield admin
        except KafkaException:
            admin.poll(0)
            for error in told:
                _raise_refusal(error)
            raise


def _raise_refusal(error: KafkaError | None) -> None:
    if error is not None and isinstance(refusal := translate(error), SettingsError):
        raise refusal


def _missing(admin: AdminClient, topics: Sequence[Topic], timeout_s: float) -> list[Topic]:
    known = admin.list_topics(timeout=timeout_s).topics
    return [topic for topic in topics if topic.name not in known]


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
