"""The monitor on real Kafka: statistics in, events out."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from monitor_parts import fleet_rows, record, referenced, window

from cloud.decoding import decode_plain
from cloud.monitoring.loop import TOPICS, run
from cloud.monitoring.settings import MonitorSettings
from deploy.stack import Stack
from schemas.records import encode_confluent
from schemas.topics import CHUNKS, MODEL_EVENTS, MODEL_STATS, RELEASES
from scoring.bundle import Bundle
from scoring.events import EventKind, ModelEvent
from transport.kafka import (
    KafkaSettings,
    Outgoing,
    ensure_topics,
    publish,
    read_to_end,
    register_schemas,
)
from transport.releases import publish_release

PATIENCE_S = 90.0

pytestmark = pytest.mark.integration


@pytest.fixture
def kafka(stack: Stack) -> KafkaSettings:
    settings = KafkaSettings(
        bootstrap_servers=stack.endpoints.kafka_bootstrap,
        registry_url=stack.endpoints.registry_url,
    )
    ensure_topics(settings, (*TOPICS, RELEASES, CHUNKS))
    return settings


def settings(name: str) -> MonitorSettings:
    """Of a test's own group, with short windows."""
    return MonitorSettings(
        group_id=f"monitor-{name}",
        drift_window_s=1.0,
        drift_open_windows=1,
        interval_s=0.2,
        label_horizon_s=60.0,
        lookback_s=600.0,
        session_timeout_s=6.0,
    )


def named(version: str) -> tuple[str, Bundle]:
    """A release under a name of the test's own: topics are shared."""
    name = f"m-{uuid.uuid4().hex[:8]}"
    bundle = referenced(version)
    return name, replace(bundle, manifest=replace(bundle.manifest, name=name))


def events_of(kafka: KafkaSettings, name: str) -> list[ModelEvent]:
    schema_id = register_schemas(kafka, [MODEL_EVENTS]).id_of(MODEL_EVENTS)
    found = []
    for messages in read_to_end(kafka, MODEL_EVENTS.name):
        for message in messages:
            each = decode_plain(MODEL_EVENTS.record, schema_id, message.value())
            if each["model_name"] == name:
                found.append(ModelEvent.from_record(each))
    return found


def wait_for(condition: Callable[[], bool], facts: Callable[[], object]) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until_s, facts()
        time.sleep(0.2)


@contextmanager
def monitoring(kafka: KafkaSettings, name: str) -> Iterator[list[str]]:
    """A monitor in a thread; gives what it says."""
    said: list[str] = []
    stop = threading.Event()
    thread = threading.Thread(
        target=run,
        args=(settings(name), kafka),
        kwargs={"stop": stop, "on_news": said.append},
    )
    thread.start()
    try:
        yield said
    finally:
        stop.set()
        thread.join()


@contextmanager
def feeding(tell: Callable[[int], None]) -> Iterator[None]:
    """Calls `tell` with the time, several times a second, as a scorer would write."""
    stop = threading.Event()
    failed: list[BaseException] = []

    def feed() -> None:
        try:
            while not stop.wait(0.25):
                tell(time.time_ns() // 1_000_000)
        except BaseException as error:  # noqa: BLE001 - raised again below
            failed.append(error)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        assert not failed, failed


def teller(kafka: KafkaSettings, bundle: Bundle, shift: dict[str, float]) -> Callable[[int], None]:
    schema_id = register_schemas(kafka, [MODEL_STATS]).id_of(MODEL_STATS)
    rng = np.random.default_rng(1)

    def tell(now_ms: int) -> None:
        rows = fleet_rows(rng, 60, 4, shift)
        made = record(window(bundle, rows, end_ms=now_ms, vehicles=60))
        value = encode_confluent(MODEL_STATS.record, schema_id, made)
        publish(kafka, [Outgoing(MODEL_STATS.name, value, made["model_name"].encode())])

    return tell


def test_drift_is_told_on_the_topic_of_events_once(kafka: KafkaSettings) -> None:
    name, bundle = named("1")
    publish_release(kafka, bundle)
    with feeding(teller(kafka, bundle, {"maf": 9.0})):
        with monitoring(kafka, name) as said:
            wait_for(lambda: bool(events_of(kafka, name)), lambda: said)
        with monitoring(kafka, name) as said:
            wait_for(lambda: "monitoring" in said, lambda: said)
            begun_ms = time.time_ns() // 1_000_000
            marker, other = named("1")
            publish_release(kafka, other)
            with feeding(teller(kafka, other, {"speed": 9.0})):
                # When the second monitor has judged windows that began after it did.
                wait_for(lambda: bool(events_of(kafka, marker)), lambda: said)
    found = [each for each in events_of(kafka, name) if "maf" in each.detail]
    assert [each.kind for each in found] == [EventKind.INPUT_DRIFT]
    assert found[0].time_ms < begun_ms
