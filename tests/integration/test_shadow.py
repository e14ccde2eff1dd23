"""A shadow beside a real scorer: it scores its share, and lives and dies with its experiment."""

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from deploy.stack import Stack
from motorcade.demo_children import Child, Crew, settings_text
from schemas.codec import Framing, encode_telemetry
from schemas.records import Record, decode_confluent
from schemas.topics import (
    DEAD_LETTERS,
    SCORES,
    SHADOW_ALERTS,
    SHADOW_SCORES,
    TELEMETRY,
    Topic,
)
from scoring.bundle import Bundle
from scoring.traffic import CHAMPION, Arm, Experiment, Mode, Splitter, Traffic
from transport.catalog import write_traffic
from transport.kafka import (
    Outgoing,
    SchemaIds,
    ensure_topics,
    publish,
    read_to_end,
    register_schemas,
)
from transport.releases import publish_release
from transport.settings import KafkaSettings

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(420),
    pytest.mark.skipif(
        not Path("/proc/self").exists(), reason="not here: looks for processes in /proc"
    ),
]

SMALL = Path(__file__).resolve().parents[1] / "scoring" / "data" / "small.motorcade"
SIGNALS = ("speed", "engine_speed", "coolant_temperature", "map", "maf")
MIDDLE = np.array([50.0, 2000.0, 85.0, 100.0, 20.0])
VEHICLES = [b"car-%03d" % number for number in range(60)]
START_MS = 1_790_000_000_000
PATIENCE_S = 120.0


def bundle(version: str) -> Bundle:
    small = Bundle.load(SMALL)
    return Bundle(replace(small.manifest, name="anomaly", version=version), small.model)


@dataclass
class Fleet:
    """Sends a reading of each vehicle at a time, and counts."""

    kafka: KafkaSettings
    ids: SchemaIds
    sent: int = 0

    def drive(self, rounds: int) -> None:
        rng = np.random.default_rng(self.sent)
        for _ in range(rounds):
            self.sent += 1
            n = len(VEHICLES)
            times = np.full(n, START_MS + self.sent * 1000, np.int64)
            payloads = encode_telemetry(
                VEHICLES,
                np.full(n, 1, np.int64),
                np.full(n, self.sent, np.int64),
                np.full(n, 1, np.int64),
                np.full(n, self.sent * 1000, np.int64),
                np.ones(n, np.bool_),
                np.ones(n, np.int64),
                times,
                (MIDDLE * rng.normal(1.0, 0.01, (n, 5))).astype(np.float32),
                signals=SIGNALS,
                framing=Framing.CONFLUENT,
                schema_id=self.ids.id_of(TELEMETRY),
            )
            pairs = zip(VEHICLES, payloads, strict=True)
            publish(self.kafka, [Outgoing(TELEMETRY.name, value, key) for key, value in pairs])

    def records(self, topic: Topic) -> list[Record]:
        return [
            decode_confluent(topic.record, self.ids.id_of(topic), message.value() or b"")
            for messages in read_to_end(self.kafka, topic.name)
            for message in messages
        ]

    def seqs(self, topic: Topic) -> dict[bytes, list[int]]:
        """Numbers of the messages that were scored, by vehicle, sorted."""
        found: dict[bytes, list[int]] = {}
        for record in self.records(topic):
            found.setdefault(record["vehicle_id"].encode(), []).append(record["seq"])
        return {vehicle: sorted(numbers) for vehicle, numbers in found.items()}


