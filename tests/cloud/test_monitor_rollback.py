"""A bad canary on real parts: scorer, monitors that are killed, telemetry as it comes."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from scorer_fleet import MIDDLE, SIGNALS, SPREAD, small_bundle

from cloud.decoding import decode_plain
from cloud.monitoring.report import experiment_report
from cloud.monitoring.settings import MonitorSettings
from cloud.scorer import run
from cloud.settings import ScorerSettings
from deploy.stack import Stack
from schemas.codec import Framing, encode_telemetry
from schemas.records import Record
from schemas.topics import ALERTS, MODEL_EVENTS, SCORES, TELEMETRY, TOPICS, Topic
from scoring.traffic import Mode
from scoring.trial import Asked, Wish, started
from transport.catalog import CatalogFollower, write_traffic
from transport.kafka import (
    KafkaSettings,
    Outgoing,
    SchemaIds,
    ensure_topics,
    publish,
    read_to_end,
    register_schemas,
)
from transport.releases import publish_release

FreshStack = Callable[..., Stack]

VEHICLES = 200
PATIENCE_S = 120.0

pytestmark = pytest.mark.integration


def records(kafka: KafkaSettings, ids: SchemaIds, topic: Topic) -> list[Record]:
    return [
        decode_plain(topic.record, ids.id_of(topic), message.value())
        for messages in read_to_end(kafka, topic.name)
        for message in messages
    ]


def wait_for(condition: Callable[[], bool], facts: Callable[[], object]) -> float:
    """Seconds until it held."""
    began_s = time.monotonic()
    while not condition():
        assert time.monotonic() - began_s < PATIENCE_S, facts()
        time.sleep(0.2)
    return time.monotonic() - began_s


@contextmanager
def driving(kafka: KafkaSettings, ids: SchemaIds) -> Iterator[None]:
    """Each vehicle sends a normal reading about twice a second, for as long as the block lasts."""
    stop = threading.Event()
    rng = np.random.default_rng(1)
    names = [b"car-%03d" % number for number in range(VEHICLES)]
    began_ms = time.time_ns() // 1_000_000
    failed: list[BaseException] = []

    def drive() -> None:
        seq = 0
        while not stop.wait(0.5):
            seq += 1
            now_ms = time.time_ns() // 1_000_000
            values = MIDDLE + SPREAD * rng.standard_normal((VEHICLES, len(SIGNALS)))
            payloads = encode_telemetry(
                names,
                np.full(VEHICLES, 1, np.int64),
                np.full(VEHICLES, seq, np.int64),
                np.full(VEHICLES, 1, np.int64),
                np.full(VEHICLES, now_ms - began_ms, np.int64),
                np.ones(VEHICLES, np.bool_),
                np.ones(VEHICLES, np.int64),
                np.full(VEHICLES, now_ms, np.int64),
                values.astype(np.float32),
                signals=SIGNALS,
                framing=Framing.CONFLUENT,
                schema_id=ids.id_of(TELEMETRY),
            )
            sent = zip(names, payloads, strict=True)
            publish(kafka, [Outgoing(TELEMETRY.name, value, key) for key, value in sent])

    def guarded() -> None:
        try:
            drive()
        except BaseException as error:  # noqa: BLE001 - raised again below
            failed.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        assert not failed, failed


@contextmanager
def scoring(kafka: KafkaSettings) -> Iterator[None]:
    stop = threading.Event()
    settings = ScorerSettings(model="embedded:small", transactional_id="scorer-1")
    thread = threading.Thread(target=run, args=(settings, kafka), kwargs={"stop": stop})
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class Monitors:
    """Processes of `motorcade monitor`, and what they said."""

    def __init__(self, kafka: KafkaSettings, directory: Path) -> None:
        self._kafka = kafka
        self._directory = directory
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        with (self._directory / name).open("wb") as log:
            self._running[name] = subprocess.Popen(
                [
                    *(sys.executable, "-m", "motorcade", "monitor"),
                    *("--session-timeout-s", "6", "--interval-s", "0.5"),
                    *("--kafka-bootstrap-servers", self._kafka.bootstrap_servers),
                    *("--kafka-registry-url", self._kafka.registry_url),
                ],
                stderr=log,
                cwd=Path(__file__).parents[2],
            )

    def said(self) -> str:
        return "\n".join(f"{p.name}: {p.read_text()}" for p in sorted(self._directory.iterdir()))

    def leader(self) -> str | None:
        """Who said last that it acts, of those that run."""
        logs = {name: (self._directory / name).read_text() for name in self._running}
        return next((name for name, text in logs.items() if "monitoring" in text), None)

    def kill(self, name: str) -> None:
        process = self._running.pop(name)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            assert process.wait(60) == 0


def experiment_runs(kafka: KafkaSettings) -> bool:
    with CatalogFollower(kafka, ["small"]) as follower:
        return follower.read_to_end(30).traffic("small").experiment is not None


def test_a_bad_canary_goes_back_once_while_monitors_die(
    fresh_stack: FreshStack, tmp_path: Path
) -> None:
    """The canary's threshold is a thousandth of what it should be: each vehicle would alarm."""
    endpoints = fresh_stack().endpoints
    kafka = KafkaSettings(
        bootstrap_servers=endpoints.kafka_bootstrap, registry_url=endpoints.registry_url
    )
    ensure_topics(kafka, TOPICS)
    ids = register_schemas(kafka)
    for bundle in (small_bundle("bad", threshold=0.001), small_bundle("good")):
        publish_release(kafka, bundle)
    monitors = Monitors(kafka, tmp_path)
    with driving(kafka, ids), scoring(kafka):
        monitors.start("a")
        monitors.start("b")
        wait_for(lambda: monitors.leader() is not None, monitors.said)
        wait_for(lambda: len(records(kafka, ids, SCORES)) > VEHICLES, monitors.said)
        wish = Wish(
            "try",
            Mode.CANARY,
            (Asked("canary", "bad", 0.3),),
            "salt",
            time.time_ns() // 1_000_000,
            guards={"alert_ratio_max": 3.0},
        )
        write_traffic(kafka, "small", lambda c, t: started(c, t, wish), by="test", reason="a test")
        first = monitors.leader()
        assert first is not None
        monitors.kill(first)
        took_s = wait_for(lambda: not experiment_runs(kafka), monitors.said)
        print(f"rolled back after {took_s:.1f} s, the leading monitor killed at the start")
        monitors.start("c")
        survivor = "b" if first == "a" else "a"
        monitors.kill(survivor)
        wait_for(lambda: monitors.leader() == "c", monitors.said)
        # The third has read all back and decided some times.
        before = len(records(kafka, ids, SCORES))
        wait_for(lambda: len(records(kafka, ids, SCORES)) > before + 4 * VEHICLES, monitors.said)
        monitors.stop()
    told = [e for e in records(kafka, ids, MODEL_EVENTS) if e["experiment"] == "try"]
    kinds = [event["kind"] for event in told]
    assert kinds.count("rolled-back") == kinds.count("experiment-stopped") == 1, told
    alerts = [a for a in records(kafka, ids, ALERTS) if a["arm"] == "canary"]
    opened = [alert for alert in alerts if alert["state"] == "OPEN"]
    print(f"{len(opened)} alerts of about {0.3 * VEHICLES:g} vehicles of the canary")
    assert len(opened) < 0.2 * VEHICLES
    assert experiment_report(kafka, "small", MonitorSettings()) is None
