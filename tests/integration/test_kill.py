"""kill -9 of gateway, scorer, Kafka and MQTT broker at random while a fleet drives.

Afterwards every measured reading is in Kafka and scored exactly once, and every alert is there
once: the edge's and the cloud's, which saw the same stream, must be the same alerts.
MOTORCADE_SEED repeats a run's choices.
"""

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from cloud.audit import tally
from cloud.audit_reader import Found, read_found
from deploy.stack import Stack
from motorcade.demo_children import Crew, settings_text
from motorcade.demo_count import fleet_of
from schemas.records import Record
from scoring.bundle import Bundle, PolicySettings
from simulator.ledger import Ledger
from transport.kafka import ensure_topics, register_schemas
from transport.releases import publish_release
from transport.settings import KafkaSettings

KILLS = 20
PARTS = ("gateway", "scorer", "kafka", "mqtt")
SMALL = Path(__file__).resolve().parents[1] / "scoring" / "data" / "small.motorcade"
SETTLE_TIMEOUT_S = 120.0

pytestmark = [pytest.mark.integration, pytest.mark.timeout(420)]


def nervous_bundle() -> Bundle:
    """A model that alerts often, so that there is much to lose and to repeat."""
    small = Bundle.load(SMALL)
    policy = PolicySettings(k=2, n=3, close_k=0, close_ratio=0.9)
    manifest = replace(small.manifest, name="anomaly", threshold=4.0, policy=policy)
    return Bundle(manifest, small.model)


@dataclass
class Scene:
    """All that runs."""

    stack: Stack
    crew: Crew
    kafka: KafkaSettings
    settings: Path

    def start(self, name: str, *arguments: str) -> None:
        self.crew.start(name, ["--config", str(self.settings), *arguments, "--progress"])

    def kill(self, part: str) -> None:
        self.assert_alive()
        if part in ("kafka", "mqtt"):
            self.stack.kill_part(part)
        else:
            self.crew.children[part].kill()

    def assert_alive(self) -> None:
        """What was not killed must not end, whatever else was."""
        for child in self.crew.children.values():
            assert child.running, f"{child.name} ended with {child.status}:\n{child.tail()}"

    def revive(self, part: str) -> None:
        if part in ("kafka", "mqtt"):
            self.stack.start_part(part)
        else:
            self.crew.restart(part)


def scene(stack: Stack, crew: Crew) -> Scene:
    ends = stack.endpoints
    kafka = KafkaSettings(bootstrap_servers=ends.kafka_bootstrap, registry_url=ends.registry_url)
    directory = crew.directory
    settings = directory / "motorcade.toml"
    sections: dict[str, dict[str, object]] = {
        "kafka": {
            "bootstrap_servers": kafka.bootstrap_servers,
            "registry_url": kafka.registry_url,
        },
        "mqtt": {"host": ends.mqtt_host, "port": ends.mqtt_port, "backoff_max_s": 2.0},
        "gateway": {
            "gateway_id": "kill-gateway",
            # Edge and cloud alert alike on the same order. On a machine so slow that an outage
            # outlasts this, live data would overtake, and the cloud see the rest as late.
            "backlog_after_s": 600.0,
            "spool_path": directory / "gateway" / "spool",
            "models_path": directory / "gateway" / "models",
            "control_path": directory / "gateway" / "c",
        },
        # The least that Kafka takes: a killed scorer's open transaction and its place in the
        # group hold its successor up for so long.
        "scorer": {
            "backoff_max_s": 1.0,
            "session_timeout_s": 6.0,
            "transactional_id": "kill-scorer",
        },
        "simulator": {
            "vehicles": 30,
            "rate_hz": 2.0,
            "readings_per_message": 2,
            "fault_share": 0.3,
            "ack_timeout_s": 2.0,
            # Duplicates, reordering, reboots and clocks that jump, all at once with the kills.
            "disturb": True,
            "seed": 1,
            "drain_timeout_s": 90.0,
            "ledger": directory / "ledger.json",
        },
    }
    settings.write_text(settings_text(sections), "utf-8")
    return Scene(stack, crew, kafka, settings)


