"""The Kafka door killed, rebalanced and cut off while it works: no request without a response."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
from door_ground import NAME, PATIENCE_S, Ground, running, wait_until
from serving_models import release, rows

from deploy.stack import Stack
from schemas.errors import TransientError
from schemas.requests import Envelope, encode_requests
from scoring.scorer import BatchScorer
from transport.kafka import KafkaSettings, Outgoing, latest_offsets, make_consumer

pytestmark = pytest.mark.integration

CHILD = Path(__file__).with_name("door_child.py")
ROOT = Path(__file__).parents[2]
DOWN_S = 30.0
BOTH = pytest.mark.parametrize("exactly_once", [False, True], ids=["acked", "transactions"])
FEATURES = rows(500)


@pytest.fixture
def ground(stack: Stack) -> Ground:
    ends = stack.endpoints
    return Ground.new(KafkaSettings(ends.kafka_bootstrap, ends.registry_url))


class Child:
    """A door process."""

    def __init__(self, ground: Ground, member: str, exactly_once: bool) -> None:
        self.requests = 0
        arguments = [str(CHILD), ground.to_json(), member, str(exactly_once)]
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.requests = int(line)

    def wait_for(self, requests: int) -> None:
        def answered() -> bool:
            assert self.process.poll() is None, "the door ended by itself"
            return self.requests >= requests

        wait_until(answered, lambda: self.requests)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.end()

    def stop(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        code = self.process.wait(PATIENCE_S)
        self.end()
        return code

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


@contextmanager
def child(ground: Ground, member: str, exactly_once: bool) -> Iterator[Child]:
    made = Child(ground, member, exactly_once)
    try:
        yield made
    finally:
        made.end()


def ask(ground: Ground, first: int, count: int) -> None:
    """Write requests for single rows, by keys in turn."""
    numbers = range(first, first + count)
    payloads = encode_requests(
        Envelope(NAME),
        correlation_ids=[b"%d" % number for number in numbers],
        vehicle_ids=[b""] * count,
        deadline_ms=np.zeros(count, np.int64),
        rows=np.ones(count, np.int64),
        values=FEATURES[[number % len(FEATURES) for number in numbers]],
        schema_id=ground.ids.id_of(ground.topics.requests),
    )
    ground.write(
        [
            Outgoing(ground.topics.requests.name, payload, b"car-%d" % (number % 50))
            for number, payload in zip(numbers, payloads, strict=True)
        ]
    )


def wait_until_done(ground: Ground) -> None:
    """Until the committed offsets have reached the end of each partition."""
    topic = ground.topics.requests
    ends = latest_offsets(ground.kafka, topic.name)
    places = [(topic.name, partition) for partition in ends]
    with make_consumer(ground.kafka, ground.settings().group_id) as consumer:

        def behind() -> int | None:
            try:
                found = consumer.committed(places)
            except TransientError:  # Kafka has just come back.
                return None
            return sum(ends.values()) - sum(offset or 0 for offset in found.values())

        wait_until(lambda: behind() == 0, behind)


def assert_answered(ground: Ground, count: int, *, exactly_once: bool) -> None:
    """Every request has a response, and the right one; only one where that was asked for."""
    scores = BatchScorer(release("1")).score(FEATURES)

    def visible() -> int:
        return len({record["correlation_id"] for record in ground.records(ground.topics.responses)})

    # What a dead replica left open hides what is behind it until the brokers abort it.
    wait_until(lambda: visible() >= count, visible)
    found: Counter[int] = Counter()
    for record in ground.records(ground.topics.responses):
        number = int(record["correlation_id"])
        found[number] += 1
        assert record["reason"] == ""
        np.testing.assert_array_equal(
            np.array(record["scores"], np.float32), scores[[number % len(scores)]]
        )
    assert set(found) == set(range(count))
    if exactly_once:
        assert found.total() == count
    assert ground.messages(ground.topics.dead_letters) == []


@BOTH
def test_killed_at_random_it_leaves_no_request_unanswered(
    ground: Ground, exactly_once: bool
) -> None:
    seed = int(os.environ.get("MOTORCADE_SEED", "7"))
    print(f"seed {seed}")
    rng = random.Random(seed)
    ask(ground, 0, 3_000)
    with child(ground, "member", exactly_once) as door:
        door.wait_for(rng.randrange(100, 600))
        door.kill()
    with child(ground, "member", exactly_once) as door:
        ask(ground, 3_000, 200)
        wait_until_done(ground)
        assert door.stop() == 0
    assert_answered(ground, 3_200, exactly_once=exactly_once)


@BOTH
def test_one_of_three_replicas_is_killed_and_another_leaves_in_mid_batch(
    ground: Ground, exactly_once: bool
) -> None:
    ask(ground, 0, 1_500)
    with ExitStack() as stack:
        one, two, three = (
            stack.enter_context(child(ground, member, exactly_once))
            for member in ("one", "two", "three")
        )
        asked = 1_500

        def each_has_some() -> bool:
            nonlocal asked
            ask(ground, asked, 100)
            asked += 100
            return bool(one.requests and two.requests and three.requests)

        wait_until(each_has_some, lambda: (one.requests, two.requests, three.requests))
        ask(ground, asked, 1_000)
        two.kill()
        ask(ground, asked + 1_000, 500)
        assert three.stop() == 0
        ask(ground, asked + 1_500, 500)
        wait_until_done(ground)
        assert one.stop() == 0
    assert_answered(ground, asked + 2_000, exactly_once=exactly_once)


def test_kafka_is_away_for_half_a_minute(fresh_stack: Callable[..., Stack]) -> None:
    """Both kinds of delivery at once, each with topics of its own."""
    stack = fresh_stack()
    ends = stack.endpoints
    kafka = KafkaSettings(ends.kafka_bootstrap, ends.registry_url)
    grounds = {exactly_once: Ground.new(kafka) for exactly_once in (False, True)}
    with ExitStack() as doors:
        running_doors = {
            exactly_once: doors.enter_context(
                running(each, exactly_once=exactly_once, poll_messages=15)
            )
            for exactly_once, each in grounds.items()
        }
        for exactly_once, ground in grounds.items():
            ask(ground, 0, 800)
            running_doors[exactly_once].wait_for(lambda stats: stats.requests > 50)
        stack.kill_part("kafka")
        time.sleep(DOWN_S)  # The outage itself, not a wait for anything.
        stack.start_part("kafka")
        for ground in grounds.values():
            ask(ground, 800, 300)
        for ground in grounds.values():
            wait_until_done(ground)
    for exactly_once, ground in grounds.items():
        assert_answered(ground, 1_100, exactly_once=exactly_once)
