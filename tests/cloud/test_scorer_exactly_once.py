"""The scorer against a real Kafka, killed and rebalanced while it works.

Also without transactions, where each message is answered at least once.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from scorer_fleet import Ground, drive, small_bundle

from deploy.stack import Stack
from transport.kafka import KafkaSettings, latest_offsets, make_consumer

pytestmark = pytest.mark.integration

CHILD = Path(__file__).with_name("scorer_child.py")
ROOT = Path(__file__).parents[2]
PATIENCE_S = 90.0


@pytest.fixture
def ground(stack: Stack) -> Ground:
    ends = stack.endpoints
    return Ground.new(KafkaSettings(ends.kafka_bootstrap, ends.registry_url))


class Child:
    """A scorer process."""

    def __init__(self, ground: Ground, member: str, poll_messages: int, *options: str) -> None:
        self.messages = 0
        self.process = subprocess.Popen(
            [
                sys.executable,
                str(CHILD),
                ground.to_json(),
                member,
                str(poll_messages),
                *options,
            ],
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
            self.messages = int(line)

    def wait_for(self, messages: int) -> None:
        until_s = time.monotonic() + PATIENCE_S
        while self.messages < messages:
            assert self.process.poll() is None, "the scorer ended by itself"
            assert time.monotonic() < until_s, f"{self.messages} of {messages} messages"
            time.sleep(0.002)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.end()

    def stop(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
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
def child(ground: Ground, member: str, poll_messages: int = 100, *options: str) -> Iterator[Child]:
    made = Child(ground, member, poll_messages, *options)
    try:
        yield made
    finally:
        made.end()


def committed(ground: Ground) -> int:
    """Offsets that the group has behind it, over all partitions."""
    topic = ground.topics.telemetry
    with make_consumer(ground.kafka, f"scorer-{ground.mark}") as consumer:
        found = consumer.committed([(topic.name, p) for p in range(topic.partitions)])
    return sum(offset or 0 for offset in found.values())


def wait_until_done(ground: Ground) -> None:
    """Until the committed offsets have reached the last record of each partition."""
    # Behind the last record of a partition stands the mark of its transaction.
    ends = latest_offsets(ground.kafka, ground.topics.telemetry.name)
    until_s = time.monotonic() + PATIENCE_S
    while committed(ground) < sum(ends.values()) - len(ends):
        assert time.monotonic() < until_s, "the scorer does not come to the end"
        time.sleep(0.1)


def assert_exactly_once(ground: Ground) -> None:
    expected = ground.expected(small_bundle())
    assert ground.scores() == expected.scores
    assert expected.alerts, "the drive should cause alerts"
    assert ground.alerts() == expected.alerts
    assert ground.held_alerts() == expected.opened


@pytest.mark.parametrize("seed", [11])
def test_killed_at_random_it_scores_each_message_once_and_to_the_bit(
    ground: Ground, seed: int
) -> None:
    records = drive(ground, vehicles=20, batches=500, seed=seed)
    ground.write(records)
    rng = random.Random(seed)
    print(f"seed {seed}")
    for _ in range(5):
        with child(ground, "member") as scorer:
            scorer.wait_for(rng.randrange(100, 1_500))
            time.sleep(rng.random() * 0.02)
            scorer.kill()
    with child(ground, "member") as scorer:
        wait_until_done(ground)
        assert scorer.stop() == 0
    assert_exactly_once(ground)


def test_a_second_member_joins_and_leaves_while_batches_are_under_way(ground: Ground) -> None:
    ground.write(drive(ground, vehicles=21, batches=400, seed=3))
    with child(ground, "one", 50) as one, child(ground, "two", 50) as two:
        one.wait_for(200)
        two.wait_for(200)
        assert two.stop() == 0
        wait_until_done(ground)
        assert one.stop() == 0
        assert one.messages
    assert_exactly_once(ground)


@pytest.mark.parametrize("seed", [12])
def test_without_transactions_each_message_is_scored_at_least_once_and_to_the_bit(
    ground: Ground, seed: int
) -> None:
    ground.write(drive(ground, vehicles=20, batches=300, seed=seed))
    rng = random.Random(seed)
    print(f"seed {seed}")
    for _ in range(3):
        with child(ground, "member", 100, "--at-least-once") as scorer:
            scorer.wait_for(rng.randrange(100, 1_500))
            scorer.kill()
    with child(ground, "member", 100, "--at-least-once") as scorer:
        wait_until_done(ground)
        assert scorer.stop() == 0
    expected = ground.expected(small_bundle())
    found = ground.scores()
    assert {at: sorted(set(scores)) for at, scores in found.items()} == {
        at: sorted(set(scores)) for at, scores in expected.scores.items()
    }
    assert set(ground.alerts()) == set(expected.alerts)
    assert ground.held_alerts() == expected.opened
