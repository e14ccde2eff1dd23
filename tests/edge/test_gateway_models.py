"""Models that come to a running gateway: bad ones, a storm, a cut in the middle; MQTT is real."""

import json
import socket
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import bad_models
import pytest
from edge_parts import FAULTY, Fleet, GatewayProcess, bundle, in_kafka, running, until

from deploy.stack import Stack
from edge.control_client import ask
from edge.models import ModelStore
from schemas.errors import ContractError, Reason
from schemas.records import Record, decode_single_object
from schemas.topics import DEAD_LETTERS, GATEWAY_STATUS, MODEL_EVENTS, TOPICS, Topic
from scoring.bounds import Bounds
from scoring.bundle import Bundle, FeatureSpec, PolicySettings
from scoring.signing import SigningKey, trust
from transport.kafka import ensure_topics
from transport.releases import publish_release
from transport.settings import KafkaSettings, MqttSettings

pytestmark = pytest.mark.integration

KEY = SigningKey.generate()
NEARLY = {"speed": 51.0}
"""A tenth of a standard deviation off: no score to speak of."""


@dataclass
class Yard:
    """A broker and a directory of the test's own; the gateway's Kafka may be none at all."""

    stack: Stack
    name: str
    directory: Path

    @property
    def mqtt(self) -> MqttSettings:
        ends = self.stack.endpoints
        return MqttSettings(
            host=ends.mqtt_host,
            port=ends.mqtt_port,
            fleet=self.name,
            backoff_min_s=0.1,
            backoff_max_s=1.0,
        )

    @property
    def kafka(self) -> KafkaSettings:
        ends = self.stack.endpoints
        return KafkaSettings(bootstrap_servers=ends.kafka_bootstrap, registry_url=ends.registry_url)

    @property
    def home(self) -> Path:
        return self.directory / "gw"

    @property
    def inbox(self) -> Path:
        return self.directory / "stick"

    def gateway(self, *, online: bool = True, **settings: Any) -> GatewayProcess:
        wanted: dict[str, Any] = {
            "gateway_id": self.name,
            "model_name": self.name,
            "trusted_keys_path": str(self.directory / "keys"),
            "models_inbox": str(self.inbox),
            "status_interval_s": 0.5,
        }
        kafka = self.kafka if online else nobody()
        return GatewayProcess(self.home, self.mqtt, kafka, **(wanted | settings))

    def bundle(self, version: str = "1", **changes: Any) -> Bundle:
        made = bundle(version, name=self.name, model=changes.pop("model", None))
        return replace(made, manifest=replace(made.manifest, **changes))

    def file(self, made: Bundle) -> Path:
        path = self.directory / "new.motorcade"
        made.save(path)
        return path

    def vehicle(self, number: int) -> str:
        return f"{self.name}-{number}"

    def mine(self, topic: Topic) -> list[Record]:
        return in_kafka(self.kafka, topic, self.name)

    def told(self) -> list[tuple[str, str]]:
        return [(event["kind"], event["model_version"]) for event in self.mine(MODEL_EVENTS)]

    def status(self) -> dict[str, Any]:
        return ask(self.home / "c", "status")

    def models(self) -> dict[str, Any]:
        return ask(self.home / "c", "models")


def nobody() -> KafkaSettings:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return KafkaSettings(f"127.0.0.1:{port}", f"http://127.0.0.1:{port}")


@pytest.fixture
def yard(stack: Stack, tmp_path: Path) -> Yard:
    made = Yard(stack, f"y{uuid.uuid4().hex[:8]}", tmp_path)
    ensure_topics(made.kafka, TOPICS)
    made.inbox.mkdir()
    return made


@pytest.fixture
def fleet(yard: Yard) -> Iterator[Fleet]:
    with Fleet(yard.mqtt) as fleet:
        yield fleet


