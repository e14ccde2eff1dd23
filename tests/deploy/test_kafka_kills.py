"""Kafka shows every acknowledged transaction again, whenever it was killed and however often.

MOTORCADE_SEED repeats a run's moments.
"""

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from kafka_clients import create_topics, read, write
from kafka_store import forget_markers

from deploy.kafka import Kafka
from deploy.stack import Stack
from schemas.errors import SettingsError, TransientError

KILLS = 4
LATEST_KILL_S = 4.0
TOPICS = ("kept-a", "kept-b", "kept-c")
TAKEN_FOR_DELETED = "these partitions are likely deleted already"

pytestmark = pytest.mark.integration


def test_what_was_acknowledged_is_seen_after_every_kill_9(
    tmp_path: Path, java_artifacts: None
) -> None:
    seed = int(os.environ.get("MOTORCADE_SEED") or random.SystemRandom().randrange(1 << 31))
    print(f"MOTORCADE_SEED={seed}")
    rng = random.Random(seed)
    stack = Stack(tmp_path)
    try:
        stack.start_part("kafka")
        create_topics(stack.endpoints, *TOPICS)
        kill_and_read(stack, rng)
    finally:
        stack.stop()
    # Whether that costs the markers is a race; that Kafka takes what is there for deleted is not.
    assert TAKEN_FOR_DELETED not in (tmp_path / "kafka" / "kafka.log").read_text("utf-8")


def kill_and_read(stack: Stack, rng: random.Random) -> None:
    ends = stack.endpoints
    written: list[bytes] = []
    for kill in range(KILLS):
        values = [b"%d-%d" % (kill, number) for number in range(200)]
        # Another id each time: of another producer, and mostly of another coordinator partition.
        write(ends, TOPICS, values, f"writer-{kill}")
        written += values
        stack.kill_part("kafka")
        forget_markers(stack.directory / "kafka" / "data", TOPICS, f"writer-{kill}")
        if kill % 2:
            kill_while_starting(stack, rng.uniform(0.0, LATEST_KILL_S))
        stack.start_part("kafka")
        for topic in TOPICS:
            assert read(ends, topic, len(written)) == written, f"{topic}, kill {kill}"


def kill_while_starting(stack: Stack, after_s: float) -> None:
    """Kill Kafka some time after its start has begun; on a quick machine it may serve by then."""
    print(f"killed again after {after_s:.1f} s")
    with ThreadPoolExecutor(1) as starter:
        start = starter.submit(stack.start_part, "kafka")
        time.sleep(after_s)
        stack.kill_part("kafka")
        error = start.exception()
    stack.kill_part("kafka")
    assert error is None or "ended while starting" in str(error), error
    assert isinstance(error, TransientError | None)


def test_a_store_of_a_newer_kafka_is_refused_and_said(tmp_path: Path, java_artifacts: None) -> None:
    kafka = Kafka(tmp_path / "kafka", 9092, 9093)
    kafka.prepare()
    kafka.prepare()
    version = kafka.directory / "version"
    version.write_text("99.0.0\n")
    with pytest.raises(SettingsError, match=r"written by Apache Kafka 99\.0\.0.*begin anew"):
        kafka.prepare()
    version.unlink()
    with pytest.raises(SettingsError, match=r"written by Apache Kafka 4\.4\.0.*begin anew"):
        kafka.prepare()
