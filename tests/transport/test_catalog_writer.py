"""Changes to traffic on a real log: nothing unseen is overwritten, nothing needed is deleted."""

import threading
import time
import uuid

import pytest
from catalog_bundles import large_release, small_release, with_model

from deploy.stack import Stack
from schemas.errors import ContractError, MotorcadeError, Reason
from schemas.records import decode_confluent, encode_confluent
from schemas.topics import CHUNKS, MODEL_EVENTS, TRAFFIC
from scoring.catalog import Catalog
from scoring.events import EventKind, ModelEvent
from scoring.traffic import Arm, Experiment, Mode, Traffic
from transport.catalog import CatalogFollower, delete_version, write_traffic, writer
from transport.kafka import (
    KafkaSettings,
    Outgoing,
    TransactionalProducer,
    ensure_topics,
    latest_offsets,
    read_to_end,
    register_schemas,
)
from transport.releases import newest_release, publish_release

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def kafka(stack: Stack) -> KafkaSettings:
    settings = KafkaSettings(stack.endpoints.kafka_bootstrap, stack.endpoints.registry_url)
    ensure_topics(settings)
    return settings


@pytest.fixture
def name(kafka: KafkaSettings) -> str:
    """A model with versions 1 and 2."""
    made = f"w-{uuid.uuid4().hex[:8]}"
    for version in ("1", "2"):
        publish_release(kafka, small_release(made, version))
    return made


def set_alias(kafka: KafkaSettings, name: str, alias: str, version: str | None) -> Traffic:
    return write_traffic(
        kafka,
        name,
        lambda _, traffic: traffic.with_alias(alias, version),
        by="test",
        reason=f"{alias} is {version}",
    )


def catalog_of(kafka: KafkaSettings, name: str) -> Catalog:
    with CatalogFollower(kafka, {name}) as follower:
        return follower.read_to_end(30)


