"""What the tests of the stack write to Kafka and read from it."""

import time
from collections.abc import Callable, Collection

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from deploy.stack import Endpoints
from transport.kafka import KafkaSettings, read_range, spans

TIMEOUT_S = 30.0


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {TIMEOUT_S} s for {what}"
        time.sleep(0.02)


def create_topics(endpoints: Endpoints, *names: str) -> None:
    """Of one partition each."""
    admin = AdminClient({"bootstrap.servers": endpoints.kafka_bootstrap})
    for made in admin.create_topics([NewTopic(name, 1, 1) for name in names]).values():
        made.result(TIMEOUT_S)


def write(
    endpoints: Endpoints, topics: Collection[str], values: list[bytes], transactional_id: str
) -> None:
    """Write the same to each topic, in one transaction."""
    producer = Producer(
        {"bootstrap.servers": endpoints.kafka_bootstrap, "transactional.id": transactional_id}
    )
    producer.init_transactions(TIMEOUT_S)
    producer.begin_transaction()
    for topic in topics:
        for value in values:
            producer.produce(topic, value)
    producer.commit_transaction(TIMEOUT_S)


def read(endpoints: Endpoints, topic: str, count: int) -> list[bytes]:
    """Read what is committed from the beginning, as soon as there is enough of it.

    With the product's own configuration: the library's defaults give a lone broker that restarts
    up for minutes now and then (`transport.kafka.config`). A commit is acknowledged before its
    marker is in the partition, and until then readers see nothing of the transaction.
    """
    settings = KafkaSettings(bootstrap_servers=endpoints.kafka_bootstrap)

    def is_there() -> bool:
        return spans(settings, topic, timeout_s=TIMEOUT_S)[0].end >= count

    wait_for(is_there, f"{count} records of {topic}")
    span = spans(settings, topic, timeout_s=TIMEOUT_S)[0]
    batches = read_range(settings, topic, {0: span}, stall_timeout_s=TIMEOUT_S)
    return [message.value() or b"" for batch in batches for message in batch]