def wait_until(what: str, condition: Callable[[], bool], timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not in {timeout_s:.0f} s: {what}"
        time.sleep(0.2)


def kill_at_random(running: Scene, rng: random.Random) -> None:
    """Each part equally often, in random order, the next kill often before the last has healed."""
    order = [PARTS[number % len(PARTS)] for number in range(KILLS)]
    rng.shuffle(order)
    for number, part in enumerate(order):
        time.sleep(rng.uniform(0.2, 3.0))
        down_s = rng.uniform(0.0, 1.0)
        print(f"kill {number + 1}: {part}, down for {down_s:.1f} s", flush=True)
        running.kill(part)
        if number == KILLS // 4:
            running.crew.children["simulator"].signal(signal.SIGUSR1)
        time.sleep(down_s)
        running.revive(part)


def alerts_of(found: Found, origin: str) -> set[tuple[object, ...]]:
    """Alerts of an origin by what decided, and their state."""
    return {
        (*identity(alert), alert["state"])
        for alert in found.alerts.unique
        if alert["origin"] == origin
    }


def identity(alert: Record) -> tuple[object, ...]:
    return tuple(alert[key] for key in ("vehicle_id", "boot_id", "seq", "reading_index", "code"))


def test_whatever_is_killed_everything_arrives_once(
    fresh_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    seed = int(os.environ.get("MOTORCADE_SEED") or random.SystemRandom().randrange(1 << 31))
    print(f"MOTORCADE_SEED={seed}")
    directory = tmp_path / "crew"
    directory.mkdir()
    stack = fresh_stack()
    with Crew(directory) as crew:
        running = scene(stack, crew)
        ensure_topics(running.kafka)
        register_schemas(running.kafka)
        publish_release(running.kafka, nervous_bundle())
        running.start("gateway", "gateway", "run")
        running.start("scorer", "score")
        gateway = crew.children["gateway"]
        # The edge scores from the model on; it must have it before the first reading.
        wait_until("the gateway has the model", lambda: said(gateway, "model_version"), 60)
        running.start("simulator", "simulate")
        simulator = crew.children["simulator"]
        wait_until("readings arrive", lambda: said(simulator, "acknowledged"), 60)
        kill_at_random(running, random.Random(seed))
        simulator.signal(signal.SIGUSR2)
        assert simulator.wait(120), f"seed {seed}: the fleet still holds readings"
        assert simulator.status == 0, simulator.tail()
        del crew.children["simulator"]
        ledger = Ledger.load(directory / "ledger.json")
        found = settled(running, ledger)
        crew.stop()
    assert_all_there_once(ledger, found, f"MOTORCADE_SEED={seed}")


def said(child: object, key: str) -> bool:
    """Whether a child's progress has a value for the key by now."""
    return any(line.get(key) for line in child.progress())  # type: ignore[attr-defined]


def settled(running: Scene, ledger: Ledger) -> Found:
    """What Kafka holds once nothing more is to come, or after SETTLE_TIMEOUT_S."""
    boots = fleet_of(ledger).boots
    deadline_s = time.monotonic() + SETTLE_TIMEOUT_S
    while True:
        found = read_found(running.kafka)
        telemetry, scores = tally(boots, found.telemetry), tally(boots, found.scores)
        done = telemetry.lost_readings == 0 and scores.lost_readings == 0
        same = alerts_of(found, "EDGE") == alerts_of(found, "CLOUD")
        if (done and same) or time.monotonic() > deadline_s:
            return found
        running.assert_alive()
        time.sleep(1.0)


def assert_all_there_once(ledger: Ledger, found: Found, seed: str) -> None:
    boots = fleet_of(ledger).boots
    assert ledger.measured == ledger.acknowledged > 0, seed
    assert ledger.dropped == 0, seed
    for log in (found.telemetry, found.scores):
        told = tally(boots, log)
        assert told.readings == ledger.measured, f"{seed} {told}"
        assert told.lost_readings == told.lost_messages == 0, f"{seed} {told}"
        assert told.duplicate_messages == 0, f"{seed} {told}"
    assert not found.dead_letters, f"{seed} {found.dead_letters}"
    assert found.alerts.duplicates == 0, seed
    edge, cloud = alerts_of(found, "EDGE"), alerts_of(found, "CLOUD")
    assert len(edge) > 10, seed
    print(f"{ledger.measured} readings, {ledger.resent} batches sent again, {len(edge)} alerts")
    assert edge == cloud, f"{seed} edge alone {edge - cloud}, cloud alone {cloud - edge}"
    assert ledger.faults, seed