def wait_until(what: str, condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until_s, what
        time.sleep(0.1)


def shadows() -> list[int]:
    """Processes that shadow a scorer of this stack."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
            state = path.with_name("stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if b"cloud.shadow" in words and words[0] == sys.executable.encode() and state != "Z":
            found.append(int(path.parent.name))
    return found


def started_by(parent: Child) -> list[int]:
    """Shadows whose parent that is."""

    def parent_of(pid: int) -> int:
        try:
            return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return -1

    return [pid for pid in shadows() if parent_of(pid) == parent.pid]


def direct(kafka: KafkaSettings, experiment: Experiment | None) -> None:
    def change(_: object, traffic: Traffic) -> Traffic:
        return replace(traffic.with_alias(CHAMPION, "1"), experiment=experiment)

    write_traffic(kafka, "anomaly", change, by="test", reason="to see it")


def test_a_shadow_scores_its_share_and_ends_with_its_experiment_or_its_scorer(
    fresh_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    ends = fresh_stack().endpoints
    kafka = KafkaSettings(ends.kafka_bootstrap, ends.registry_url)
    ensure_topics(kafka)
    fleet = Fleet(kafka, register_schemas(kafka))
    for version in ("1", "2"):
        publish_release(kafka, bundle(version))
    experiment = Experiment("trial", Mode.SHADOW, "pepper", 0, (Arm("new", "2", 0.4),))
    experiment = replace(experiment, started_time_ms=time.time_ns() // 1_000_000)
    splitter = Splitter(experiment)
    share = {v for v, arm in zip(VEHICLES, splitter.choose(VEHICLES), strict=True) if arm == 0}
    settings = tmp_path / "motorcade.toml"
    sections: dict[str, dict[str, object]] = {
        "kafka": {
            "bootstrap_servers": kafka.bootstrap_servers,
            "registry_url": kafka.registry_url,
        },
        "scorer": {"session_timeout_s": 6.0, "transactional_id": "one", "backoff_max_s": 1.0},
    }
    settings.write_text(settings_text(sections), "utf-8")
    direct(kafka, None)
    fleet.drive(5)
    with Crew(tmp_path) as crew:
        scorer = crew.start("scorer", ["--config", str(settings), "score", "--progress"])
        wait_until("champion scores", lambda: len(fleet.records(SCORES)) == 5 * len(VEHICLES))
        assert started_by(scorer) == []

        direct(kafka, experiment)
        # What came before the shadow was there is none of its business.
        wait_until(
            "a shadow", lambda: "shadow of experiment trial: scoring" in scorer.log.read_text()
        )
        (pid,) = started_by(scorer)
        assert os.getpriority(os.PRIO_PROCESS, pid) == 19
        wait_for_scores_of_shadow(fleet, share)
        first = {vehicle: its[0] for vehicle, its in fleet.seqs(SHADOW_SCORES).items()}
        assert min(first.values()) > 5

        os.kill(pid, signal.SIGKILL)
        wait_until(
            "another shadow", lambda: bool(started_by(scorer)) and started_by(scorer) != [pid]
        )
        fleet.drive(5)
        wait_until("the shadow goes on", lambda: is_complete(fleet, share))

        scorer.kill()
        wait_until("no shadow without its scorer", lambda: not alive_of(fleet))
        crew.restart("scorer")
        wait_until("a shadow again", lambda: len(started_by(scorer)) == 1)
        fleet.drive(5)
        wait_until("the shadow goes on after its scorer", lambda: is_complete(fleet, share))
        wait_until("champion", lambda: len(fleet.records(SCORES)) == fleet.sent * len(VEHICLES))

        direct(kafka, None)
        wait_until("no shadow without its experiment", lambda: started_by(scorer) == [])
        assert scorer.running
        assert scorer.stop()
    assert {record["arm"] for record in fleet.records(SCORES)} == {CHAMPION}
    assert {record["model_version"] for record in fleet.records(SCORES)} == {"1"}
    shadowed = fleet.records(SHADOW_SCORES)
    assert {(record["arm"], record["model_version"]) for record in shadowed} == {("new", "2")}
    assert set(fleet.seqs(SHADOW_SCORES)) == share
    # Two models of the same bits give the same scores, each in its own way.
    champions = {(r["vehicle_id"], r["seq"]): r["scores"] for r in fleet.records(SCORES)}
    assert all(champions[r["vehicle_id"], r["seq"]] == r["scores"] for r in shadowed)
    assert fleet.records(DEAD_LETTERS) == []
    assert fleet.records(SHADOW_ALERTS) == []


def wait_for_scores_of_shadow(fleet: Fleet, share: set[bytes]) -> None:
    """Drive until the shadow has scored each of its vehicles."""
    until_s = time.monotonic() + PATIENCE_S
    while set(fleet.seqs(SHADOW_SCORES)) != share:
        assert time.monotonic() < until_s, "the shadow scores nothing"
        fleet.drive(1)
    wait_until("all of it", lambda: is_complete(fleet, share))


def is_complete(fleet: Fleet, share: set[bytes]) -> bool:
    """Whether each vehicle of the share is scored to its last message, each once, without gap."""
    found = fleet.seqs(SHADOW_SCORES)
    return set(found) == share and all(
        its == list(range(its[0], fleet.sent + 1)) for its in found.values()
    )


def alive_of(fleet: Fleet) -> list[int]:
    """Shadows, whoever started them, that talk to this fleet's Kafka."""
    address = fleet.kafka.bootstrap_servers
    assert address
    return [pid for pid in shadows() if connects_to(pid, int(address.rpartition(":")[2]))]


def connects_to(pid: int, port: int) -> bool:
    """Whether a process has a connection to a local port."""
    inodes = set()
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            target = str(link.readlink())
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
        lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    except OSError:
        return False
    rows = [line.split() for line in lines]
    return any(row[9] in inodes and int(row[2].rpartition(":")[2], 16) == port for row in rows)
