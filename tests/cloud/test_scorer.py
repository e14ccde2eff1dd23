"""The scorer against a real Kafka: bad input, models, alerts, and a broker that goes away."""

import struct
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from scorer_fleet import SIGNALS, Ground, Models, bits, drive, small_bundle
from scorer_thread import running

from cloud.scorer import (
    ScorerSettings,
    ScorerStats,
    check_topics,
    run,
)
from deploy.stack import Stack
from schemas.codec import Framing, decode_telemetry
from schemas.errors import ContractError, Reason, SettingsError, TransientError
from schemas.records import Record
from scoring.bundle import FeatureKind, FeatureSpec
from transport.kafka import KafkaSettings, Outgoing
from transport.releases import BrokenRelease

pytestmark = pytest.mark.integration


@pytest.fixture
def ground(stack: Stack) -> Ground:
    ends = stack.endpoints
    return Ground.new(KafkaSettings(ends.kafka_bootstrap, ends.registry_url))


def speed_of(ground: Ground, payload: bytes) -> float:
    ids = ground.ids.id_of(ground.topics.telemetry)
    columns = decode_telemetry(
        [payload], framing=Framing.CONFLUENT, schema_id=ids, signals=["speed"]
    )
    return float(columns.values[0, 0])


def letters(ground: Ground) -> list[Record]:
    found = [record for _, _, record in ground.records(ground.topics.dead_letters)]
    return [record for record in found if record is not None]


def test_bad_messages_become_dead_letters_and_all_others_are_scored(ground: Ground) -> None:
    good = drive(ground, vehicles=6, batches=40)
    payload = good[0].value or b""
    unknown_id = b"\x00" + (2**31 - 1).to_bytes(4, "big") + payload[5:]
    speed = struct.pack("<f", speed_of(ground, payload))
    bad = {
        Reason.NOT_AVRO: b"{}",
        Reason.TRUNCATED: payload[:-3],
        Reason.UNKNOWN_SCHEMA_ID: unknown_id,
        Reason.MALFORMED: payload + b"x",
        Reason.OUT_OF_RANGE: payload.replace(speed, struct.pack("<f", 1e6)),
        Reason.NOT_FINITE: payload.replace(speed, struct.pack("<f", float("inf"))),
        Reason.OVERSIZED: payload + bytes(300_000),
    }
    topic = ground.topics.telemetry.name
    mixed: list[Outgoing] = []
    for number, record in enumerate(good):
        mixed.append(record)
        if number in range(20, 20 + len(bad)):
            value = list(bad.values())[number - 20]
            headers = [("boot_id", b"5"), ("odd", None)]
            mixed.append(Outgoing(topic, value, b"other-key", number % 3, headers))
    mixed.append(Outgoing(topic, None, b"tombstone", 0))
    ground.write(mixed)
    with running(ground, Models(small_bundle())) as scorer:
        scorer.wait_for(lambda stats: stats.messages == len(mixed))
    expected = ground.expected(small_bundle())
    assert len(expected.scores) == len(good)
    assert ground.scores() == expected.scores
    found = letters(ground)
    assert sorted(each["reason"] for each in found) == sorted([*bad, Reason.NOT_AVRO])
    by_payload = {each["payload"]: each for each in found}
    for reason, value in bad.items():
        letter = by_payload[value]
        assert letter["reason"] == reason.value
        assert (letter["topic"], letter["key"]) == (topic, b"other-key")
        assert letter["headers"] == [
            {"name": "boot_id", "value": b"5"},
            {"name": "odd", "value": None},
        ]
        assert letter["payload_bytes"] == len(value)
        assert (letter["component"], letter["model_version"]) == ("scorer", "1")
    assert by_payload[None]["key"] == b"tombstone"
    assert {(each["partition"], each["offset"]) for each in found}.isdisjoint(expected.scores)


def test_it_waits_for_a_model_and_then_scores_what_is_there(ground: Ground) -> None:
    records = drive(ground, vehicles=4, batches=30)
    ground.write(records)
    models = Models()
    with running(ground, models) as scorer:
        scorer.wait_for(lambda stats: stats.state == "no model yet")
        assert scorer.stats.messages == 0
        models.release(small_bundle())
        scorer.wait_for(lambda stats: stats.messages == len(records))
    assert scorer.states[:3] == ["no model yet", "scoring", "stopped"]


