"""Experiments on a running scorer against a real Kafka: begun, ended, killed, gone wrong."""

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
from experiment_fleet import arm_of, challenger, expected_of, models_of, traffic_of, without
from scorer_fleet import Ground, Models, bits, drive, small_bundle, wait_until
from scorer_thread import Running, running

from deploy.stack import Stack
from schemas.records import Record
from scoring.traffic import CHAMPION, Guards, Mode, Traffic
from transport.kafka import KafkaSettings

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
CHILD = Path(__file__).with_name("experiment_child.py")
PATIENCE_S = 90.0


@pytest.fixture
def ground(stack: Stack) -> Ground:
    ends = stack.endpoints
    return Ground.new(KafkaSettings(ends.kafka_bootstrap, ends.registry_url))


def score_records(ground: Ground) -> list[Record]:
    return [record for _, _, record in ground.records(ground.topics.scores) if record]


def alert_records(ground: Ground) -> list[Record]:
    return [record for _, _, record in ground.records(ground.topics.alerts) if record]


def wait_for_arms(scorer: Running, arms: dict[str, str]) -> None:
    scorer.wait_for(lambda stats: stats.model_version == "1" and stats.arms == arms)


def wait_for_messages(scorer: Running, messages: int) -> None:
    scorer.wait_for(lambda stats: stats.messages == messages)


def wait_for_remark(scorer: Running, version: str, remark: str) -> None:
    scorer.wait_for(lambda stats: (stats.model_version, stats.remark) == (version, remark))


def test_an_experiment_begins_and_ends_on_a_running_scorer_without_loss_or_repetition(
    ground: Ground,
) -> None:
    records = drive(ground, vehicles=12, batches=150)
    third = len(records) // 3
    traffic = traffic_of(0.5)
    models = models_of(without(traffic))
    with running(ground, models) as scorer:
        for number, directed in enumerate([without(traffic), traffic, without(traffic)]):
            models.direct(directed)
            wait_for_arms(scorer, {"new": "2"} if directed.experiment else {})
            ground.write(records[number * third : (number + 1) * third])
            wait_for_messages(scorer, (number + 1) * third)
        assert scorer.stats.rebuilds == 3
    old = ground.expected(small_bundle("1")).scores
    new = ground.expected(challenger()).scores
    found = score_records(ground)
    assert len(found) == len(records)
    answered = {(each["input_partition"], each["input_offset"]) for each in found}
    assert answered == set(old)
    phases: set[str] = set()
    for each in found:
        at = each["input_partition"], each["input_offset"]
        in_experiment = each["arm"] == "new"
        phases.add(each["arm"])
        assert each["model_version"] == ("2" if in_experiment else "1")
        assert each["model_sha256"] == challenger().sha256
        assert bits(each["scores"]) == (new if in_experiment else old)[at][0]
        if in_experiment:
            assert arm_of(traffic, each["vehicle_id"]) == "new"
    assert phases == {CHAMPION, "new"}
    assert_opened_and_closed_by_turns(ground)


def assert_opened_and_closed_by_turns(ground: Ground) -> None:
    states: dict[str, list[str]] = {}
    for each in alert_records(ground):
        states.setdefault(each["alert_id"], []).append(each["state"])
    assert states
    assert all(its in (["OPEN"], ["OPEN", "CLOSED"]) for its in states.values())
    still = {alert_id for alert_id, its in states.items() if its == ["OPEN"]}
    assert ground.held_alerts() == still


