"""`motorcade experiments` and `motorcade models replay` against a real Kafka."""

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.stack import Stack
from motorcade.cli import run
from schemas.codec import Framing, encode_telemetry
from schemas.records import encode_confluent
from schemas.topics import LABELS, MODEL_STATS, TELEMETRY
from scoring.bundle import Bundle
from scoring.stats import ArmKey, ArmWindow, Tally
from transport.kafka import Outgoing, ensure_topics, publish, register_schemas
from transport.releases import publish_release
from transport.settings import KafkaSettings

pytestmark = pytest.mark.integration

SMALL = Path(__file__).parents[1] / "scoring" / "data" / "small.motorcade"
SIGNALS = ("speed", "engine_speed", "coolant_temperature", "map", "maf")
MIDDLE = np.array([50.0, 2000.0, 85.0, 100.0, 20.0])
HOT = np.array([50.0, 9000.0, 200.0, 450.0, 500.0])

Told = Callable[..., str]


@pytest.fixture
def kafka(stack: Stack) -> KafkaSettings:
    ends = stack.endpoints
    found = KafkaSettings(ends.kafka_bootstrap, ends.registry_url)
    ensure_topics(found)
    return found


@pytest.fixture
def told(
    kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Told:
    """Runs a command and gives what it printed."""
    monkeypatch.setenv("MOTORCADE_KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap_servers)
    monkeypatch.setenv("MOTORCADE_KAFKA_REGISTRY_URL", kafka.registry_url)

    def call(*words: str, status: int = 0) -> str:
        found = run(list(words))
        out, err = capsys.readouterr()
        assert found == status, out + err
        return out if status == 0 else err

    return call


def bundle(name: str, version: str, **changes: Any) -> Bundle:
    small = Bundle.load(SMALL)
    return Bundle(replace(small.manifest, name=name, version=version, **changes), small.model)


def counted(name: str, arm: str, version: str, alerts: int) -> ArmWindow:
    """Statistics as a scorer writes them: 10 vehicles, a reading a second, for a minute."""
    tally = Tally(bundle(name, version))
    tally.scores(np.full(600, 0.5, np.float32))
    tally.vehicles(np.arange(10))
    tally.add(alerts_opened=alerts)
    start_ms = time.time_ns() // 1_000_000
    key = ArmKey("scorer", "one", "embedded", name, version, arm)
    return ArmWindow(key, start_ms, start_ms + 60_000, tally.close())


def test_an_experiment_from_start_to_promotion(kafka: KafkaSettings, told: Told) -> None:
    name = f"m-{uuid.uuid4().hex[:8]}"
    for version in ("1", "2"):
        publish_release(kafka, bundle(name, version))
    told("models", "promote", f"{name}@1")
    words = ("experiments", "start", "trial", "--name", name)
    text = told(*words, "--mode", "canary", "--arm", "new=2:10%", "--guard", "min_alerts=7")
    assert "canary: champion 1 90 %, new 2 10 %" in text
    assert "stop it first" in told(*words, "--mode", "ab", "--arm", "b=2:0.5", status=1)
    assert f"{name}  trial" in told("experiments", "list")
    assert "new 2 25 %" in told("experiments", "set-weight", "new=0.25", "--name", name)

    ids = register_schemas(kafka, [MODEL_STATS])
    windows = counted(name, "champion", "1", 0), counted(name, "new", "2", 3)
    schema_id = ids.id_of(MODEL_STATS)
    publish(
        kafka,
        [
            Outgoing(MODEL_STATS.name, encode_confluent("ModelStats", schema_id, w.to_record()))
            for w in windows
        ],
    )
    facts = json.loads(told("experiments", "status", "--name", name, "--json"))
    assert (facts["experiment"], facts["mode"]) == ("trial", "CANARY")
    assert facts["guards"]["min_alerts"] == 7
    by_arm = {arm["arm"]: arm for arm in facts["arms"]}
    assert (by_arm["new"]["weight"], by_arm["champion"]["weight"]) == (0.25, 0.75)
    assert (by_arm["new"]["alerts_opened"], by_arm["champion"]["alerts_opened"]) == (3, 0)
    assert by_arm["new"]["vehicles"] == 10
    assert by_arm["new"]["alerts_per_vehicle_hour"] == pytest.approx(18.0)
    assert 0 < by_arm["new"]["p_value"] <= 1
    assert [e["kind"] for e in facts["events"]] == ["experiment-started", "experiment-changed"]
    text = told("experiments", "status", "--name", name)
    assert "experiment trial of" in text
    assert "experiment-changed" in text

    assert "has no arm" in told("experiments", "stop", "--promote", "x", "--name", name, status=1)
    assert "2 is champion" in told("experiments", "stop", "--promote", "new", "--name", name)
    assert "no running experiment" in told("experiments", "status", "--name", name, status=1)
    assert name not in told("experiments", "list")


def test_a_version_that_is_not_there_begins_nothing(kafka: KafkaSettings, told: Told) -> None:
    name = f"m-{uuid.uuid4().hex[:8]}"
    publish_release(kafka, bundle(name, "1"))
    words = ("experiments", "start", "trial", "--name", name, "--mode", "shadow")
    assert "unknown-model" in told(*words, "--arm", "new=2:10%", status=5)
    assert "malformed" in told(*words, "--arm", "new", status=5)
    assert "malformed" in told(*words, "--arm", "new=1:5%", "--guard", "x", status=5)


def drive(kafka: KafkaSettings, fleet: str) -> None:
    """Six vehicles for two minutes, a reading a second; the first one hot in between."""
    ids = register_schemas(kafka, [TELEMETRY, LABELS])
    rng = np.random.default_rng(8)
    vehicles = [f"{fleet}-{number}".encode() for number in range(6)]
    n, start_ms = len(vehicles), time.time_ns() // 1_000_000
    records: list[Outgoing] = []
    for second in range(120):
        values = MIDDLE * rng.normal(1.0, 0.01, (n, 5))
        if 40 <= second < 80:
            values[0] = HOT
        payloads = encode_telemetry(
            vehicles,
            np.ones(n, np.int64),
            np.full(n, second + 1, np.int64),
            np.ones(n, np.int64),
            np.full(n, second * 1000, np.int64),
            np.ones(n, np.bool_),
            np.ones(n, np.int64),
            np.full(n, start_ms + second * 1000, np.int64),
            values.astype(np.float32),
            signals=SIGNALS,
            framing=Framing.CONFLUENT,
            schema_id=ids.id_of(TELEMETRY),
        )
        pairs = zip(vehicles, payloads, strict=True)
        records += [Outgoing(TELEMETRY.name, value, key) for key, value in pairs]
    label = {
        "vehicle_id": vehicles[0].decode(),
        "label": "overheating",
        "signal": None,
        "start_time": start_ms + 40_000,
        "end_time": start_ms + 80_000,
        "severity": 1.0,
        "source": "test",
    }
    value = encode_confluent("VehicleLabel", ids.id_of(LABELS), label)
    publish(kafka, [*records, Outgoing(LABELS.name, value, vehicles[0])])


def test_a_replay_says_what_would_change(kafka: KafkaSettings, told: Told) -> None:
    name = f"m-{uuid.uuid4().hex[:8]}"
    publish_release(kafka, bundle(name, "1"))
    publish_release(kafka, bundle(name, "deaf", threshold=1e6))
    told("models", "promote", f"{name}@1")
    since = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    drive(kafka, name)
    words = ("models", "replay", "deaf", "--name", name, "--since", since)
    facts = json.loads(told(*words, "--json"))
    # Other tests may have written in the same second, but nobody else about this vehicle.
    gone = [alarm for alarm in facts["only_old"] if alarm["vehicle_id"] == f"{name}-0"]
    assert len(gone) == 1
    assert gone[0]["closed_ms"] > gone[0]["opened_ms"]
    assert facts["alerts"]["only_new"] == facts["new"]["alerts"] == 0
    assert facts["stretch"]["messages"] >= 6 * 120
    assert facts["old"]["readings"] == facts["new"]["readings"] >= 6 * 120
    assert facts["labelled_events"] >= 1
    assert facts["old"]["events_found"] >= 1
    assert facts["new"]["events_missed"] == facts["labelled_events"]
    assert "would go" in told(*words)
    itself = json.loads(told("models", "replay", f"{name}@1", "--since", since, "--json"))
    assert itself["alerts"]["only_old"] == itself["alerts"]["only_new"] == 0
    assert itself["alerts"]["common"] >= 1
    assert "no alias or version 'nobody'" in told(
        "models", "replay", "nobody", "--name", name, "--since", "1h", status=5
    )
