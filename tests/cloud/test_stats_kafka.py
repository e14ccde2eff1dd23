"""Statistics of the scorer, through real Kafka."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from scorer_fleet import Ground, Models, drive, small_bundle, wait_until

from cloud.decoding import decode_plain
from cloud.scorer import ScorerParts, ScorerSettings, ScorerStats, run_with
from cloud.stats import ScorerWatch, StatsBook, StatsWriter
from deploy.stack import Stack
from schemas.topics import MODEL_STATS
from scoring.bundle import Bundle
from scoring.reference import reference_of
from scoring.stats import ArmCounts, ArmWindow
from transport.kafka import KafkaSettings, ensure_topics, read_to_end, register_schemas


def referenced() -> Bundle:
    bundle = small_bundle("stats-1")
    rng = np.random.default_rng(1)
    rows = (bundle.manifest.mean + rng.normal(0, 1, (500, 9))).astype(np.float32)
    reference = reference_of(rows, rows[:, 0], threshold=20.0, vehicles=5)
    return replace(bundle, manifest=replace(bundle.manifest, reference=reference))


def windows(kafka: KafkaSettings, ground: Ground, component_id: str) -> list[ArmWindow]:
    schema_id = register_schemas(kafka, [MODEL_STATS]).id_of(MODEL_STATS)
    found = []
    for messages in read_to_end(kafka, MODEL_STATS.name):
        for message in messages:
            record = decode_plain(MODEL_STATS.record, schema_id, message.value())
            if record["component_id"] == component_id:
                found.append(ArmWindow.from_record(record))
    return found


@pytest.mark.integration
def test_what_was_scored_is_in_the_statistics(stack: Stack) -> None:
    kafka = KafkaSettings(
        bootstrap_servers=stack.endpoints.kafka_bootstrap,
        registry_url=stack.endpoints.registry_url,
    )
    ensure_topics(kafka, [MODEL_STATS])
    ground = Ground.new(kafka)
    records = drive(ground, vehicles=12, batches=40, readings=5)
    ground.write(records)
    group = f"stats-{ground.mark}"
    book = StatsBook("scorer", group)
    stop = threading.Event()
    latest = ScorerStats()

    def watch(stats: ScorerStats) -> None:
        nonlocal latest
        latest = stats
        if stats.messages >= len(records):
            stop.set()

    models = Models()
    models.release(referenced())
    parts = ScorerParts(ground.ids, models, ground.topics, watch=ScorerWatch(book, "embedded"))
    settings = ScorerSettings(
        group_id=group, transactional_id=group, model="embedded:small", stats_interval_s=0.05
    )
    with StatsWriter(kafka, book, interval_s=0.2) as writer:
        runner = threading.Thread(
            target=run_with, args=(settings, kafka, parts), kwargs={"stop": stop, "on_stats": watch}
        )
        runner.start()
        try:
            wait_until(stop.is_set, lambda: latest)
        finally:
            stop.set()
            runner.join()
    total = ArmCounts()
    for window in windows(kafka, ground, group):
        assert (window.key.deployment, window.key.version, window.key.arm) == (
            "embedded",
            "stats-1",
            "champion",
        )
        assert window.end_ms <= time.time_ns() // 1_000_000
        total = total.plus(window.counts)
    assert writer.lost == 0
    assert (total.readings, total.alerts_opened, total.alerts_closed) == (
        12 * 40 * 5,
        latest.opened,
        latest.closed,
    )
    assert latest.opened > 0
    assert total.scores.sum() + total.unscored == total.readings
    assert total.ages.sum() == total.readings
    assert 0 < total.sampled <= total.readings
    assert len(total.features) == 9


def test_nobody_waits_while_kafka_is_away() -> None:
    kafka = KafkaSettings(bootstrap_servers="127.0.0.1:1", registry_url="http://127.0.0.1:1")
    book = StatsBook("scorer", "alone")
    with StatsWriter(kafka, book, interval_s=0.01) as writer:
        with book.tally("embedded", small_bundle(), "champion") as tally:
            tally.add(readings=1)
        wait_until(lambda: writer.lost > 0, lambda: writer.lost)


def test_arms_of_one_version_are_told_apart_and_idle_ones_let_go() -> None:
    book = StatsBook("server", "s")
    bundle = small_bundle()
    for arm, readings in (("champion", 2), ("twin", 3)):
        with book.tally("rpc", bundle, arm) as tally:
            tally.add(readings=readings)
    book.failed("rpc", "nothing-of-that-name")
    closed = {w.key.arm: w.counts for w in book.close_window(5)}
    assert {arm: counts.readings for arm, counts in closed.items()} == {
        "champion": 2,
        "twin": 3,
        "": 0,
    }
    assert closed[""].errors == 1
    assert book.close_window(6) == []
