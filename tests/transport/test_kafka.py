"""The Kafka package against a real broker and registry."""

import json
import threading
import time
import uuid
from dataclasses import replace
from itertools import pairwise

import pytest

from deploy.stack import Stack
from schemas.errors import ContractError, FencedError, Reason, SettingsError, TransientError
from schemas.records import schema_json
from schemas.topics import ALERTS, SCORES, TELEMETRY, Topic
from transport.kafka import (
    AbortNeededError,
    AtLeastOnceProducer,
    KafkaSettings,
    Message,
    Outgoing,
    Partition,
    ProducerLostError,
    Span,
    TransactionalProducer,
    delete_topics,
    ensure_topics,
    latest_offsets,
    make_consumer,
    partition_counts,
    publish,
    read_range,
    read_to_end,
    register_schemas,
    spans,
)
from transport.kafka.config import registry_config

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def kafka(stack: Stack) -> KafkaSettings:
    return KafkaSettings(stack.endpoints.kafka_bootstrap, stack.endpoints.registry_url)


@pytest.fixture
def topic(kafka: KafkaSettings) -> Topic:
    made = Topic(f"t-{uuid.uuid4().hex[:8]}", "Alert", 2, False, "")
    ensure_topics(kafka, [made])
    return made


@pytest.fixture
def name() -> str:
    return f"id-{uuid.uuid4().hex[:8]}"


def values(messages: list[Message]) -> list[bytes | None]:
    return [message.value() for message in messages]


def all_of(kafka: KafkaSettings, topic: Topic) -> list[Message]:
    return [m for batch in read_to_end(kafka, topic.name) for m in batch]


def test_topics_are_made_once_and_left_alone_after(kafka: KafkaSettings, topic: Topic) -> None:
    ensure_topics(kafka, [replace(topic, partitions=7)])
    assert partition_counts(kafka, [topic.name, "nowhere"]) == {topic.name: 2, "nowhere": 0}
    delete_topics(kafka, [topic.name, "nowhere"])
    with pytest.raises(SettingsError, match="no topic"):
        spans(kafka, topic.name)


def test_a_topic_that_is_named_twice_is_made_once(kafka: KafkaSettings) -> None:
    made = Topic(f"twice-{uuid.uuid4().hex[:8]}", "Alert", 1, True, "")
    ensure_topics(kafka, [made, made])
    assert partition_counts(kafka, [made.name]) == {made.name: 1}