def event(name: str, kind: EventKind = EventKind.DELETED) -> ModelEvent:
    return ModelEvent(kind, name, "as asked", "test", time.time_ns() // 1_000_000)


def events_of(kafka: KafkaSettings, name: str) -> list[EventKind]:
    schema_id = register_schemas(kafka, [MODEL_EVENTS]).id_of(MODEL_EVENTS)
    records = [
        decode_confluent(MODEL_EVENTS.record, schema_id, message.value() or b"")
        for batch in read_to_end(kafka, MODEL_EVENTS.name)
        for message in batch
        if message.key() == name.encode()
    ]
    return [ModelEvent.from_record(record).kind for record in records]


def keys_of(kafka: KafkaSettings, sha256: str) -> dict[bytes, bool]:
    """Keys of a model's chunks, and whether the last record of each has a value."""
    return {
        message.key() or b"": message.value() is not None
        for batch in read_to_end(kafka, CHUNKS.name)
        for message in batch
        if (message.key() or b"").startswith(sha256.encode())
    }


def test_writers_at_once_lose_no_change(kafka: KafkaSettings, name: str) -> None:
    errors: list[Exception] = []

    def write(alias: str) -> None:
        try:
            set_alias(kafka, name, alias, "1")
        except MotorcadeError as error:
            errors.append(error)

    aliases = ("a", "b", "c")
    threads = [threading.Thread(target=write, args=(alias,)) for alias in aliases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    traffic = catalog_of(kafka, name).traffic(name)
    assert traffic.aliases == dict.fromkeys(aliases, "1")
    assert traffic.generation == 3


def test_a_writer_that_was_overtaken_begins_anew(kafka: KafkaSettings, name: str) -> None:
    seen: list[int] = []

    def change(_: Catalog, traffic: Traffic) -> Traffic:
        seen.append(traffic.generation)
        if len(seen) == 1:
            set_alias(kafka, name, "other", "2")
        return traffic.with_alias("mine", "1")

    after = write_traffic(kafka, name, change, by="test", reason="both")
    assert seen == [0, 1]
    assert after == catalog_of(kafka, name).traffic(name)
    assert (after.generation, after.aliases) == (2, {"other": "2", "mine": "1"})


def test_a_writer_that_died_in_mid_transaction_is_as_if_it_had_not_been(
    kafka: KafkaSettings, name: str
) -> None:
    dying = TransactionalProducer(kafka, f"motorcade-model-{name}")
    dying.start()
    dying.begin()
    dying.produce(Outgoing(TRAFFIC.name, b"never", name.encode(), 0))
    dying.client.flush()
    assert set_alias(kafka, name, "mine", "1").generation == 1
    dying.close()


def test_the_end_of_the_log_is_awaited_behind_another_models_transaction(
    kafka: KafkaSettings, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without that a reader stops before what is committed behind it, and overwrites it."""
    other = TransactionalProducer(kafka, f"motorcade-model-other-{name}")
    other.start()
    other.begin()
    other.produce(Outgoing(TRAFFIC.name, None, b"other", 0))
    other.client.flush()
    inside = TransactionalProducer(kafka, f"motorcade-model-{name}")
    inside.start()
    ids = register_schemas(kafka, [TRAFFIC])
    first = Traffic(name).with_alias("first", "1").changed(now_ms=1, by="test", reason="")
    value = encode_confluent(TRAFFIC.record, ids.id_of(TRAFFIC), first.to_record())
    with inside.transaction():
        inside.produce(Outgoing(TRAFFIC.name, value, name.encode(), 0))
    looks: list[dict[int, int]] = []

    def look(settings: KafkaSettings, topic: str) -> dict[int, int]:
        if len(looks) == 3:
            other.abort()
        looks.append(latest_offsets(settings, topic))
        return looks[-1]

    monkeypatch.setattr(writer, "latest_offsets", look)
    done = set_alias(kafka, name, "second", "1")
    assert len(looks) >= 4
    assert done.generation == 2
    assert done.aliases == {"first": "1", "second": "1"}
    other.close()
    inside.close()


def test_what_does_not_exist_gets_no_alias_and_no_arm(kafka: KafkaSettings, name: str) -> None:
    with pytest.raises(ContractError, match="no version '9'; there are: 1, 2") as caught:
        set_alias(kafka, name, "challenger", "9")
    assert caught.value.reason is Reason.UNKNOWN_MODEL
    trial = Experiment("e", Mode.CANARY, "s", 0, (Arm("champion", "2", 0.9), Arm("new", "9", 0.1)))
    with pytest.raises(ContractError, match="no version '9'"):
        write_traffic(
            kafka,
            name,
            lambda _, traffic: Traffic(name, traffic.generation, experiment=trial),
            by="test",
            reason="try",
        )
    assert catalog_of(kafka, name).traffic(name).generation == 0


def test_what_changes_nothing_is_not_written(kafka: KafkaSettings, name: str) -> None:
    first = set_alias(kafka, name, "challenger", "1")
    assert set_alias(kafka, name, "challenger", "1") == first


def test_events_count_with_the_change(kafka: KafkaSettings, name: str) -> None:
    write_traffic(
        kafka,
        name,
        lambda _, traffic: traffic.with_alias("champion", "1"),
        by="test",
        reason="why",
        describe=lambda _before, after: [event(after.name, EventKind.PROMOTED)],
    )
    assert events_of(kafka, name) == [EventKind.PROMOTED]


def test_a_version_in_use_is_not_deleted(kafka: KafkaSettings, name: str) -> None:
    def delete(version: str) -> None:
        delete_version(kafka, name, version, event=lambda: event(name))

    with pytest.raises(MotorcadeError, match="being the newest; promote another first"):
        delete("2")
    set_alias(kafka, name, "challenger", "1")
    with pytest.raises(MotorcadeError, match="is challenger; name another or unset it first"):
        delete("1")
    with pytest.raises(ContractError, match="no version '9'"):
        delete("9")
    set_alias(kafka, name, "challenger", None)
    delete("1")
    assert catalog_of(kafka, name).versions(name) == ("2",)
    delete("2")
    assert catalog_of(kafka, name).versions(name) == ()
    assert events_of(kafka, name) == [EventKind.DELETED] * 2


def test_chunks_go_with_the_last_version_that_needs_them(kafka: KafkaSettings, name: str) -> None:
    large = large_release(name, "3", size_bytes=2_000_000, seed=int(name[2:], 16))
    sha256 = large.manifest.model_sha256
    publish_release(kafka, large)
    publish_release(kafka, with_model(small_release(name, "4"), large.model))
    publish_release(kafka, small_release(name, "5"))
    delete_version(kafka, name, "3", event=lambda: event(name))
    assert list(keys_of(kafka, sha256).values()) == [True] * 3
    delete_version(kafka, name, "4", event=lambda: event(name))
    assert list(keys_of(kafka, sha256).values()) == [False] * 3
    publish_release(kafka, large)
    assert newest_release(kafka, name) == large