class Child:
    """A scorer process."""

    def __init__(self, ground: Ground, member: str, weight: float) -> None:
        self.messages = 0
        self.process = subprocess.Popen(
            [sys.executable, str(CHILD), ground.to_json(), member, str(weight)],
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

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


@contextmanager
def child(ground: Ground, member: str, weight: float) -> Iterator[Child]:
    made = Child(ground, member, weight)
    try:
        yield made
    finally:
        made.end()


def test_killed_three_times_in_an_experiment_no_car_changes_arm_and_scores_are_the_same_bits(
    ground: Ground,
) -> None:
    traffic = traffic_of(0.3)
    records = drive(ground, vehicles=120, batches=60, seed=21)
    ground.write(records)
    rng = random.Random(21)
    print("seed 21")
    for _ in range(3):
        with child(ground, "member", 0.3) as scorer:
            scorer.wait_for(rng.randrange(100, 1_500))
            scorer.kill()
    with running(ground, models_of(traffic), "other") as last:
        wait_until(lambda: len(ground.scores()) == len(records), lambda: last.stats)
    expected = expected_of(ground, traffic)
    assert ground.scores() == expected.scores
    assert expected.alerts
    assert ground.alerts() == expected.alerts
    assert ground.held_alerts() == expected.opened
    arms: dict[str, set[str]] = {}
    for each in score_records(ground):
        arms.setdefault(each["vehicle_id"], set()).add(each["arm"])
    assert {vehicle: {arm_of(traffic, vehicle)} for vehicle in arms} == arms
    assert {arm for its in arms.values() for arm in its} == {CHAMPION, "new"}


def test_a_bad_canary_is_tripped_told_once_and_its_alerts_close(ground: Ground) -> None:
    started_ms = time.time_ns() // 1_000_000 - 1000
    traffic = traffic_of(0.2, mode=Mode.CANARY, guards=Guards(), started_time_ms=started_ms)
    bad = challenger(threshold=1e-6)
    # The fleet is sound in the first quarter of the drive.
    records = drive(ground, vehicles=200, batches=80)[: 200 * 20]
    half = len(records) // 2
    ground.write(records[:half])
    with running(ground, models_of(traffic, bad)) as scorer:
        scorer.wait_for(lambda stats: stats.messages == half and "tripped" in stats.remark)
        assert scorer.stats.alerts_held > 0
        ground.write(records[half : half + half // 2])
        scorer.wait_for(lambda stats: stats.messages == half + half // 2)
    # A scorer that starts now knows it from the log.
    with running(ground, models_of(traffic, bad), "two") as scorer:
        ground.write(records[half + half // 2 :])
        scorer.wait_for(lambda stats: stats.messages == half // 2)
        assert "tripped" in scorer.stats.remark
        assert scorer.stats.alerts_held == 0
    alerts = alert_records(ground)
    opened = [each for each in alerts if each["state"] == "OPEN"]
    assert 0 < len(opened) <= 10
    assert {each["arm"] for each in opened} == {"new"}
    assert ground.held_alerts() == set()
    closed = [each for each in alerts if each["state"] == "CLOSED"]
    assert {each["arm"] for each in closed} == {CHAMPION}
    (event,) = [record for _, _, record in ground.records(ground.topics.events) if record]
    assert (event["kind"], event["arm"], event["experiment"]) == ("guard-tripped", "new", "trial")
    assert event["severity"] == "CRITICAL"
    assert event["values"]["alerts"] == len(opened) + 1
    assert len(score_records(ground)) == len(records)
    last = {each["vehicle_id"]: each["arm"] for each in score_records(ground)[-200:]}
    assert set(last.values()) == {CHAMPION}


def test_what_is_wanted_and_not_there_is_said_and_what_runs_goes_on(ground: Ground) -> None:
    records = drive(ground, vehicles=4, batches=40)
    quarter = len(records) // 4
    models = Models(small_bundle("1"), traffic=Traffic("small", 1, {CHAMPION: "1"}))
    with running(ground, models) as scorer:
        ground.write(records[:quarter])
        wait_for_messages(scorer, quarter)
        models.delete("1")
        wait_for_remark(scorer, "1", "release 1 of small is gone; it goes on for now")
        ground.write(records[quarter : 2 * quarter])
        wait_for_messages(scorer, 2 * quarter)
        models.direct(Traffic("small", 2, {CHAMPION: "7"}))
        missing = "there is no usable release for champion 7 of small; 1 goes on"
        wait_for_remark(scorer, "1", missing)
        ground.write(records[2 * quarter : 3 * quarter])
        wait_for_messages(scorer, 3 * quarter)
        models.release(small_bundle("7"))
        wait_for_remark(scorer, "7", "")
        ground.write(records[3 * quarter :])
        wait_for_messages(scorer, 4 * quarter)
    versions = [each["model_version"] for each in score_records(ground)]
    assert versions.count("7") == quarter
    assert versions.count("1") == 3 * quarter