def test_a_broken_release_is_dead_lettered_and_the_old_model_goes_on(ground: Ground) -> None:
    first = drive(ground, vehicles=4, batches=30)
    ground.write(first)
    models = Models(small_bundle("1"))
    broken = BrokenRelease(
        ContractError(Reason.MODEL_HASH, "another hash"), 7, b"small/2", (("h", b"1"),), b"bytes"
    )
    one = {"mean": (1.0,), "scale": (1.0,), "error_scale": (1.0,), "units": ()}
    unfit = small_bundle("3", features=(FeatureSpec("speed"),), **one)
    with running(ground, models) as scorer:
        scorer.wait_for(lambda stats: stats.messages == len(first))
        models.break_release(broken)
        models.release(unfit)
        scorer.wait_for(lambda stats: stats.dead_letters == 2)
        assert scorer.stats.model_version == "1"
        ground.write(first[:4])
        scorer.wait_for(lambda stats: stats.messages == len(first) + 4)
    hash_letter, features_letter = letters(ground)
    assert (hash_letter["reason"], hash_letter["payload"]) == ("model-hash", b"bytes")
    assert (hash_letter["topic"], hash_letter["offset"]) == ("model.releases", 7)
    assert features_letter["reason"] == "model-features"
    assert features_letter["key"] == b"small/3"


@pytest.mark.parametrize("features_change", [False, True])
def test_a_new_model_takes_over_between_two_batches(ground: Ground, features_change: bool) -> None:
    old, new = small_bundle("1"), small_bundle("2")
    if features_change:
        features = list(new.manifest.features)
        features[7] = FeatureSpec("coolant_temperature", FeatureKind.LAG, 30.0)
        new = small_bundle("2", features=tuple(features))
    records = drive(ground, vehicles=6, batches=200)
    half = len(records) // 2
    ground.write(records[:half])
    models = Models(old)
    with running(ground, models) as scorer:
        scorer.wait_for(lambda stats: stats.messages == half)
        models.release(new)
        scorer.wait_for(lambda stats: stats.model_version == "2")
        ground.write(records[half:])
        scorer.wait_for(lambda stats: stats.messages == len(records))
        assert scorer.stats.rebuilds == (2 if features_change else 1)
    versions = {
        (record["input_partition"], record["input_offset"]): (
            record["model_version"],
            bits(record["scores"]),
        )
        for _, _, record in ground.records(ground.topics.scores)
        if record
    }
    before, after = ground.expected(old).scores, ground.expected(new).scores
    assert {version for version, _ in versions.values()} == {"1", "2"}
    for at, (version, scores) in versions.items():
        assert scores == (before if version == "1" else after)[at][0]


def test_an_alert_opens_and_closes_once_and_says_what_it_is_about(ground: Ground) -> None:
    records = drive(ground, vehicles=3, batches=80)
    ground.write(records)
    with running(ground, Models(small_bundle())) as scorer:
        scorer.wait_for(lambda stats: stats.messages == len(records))
        assert (scorer.stats.opened, scorer.stats.closed) == (1, 1)
    alerts = [record for _, _, record in ground.records(ground.topics.alerts) if record]
    assert [alert["state"] for alert in alerts] == ["OPEN", "CLOSED"]
    assert alerts[0]["alert_id"] == alerts[1]["alert_id"]
    assert alerts[0]["vehicle_id"] == "car-000"
    assert alerts[0]["origin"] == "CLOUD"
    assert alerts[0]["signals"][0]["name"] in SIGNALS
    assert ground.held_alerts() == set()


def test_a_broker_that_dies_is_waited_for_and_nothing_is_lost_or_repeated(
    fresh_stack: Callable[..., Stack],
) -> None:
    stack = fresh_stack()
    ends = stack.endpoints
    ground = Ground.new(KafkaSettings(ends.kafka_bootstrap, ends.registry_url))
    records = drive(ground, vehicles=10, batches=400)
    ground.write(records)
    with running(ground, Models(small_bundle())) as scorer:
        scorer.wait_for(lambda stats: stats.messages > 500)
        stack.kill_part("kafka")
        stack.start_part("kafka")
        scorer.wait_for(lambda stats: stats.messages == len(records))
    expected = ground.expected(small_bundle())
    assert ground.scores() == expected.scores
    assert ground.alerts() == expected.alerts


def test_topics_that_do_not_fit_together_are_refused(ground: Ground) -> None:
    topics = ground.topics
    check_topics(ground.kafka, topics)
    with pytest.raises(TransientError, match="no such topic yet: nowhere"):
        check_topics(ground.kafka, replace(topics, scores=replace(topics.scores, name="nowhere")))
    narrow = Ground.new(ground.kafka, partitions=1)
    with pytest.raises(SettingsError, match="1 partitions"):
        check_topics(ground.kafka, replace(topics, alerts=narrow.topics.alerts))


def test_without_kafka_it_waits_and_stops_when_told() -> None:
    stop = threading.Event()
    states: list[str] = []

    def on_stats(stats: ScorerStats) -> None:
        states.append(stats.state)
        stop.set()

    nowhere = KafkaSettings("127.0.0.1:1", "http://127.0.0.1:1")
    run(ScorerSettings(), nowhere, stop=stop, on_stats=on_stats)
    assert states[0].startswith("waiting: schema registry")
    assert states[-1] == "stopped"