def bad_bundles(yard: Yard) -> dict[str, tuple[Bundle, Reason, str]]:
    """What must be refused, why, and words of the refusal."""
    features = (FeatureSpec("speed"), FeatureSpec("engine_speed"), FeatureSpec("map"))
    wide: dict[str, Any] = {
        "features": features,
        "units": (),
        "mean": (50.0, 2_000.0, 100.0),
        "scale": (10.0, 500.0, 10.0),
        "error_scale": (),
    }
    signed = KEY.sign(yard.bundle("9").manifest)
    return {
        "truncated": (
            yard.bundle("90", model=bundle().model[:400]),
            Reason.MODEL_INVALID,
            "points outside",
        ),
        "random": (
            yard.bundle("91", model=bytes(range(256)) * 4),
            Reason.MODEL_INVALID,
            "TFL3 is missing",
        ),
        "shape": (yard.bundle("92", **wide), Reason.MODEL_FEATURES, "input has shape [1, 2]"),
        "operator": (
            yard.bundle("93", model=bad_models.lacking()),
            Reason.MODEL_OPERATOR,
            "CONCAT_EMBEDDINGS",
        ),
        "signature": (
            Bundle(replace(signed, version="94"), bundle().model),
            Reason.MODEL_SIGNATURE,
            "does not fit",
        ),
        "old": (yard.bundle("0.9"), Reason.MODEL_VERSION, "older than 1"),
        "crash": (
            yard.bundle("95", model=bad_models.crashing()),
            Reason.MODEL_TRIAL,
            "crashed the process",
        ),
        "nan": (yard.bundle("96", model=bad_models.without_numbers()), Reason.MODEL_TRIAL, "NaN"),
    }


def test_bad_models_are_refused_in_words_and_the_old_one_goes_on(yard: Yard, fleet: Fleet) -> None:
    ModelStore(yard.home / "models").install(yard.bundle("1"))
    trust(yard.directory / "keys", KEY.public)
    bad = bad_bundles(yard)
    with running(yard.gateway(model_min_version="1")) as gateway:
        for number, (made, reason, words) in enumerate(bad.values()):
            with pytest.raises(ContractError) as caught:
                ask(yard.home / "c", "install-model", file=str(yard.file(made)))
            assert (caught.value.reason, words in caught.value.detail) == (reason, True), words
            car = yard.vehicle(number)
            for seq in (1, 2, 3):
                fleet.send(car, seq, signals=FAULTY)
            until("the old model alerts", partial(fleet.alerts.get, car))
        broken = yard.directory / "broken.motorcade"
        broken.write_bytes(yard.file(yard.bundle("97")).read_bytes()[:-100])
        with pytest.raises(ContractError):
            ask(yard.home / "c", "install-model", file=str(broken))
        publish_release(yard.kafka, bad["crash"][0])
        publish_release(yard.kafka, yard.bundle("98", model=bad_models.lacking()))
        until("told in Kafka", lambda: ("edge-refused", "98") in yard.told())
        found = yard.models()
        fleet.settle()
        assert gateway.stop() == 0
    assert found["current"]["version"] == "1"
    refused = {each["version"]: each for each in found["refused"]}
    for made, reason, words in bad.values():
        entry = refused[made.manifest.version]
        assert entry["reason"] == reason and words in entry["detail"]
        assert ("edge-refused", made.manifest.version) in yard.told()
    letters = {letter["model_version"]: letter["error"] for letter in yard.mine(DEAD_LETTERS)}
    assert "CONCAT_EMBEDDINGS" in letters["98"]
    opened = [decode_single_object("Alert", payload) for payload in fleet.alerts.values()]
    assert {alert["model_version"] for alert in opened} == {"1"} and len(opened) == len(bad)
    assert yard.mine(GATEWAY_STATUS)[-1]["model_version"] == "1"


def test_a_model_that_alerts_for_everything_is_gone_back_from(yard: Yard, fleet: Fleet) -> None:
    ModelStore(yard.home / "models").install(yard.bundle("1"))
    mad = yard.bundle(
        "2",
        threshold=1e-4,
        policy=PolicySettings(k=2, n=3, close_k=0),
        bounds=Bounds(alerts_per_vehicle_hour_max=1.0),
    )
    cars = [yard.vehicle(number) for number in range(8)]

    def drive(first: int, last: int) -> None:
        for seq in range(first, last + 1):
            for car in cars:
                fleet.send(car, seq, signals=NEARLY)

    with running(yard.gateway()) as gateway:
        drive(1, 3)
        fleet.settle()
        publish_release(yard.kafka, mad)
        until("the new model is in use", lambda: f"scoring with {yard.name} 2" in gateway.log())
        assert fleet.alerts == {}
        drive(4, 8)
        until("the old one is back", lambda: yard.models()["current"]["version"] == "1")
        drive(9, 14)
        until("its alerts close", lambda: fleet.alerts and not any(fleet.alerts.values()))
        until("told in Kafka", lambda: ("edge-rolled-back", "2") in yard.told())
        until("in the status", lambda: yard.mine(GATEWAY_STATUS)[-1]["model_rollback"])
        fleet.settle()
        assert gateway.stop() == 0
        gateway.start()
        until("it scores again", lambda: gateway.log().count(f"scoring with {yard.name} 1") >= 2)
        publish_release(yard.kafka, yard.bundle("3"))
        until("another one is welcome", lambda: ("edge-installed", "3") in yard.told())
        found = yard.models()
        assert gateway.stop() == 0
    assert [(each["version"], each["reason"]) for each in found["refused"]] == [
        ("2", Reason.MODEL_BOUNDS)
    ]
    assert "its bounds allow 1 an hour" in found["rolled_back"]
    assert (found["current"]["version"], found["previous"]["version"]) == ("3", "1")
    assert yard.told().count(("edge-installed", "2")) == 1