def test_two_who_make_the_same_topic_at_once_both_succeed(kafka: KafkaSettings) -> None:
    made = [Topic(f"race-{uuid.uuid4().hex[:8]}", "Alert", 1, True, "") for _ in range(5)]
    errors: list[Exception] = []

    def make() -> None:
        try:
            ensure_topics(kafka, made)
        except TransientError as error:
            errors.append(error)

    threads = [threading.Thread(target=make) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_a_transaction_counts_whole_or_not_at_all(
    kafka: KafkaSettings, topic: Topic, name: str
) -> None:
    producer = TransactionalProducer(kafka, name)
    producer.start()
    with producer.transaction():
        producer.produce(Outgoing(topic.name, b"a", b"k", 0, [("h", b"1")], 1_790_000_000_000))
        producer.produce_batch(topic.name, [{"value": b"b"}, {"value": b"c"}], partition=0)
    with pytest.raises(ZeroDivisionError), producer.transaction():
        producer.produce(Outgoing(topic.name, b"never", partition=0))
        producer.client.flush()
        raise ZeroDivisionError
    with producer.transaction():
        producer.produce(Outgoing(topic.name, None, b"k", 0))
    producer.close()
    found = all_of(kafka, topic)
    assert values(found) == [b"a", b"b", b"c", None]
    assert found[0].headers() == [("h", b"1")]
    assert found[0].timestamp()[1] == 1_790_000_000_000


def test_reading_ends_although_the_log_ends_with_what_no_reader_sees(
    kafka: KafkaSettings, topic: Topic, name: str
) -> None:
    producer = TransactionalProducer(kafka, name)
    producer.start()
    for number in range(3):
        with producer.transaction():
            producer.produce(Outgoing(topic.name, b"%d" % number, partition=0))
    producer.begin()
    producer.produce(Outgoing(topic.name, b"aborted", partition=0))
    producer.client.flush()
    producer.abort()
    # 0 C 1 C 2 C a A: C and A mark commits and the abort.
    assert latest_offsets(kafka, topic.name) == {0: 8, 1: 0}

    def read(start: int, end: int) -> list[bytes | None]:
        batches = read_range(kafka, topic.name, {0: Span(start, end)}, stall_timeout_s=10)
        return [value for batch in batches for value in values(batch)]

    assert read(0, 8) == [b"0", b"1", b"2"]
    assert read(0, 1_000) == [b"0", b"1", b"2"]
    assert read(1, 2) == []
    assert read(1, 4) == [b"1"]
    assert read(2, 5) == [b"1", b"2"]
    assert read(6, 8) == []
    assert read(3, 3) == []
    producer.close()


def test_an_open_transaction_hides_what_follows_until_it_is_settled(
    kafka: KafkaSettings, topic: Topic, name: str
) -> None:
    producer = TransactionalProducer(kafka, name)
    producer.start()
    producer.begin()
    producer.produce(Outgoing(topic.name, b"open", partition=0))
    producer.client.flush()
    publish(kafka, [Outgoing(topic.name, b"after", partition=0)])
    assert all_of(kafka, topic) == []
    successor = TransactionalProducer(kafka, name)
    successor.start()
    deadline = time.monotonic() + 20
    while (found := values(all_of(kafka, topic))) != [b"after"]:
        assert time.monotonic() < deadline, found
    producer.close()
    successor.close()


def test_a_stretch_of_time_is_read_by_record_time(kafka: KafkaSettings, topic: Topic) -> None:
    now_ms = time.time_ns() // 1_000_000
    publish(
        kafka,
        [Outgoing(topic.name, b"%d" % n, partition=0, timestamp_ms=now_ms + n) for n in range(10)],
    )
    found = spans(kafka, topic.name, since_ms=now_ms + 3, until_ms=now_ms + 6)
    assert found == {0: Span(3, 6), 1: Span(0, 0)}
    assert spans(kafka, topic.name, since_ms=now_ms + 99)[0] == Span(10, 10)
    assert spans(kafka, topic.name, since_ms=0)[0] == Span(0, 10)
    since = read_to_end(kafka, topic.name, since_ms=now_ms + 8)
    assert [value for batch in since for value in values(batch)] == [b"8", b"9"]
    started = read_to_end(kafka, topic.name, start={0: 9})
    assert [value for batch in started for value in values(batch)] == [b"9"]


def test_batches_are_bounded(kafka: KafkaSettings, topic: Topic) -> None:
    publish(kafka, [Outgoing(topic.name, b"%d" % n) for n in range(100)])
    sizes = [len(batch) for batch in read_to_end(kafka, topic.name, batch_messages=7)]
    assert sum(sizes) == 100
    assert max(sizes) <= 7
    assert min(sizes) >= 1


def test_the_elder_of_two_with_one_id_is_fenced(
    kafka: KafkaSettings, topic: Topic, name: str
) -> None:
    elder, younger = TransactionalProducer(kafka, name), TransactionalProducer(kafka, name)
    elder.start()
    elder.begin()
    elder.produce(Outgoing(topic.name, b"elder"))
    younger.start()
    with pytest.raises(FencedError):
        elder.commit()
    with younger.transaction():
        younger.produce(Outgoing(topic.name, b"younger"))
    assert values(all_of(kafka, topic)) == [b"younger"]
    elder.close()
    younger.close()


def test_a_transaction_that_timed_out_needs_a_new_producer_and_is_nobodys_fault(
    kafka: KafkaSettings, topic: Topic, name: str
) -> None:
    producer = TransactionalProducer(kafka, name, transaction_timeout_s=1.0)
    producer.start()
    producer._began_s = time.monotonic() - 60
    usurper = TransactionalProducer(kafka, name)
    producer.begin()
    producer._began_s -= 60
    producer.produce(Outgoing(topic.name, b"late"))
    usurper.start()
    with pytest.raises(ProducerLostError, match="timed out"):
        producer.commit()
    producer.start()
    with producer.transaction():
        producer.produce(Outgoing(topic.name, b"again"))
    assert values(all_of(kafka, topic)) == [b"again"]
    producer.close()
    usurper.close()


def test_an_oversized_record_is_refused_and_nothing_else(
    kafka: KafkaSettings, topic: Topic, name: str
) -> None:
    producer = TransactionalProducer(kafka, name)
    producer.start()
    big = bytes(2_000_000)
    with producer.transaction():
        producer.produce(Outgoing(topic.name, b"before"))
        with pytest.raises(ContractError) as caught:
            producer.produce(Outgoing(topic.name, big))
        assert caught.value.reason is Reason.OVERSIZED
    with pytest.raises(ContractError, match="oversized"), producer.transaction():
        producer.produce_batch(topic.name, [{"value": b"small"}, {"value": big}])
    with pytest.raises(ContractError, match="oversized"):
        publish(kafka, [Outgoing(topic.name, big)])
    producer.close()
    assert values(all_of(kafka, topic)) == [b"before"]


def test_a_full_queue_is_waited_for(kafka: KafkaSettings, topic: Topic, name: str) -> None:
    producer = TransactionalProducer(kafka, name, queue_buffering_max_messages=10)
    producer.start()
    with producer.transaction():
        for number in range(100):
            producer.produce(Outgoing(topic.name, b"%d" % number, partition=0))
    producer.close()
    assert values(all_of(kafka, topic)) == [b"%d" % number for number in range(100)]


def test_a_batch_that_does_not_fit_is_not_taken_by_halves(
    kafka: KafkaSettings, topic: Topic, name: str
) -> None:
    producer = TransactionalProducer(kafka, name, queue_buffering_max_messages=10)
    producer.start()
    with pytest.raises(TransientError), producer.transaction():
        producer.produce_batch(topic.name, [{"value": b"x"} for _ in range(20)])
    producer.close()
    assert all_of(kafka, topic) == []


def test_offsets_move_with_the_transaction_and_only_for_members(
    kafka: KafkaSettings, topic: Topic, name: str
) -> None:
    publish(kafka, [Outgoing(topic.name, b"%d" % n, partition=n % 2) for n in range(10)])
    producer = TransactionalProducer(kafka, name)
    producer.start()
    assigned: list[Partition] = []
    revoked: list[Partition] = []

    def on_assign(partitions: list[Partition]) -> dict[Partition, int]:
        assigned.extend(partitions)
        return {(topic.name, 1): 3}

    with make_consumer(kafka, name) as consumer:
        consumer.subscribe(
            [topic.name], on_assign=on_assign, on_revoke=revoked.extend, on_lost=revoked.extend
        )
        found: list[Message] = []
        deadline = time.monotonic() + 20
        while len(found) < 7:
            found += consumer.consume(100, 0.1)
            assert time.monotonic() < deadline
        assert sorted(assigned) == [(topic.name, 0), (topic.name, 1)]
        assert sorted(value or b"" for value in values(found)) == [
            b"0",
            b"2",
            b"4",
            b"6",
            b"7",
            b"8",
            b"9",
        ]
        group = consumer.group_metadata()
        with producer.transaction():
            producer.send_offsets({(topic.name, 0): 5}, group)
        assert consumer.committed(assigned) == {(topic.name, 0): 5, (topic.name, 1): None}
        assert consumer.watermarks((topic.name, 0)) == (0, 5)
        assert consumer.known_end((topic.name, 0)) == 5
        producer.begin()
        producer.send_offsets({(topic.name, 1): 5}, group)
        producer.abort()
    assert sorted(revoked) == sorted(assigned)
    with pytest.raises(AbortNeededError), producer.transaction():
        producer.send_offsets({(topic.name, 1): 5}, group, timeout_s=10)
    with make_consumer(kafka, name) as consumer:
        assert consumer.committed([(topic.name, 1)]) == {(topic.name, 1): None}
    producer.close()


def test_a_reader_can_go_back_pause_and_go_on(kafka: KafkaSettings, topic: Topic) -> None:
    publish(kafka, [Outgoing(topic.name, b"%d" % n, partition=0) for n in range(5)])

    def take(count: int) -> list[bytes | None]:
        found: list[bytes | None] = []
        deadline = time.monotonic() + 20
        while len(found) < count:
            found += values(consumer.consume(count - len(found), 0.1))
            assert time.monotonic() < deadline
        return found

    at = (topic.name, 0)
    with make_consumer(kafka, "never-joined") as consumer:
        consumer.assign({at: 3})
        assert take(2) == [b"3", b"4"]
        consumer.seek({at: 1})
        assert take(1) == [b"1"]
        consumer.pause([at])
        assert consumer.consume(10, 0.2) == []
        consumer.resume([at])
        assert take(3) == [b"2", b"3", b"4"]
        assert consumer.offsets_at({at: 0}) == {at: 0}
        assert consumer.offsets_at({at: 1 << 45}) == {at: None}


def test_records_of_a_key_keep_their_order_and_partition(
    kafka: KafkaSettings, topic: Topic
) -> None:
    publish(kafka, [Outgoing(topic.name, b"%d" % n, b"car-%d" % (n % 5)) for n in range(50)])
    places: dict[bytes, set[int | None]] = {}
    order: dict[bytes, list[int]] = {}
    for message in all_of(kafka, topic):
        key = message.key() or b""
        places.setdefault(key, set()).add(message.partition())
        order.setdefault(key, []).append(int(message.value() or b""))
    assert all(len(partitions) == 1 for partitions in places.values())
    assert all(a < b for numbers in order.values() for a, b in pairwise(numbers))


def test_schemas_are_registered_once_under_the_topics_subject(kafka: KafkaSettings) -> None:
    first, second = register_schemas(kafka), register_schemas(kafka)
    assert first == second
    assert first.id_of(TELEMETRY) != first.id_of(SCORES)
    assert first.is_known(ALERTS, first.id_of(ALERTS))
    assert not first.is_known(ALERTS, first.id_of(SCORES))
    with pytest.raises(KeyError):
        first.id_of(replace(TELEMETRY, name="other"))


def test_ids_of_older_versions_are_known_and_a_breaking_change_is_refused(
    kafka: KafkaSettings, name: str
) -> None:
    from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

    older = json.loads(schema_json("Alert"))
    older["fields"] = [field for field in older["fields"] if field["name"] != "gateway_id"]
    other = Topic(name, "Alert", 1, False, "")
    client = SchemaRegistryClient(registry_config(kafka))
    old_id = client.register_schema(f"{name}-value", Schema(json.dumps(older), "AVRO"))
    ids = register_schemas(kafka, [other])
    assert ids.older_by_topic[name] == (old_id,)
    assert ids.is_known(other, old_id)
    text = json.dumps({"type": "record", "name": "Alert", "fields": []})
    strange = f"strange-{name}"
    client.register_schema(f"{strange}-value", Schema(text, "AVRO"))
    with pytest.raises(SettingsError, match="schema registry"):
        register_schemas(kafka, [replace(other, name=strange)])
    client.close()


def test_without_transactions_offsets_move_once_the_records_are_stored(
    kafka: KafkaSettings, topic: Topic, name: str
) -> None:
    publish(kafka, [Outgoing(topic.name, b"in", partition=0)])
    with make_consumer(kafka, name) as consumer:
        consumer.assign({(topic.name, 0): 0})
        writer = AtLeastOnceProducer(kafka, lambda offsets: consumer.commit(offsets, wait=True))
        writer.start()
        with writer.transaction():
            writer.produce(Outgoing(topic.name, b"one", partition=1))
            writer.produce_batch(topic.name, [{"value": b"two"}], partition=1)
            writer.send_offsets({(topic.name, 0): 1}, consumer.group_metadata())
        assert consumer.committed([(topic.name, 0)]) == {(topic.name, 0): 1}
        writer.close()
    found = [value for batch in read_to_end(kafka, topic.name) for value in values(batch)]
    assert sorted(found, key=str) == [b"in", b"one", b"two"]


def test_without_transactions_what_is_not_stored_moves_no_offsets(
    kafka: KafkaSettings, topic: Topic
) -> None:
    moved: list[object] = []
    writer = AtLeastOnceProducer(kafka, moved.append, message_timeout_ms=1_000)
    writer.start()
    writer.begin()
    writer.produce(Outgoing("no-such-topic", b"lost"))
    with pytest.raises(AbortNeededError):
        writer.commit()
    writer.abort()
    writer.begin()
    writer.produce(Outgoing(topic.name, b"good", partition=0))
    writer.commit()
    assert moved == [{}]
    writer.close()