CUTS = ["before model swap", "after model swap"]


@pytest.mark.parametrize("point", CUTS)
def test_a_kill_at_any_step_leaves_a_whole_model_in_use(yard: Yard, point: str) -> None:
    ModelStore(yard.home / "models").install(yard.bundle("1"))
    gateway = yard.gateway(online=False, signatures_required=False)
    new = yard.bundle("2")
    try:
        gateway.start(crash=(point, 1))
        (yard.inbox / "2.part").write_bytes(yard.file(new).read_bytes())
        (yard.inbox / "2.part").rename(yard.inbox / "2.motorcade")
        assert gateway.wait_gone() == -9
        gateway.start()
        in_use = yard.models()["current"]["version"]
        assert in_use == ("2" if point == "after model swap" else "1")
        until("a whole model scores", lambda: f"scoring with {yard.name} {in_use}" in gateway.log())
        until("the new one in the end", lambda: yard.models()["current"]["version"] == "2")
        assert gateway.stop() == 0
    finally:
        gateway.kill()


def test_a_model_in_use_that_crashes_the_gateway_is_gone_back_from(yard: Yard) -> None:
    # As one that passed its trial and meets a reading that it dies of.
    for made in (yard.bundle("1"), yard.bundle("2", model=bad_models.crashing())):
        ModelStore(yard.home / "models").install(made)
    gateway = yard.gateway(online=False)
    try:
        for _ in range(2):
            gateway.start()
            assert gateway.wait_gone() < 0
        gateway.start()
        until("the one before scores", lambda: yard.status()["model_version"] == "1")
        found = yard.models()
        assert gateway.stop() == 0
    finally:
        gateway.kill()
    assert "the gateway crashed in it 2 times; back to 1" in found["rolled_back"]
    assert [each["version"] for each in found["refused"]] == ["2"]


def test_offline_by_stick_and_back_by_hand(yard: Yard, fleet: Fleet) -> None:
    trust(yard.directory / "keys", KEY.public)
    one, two = (
        replace(made, manifest=KEY.sign(made.manifest))
        for made in (yard.bundle("1"), yard.bundle("2"))
    )
    with running(yard.gateway(online=False, signatures_required=True)) as gateway:
        yard.bundle("7").save(yard.inbox / "unsigned.motorcade")
        until("the unsigned one is refused", lambda: "not signed" in gateway.log())
        one.save(yard.inbox / "1.motorcade")
        until("the first model scores", lambda: f"scoring with {yard.name} 1" in gateway.log())
        outcome = ask(yard.home / "c", "install-model", file=str(yard.file(two)))
        assert outcome["came"] == "installed"
        until("the second one scores", lambda: f"scoring with {yard.name} 2" in gateway.log())
        assert ask(yard.home / "c", "rollback")["version"] == "1"
        until("the first one scores again", lambda: yard.status()["model_version"] == "1")
        car = yard.vehicle(1)

        def alerted() -> bool:
            return bool(fleet.alerts.get(car))

        for seq in range(1, 4):
            fleet.send(car, seq, signals=FAULTY)
        until("it alerts offline", alerted)
        found = yard.models()
        assert gateway.stop() == 0
    assert decode_single_object("Alert", fleet.alerts[car])["model_version"] == "1"
    assert KEY.public.key_id in found["current"]["signer"]
    assert found["pin"] is not None
    json.dumps(found)
