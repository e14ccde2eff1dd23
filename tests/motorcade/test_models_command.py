"""`motorcade models`, each command on a real Kafka."""

import json
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.stack import Stack
from motorcade import cli
from schemas.records import decode_confluent
from schemas.topics import MODEL_EVENTS
from scoring.bundle import Bundle, sha256_hex
from scoring.signing import SigningKey, TrustStore, Verdict
from scoring.traffic import Arm, Experiment, Mode
from transport.catalog import write_traffic
from transport.kafka import KafkaSettings, ensure_topics, read_to_end, register_schemas
from transport.releases import publish_release

pytestmark = pytest.mark.integration

SMALL = Path(__file__).parent.parent / "scoring" / "data" / "small.motorcade"

Models = Callable[..., str]


@pytest.fixture(scope="module")
def kafka(stack: Stack) -> KafkaSettings:
    settings = KafkaSettings(stack.endpoints.kafka_bootstrap, stack.endpoints.registry_url)
    ensure_topics(settings)
    return settings


@pytest.fixture
def name() -> str:
    return f"c-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def models(kafka: KafkaSettings, capsys: pytest.CaptureFixture[str]) -> Models:
    """Runs a command; gives its standard output, or what it says of an error that is expected."""

    def run(*arguments: str, status: int = 0) -> str:
        where = [
            f"--kafka-bootstrap-servers={kafka.bootstrap_servers}",
            f"--kafka-registry-url={kafka.registry_url}",
        ]
        capsys.readouterr()
        assert cli.run(["models", *arguments, *where]) == status, capsys.readouterr().err
        said = capsys.readouterr()
        if not status:
            return said.out
        assert said.err.startswith("motorcade: ")
        assert said.err.count("\n") == 1
        return said.err

    return run


def saved(directory: Path, name: str, version: str, **changes: Any) -> str:
    """A bundle on disk."""
    bundle = Bundle.load(SMALL)
    path = directory / f"{name}-{version}.motorcade"
    manifest = replace(bundle.manifest, name=name, version=version, **changes)
    Bundle(manifest, bundle.model).save(path)
    return str(path)


def put(kafka: KafkaSettings, name: str, *versions: str) -> None:
    """Releases that are there before the test begins."""
    bundle = Bundle.load(SMALL)
    for version in versions:
        manifest = replace(bundle.manifest, name=name, version=version)
        publish_release(kafka, Bundle(manifest, bundle.model))


def rows(models: Models, name: str) -> dict[str, Any]:
    found = [json.loads(line) for line in models("list", name, "--json").splitlines()]
    return {row["version"]: row for row in found}


def champion(models: Models, name: str) -> str:
    return next(v for v, row in rows(models, name).items() if "champion" in row["aliases"])


def events(kafka: KafkaSettings, name: str) -> list[tuple[str, str | None, str]]:
    schema_id = register_schemas(kafka, [MODEL_EVENTS]).id_of(MODEL_EVENTS)
    found = [
        decode_confluent(MODEL_EVENTS.record, schema_id, message.value() or b"")
        for batch in read_to_end(kafka, MODEL_EVENTS.name)
        for message in batch
        if message.key() == name.encode()
    ]
    return [(each["kind"], each["model_version"], each["by"]) for each in found]


def test_a_model_is_published_listed_shown_and_saved(
    models: Models, kafka: KafkaSettings, name: str, tmp_path: Path
) -> None:
    for version in ("1", "2"):
        models("publish", saved(tmp_path, name, version), "--by=ann")
    assert events(kafka, name) == [("published", "1", "ann"), ("published", "2", "ann")]
    table = models("list", name).splitlines()
    assert table[0].split() == ["NAME", "VERSION", "CREATED", "ALIASES", "ARM", "SHA256"]
    assert table[1].split()[:5] == [name, "1", "2025-06-15", "15:06:40Z", "-"]
    assert "champion" in table[2]
    shown = models("show", name)
    assert f"model      {name}@2" in shown
    assert "from       vehicle.telemetry partition 1 offsets 5..79" in shown
    assert "175 readings of 3 vehicles, seed 7" in shown
    assert "coolant_temperature:lag:60s" in shown
    as_json = json.loads(models("show", f"{name}@1", "--json"))
    assert as_json["manifest"]["provenance"]["offsets"][0] == {
        "partition": 0,
        "first": 0,
        "end": 100,
    }
    copy = tmp_path / "copy.motorcade"
    models("get", f"{name}@1", str(copy))
    assert Bundle.load(copy) == Bundle.load(tmp_path / f"{name}-1.motorcade")


def test_promotion_and_rollback(models: Models, kafka: KafkaSettings, name: str) -> None:
    put(kafka, name, "1", "2", "3")
    assert models("promote", f"{name}@1", "--alias=challenger").startswith(
        f"{name}@1 is challenger"
    )
    models("promote", f"{name}@challenger", "--by=ann", "--reason=fewer alerts")
    assert rows(models, name)["1"]["aliases"] == ["champion"]
    assert "fewer alerts" in models("show", name)
    models("promote", f"{name}@2")
    assert champion(models, name) == "2"
    models("rollback", name)
    assert champion(models, name) == "1"
    models("rollback", name)
    assert champion(models, name) == "3"
    assert "no former champion" in models("rollback", name, status=1)
    models("unset", name, "champion")
    assert champion(models, name) == "3"
    kinds = [kind for kind, _, _ in events(kafka, name)]
    assert kinds == ["promoted"] * 3 + ["rolled-back"] * 2
    assert ("promoted", "1", "ann") in events(kafka, name)


def test_deletion(models: Models, kafka: KafkaSettings, name: str) -> None:
    put(kafka, name, "1", "2")
    models("promote", f"{name}@1", "--alias=old")
    assert "is old; name another or unset it first" in models("delete", name, "1", status=1)
    models("unset", name, "old")
    models("delete", name, "1")
    assert list(rows(models, name)) == ["2"]
    assert events(kafka, name)[-1][:2] == ("deleted", "1")


def test_an_experiment_holds_its_versions_and_its_champion(
    models: Models, kafka: KafkaSettings, name: str
) -> None:
    put(kafka, name, "1", "2", "3")
    models("promote", f"{name}@1")
    trial = Experiment("t", Mode.CANARY, "s", 0, (Arm("champion", "1", 0.9), Arm("new", "2", 0.1)))
    write_traffic(
        kafka, name, lambda _, traffic: replace(traffic, experiment=trial), by="test", reason=""
    )
    assert "new 10%" in models("list", name)
    assert "has an arm of experiment t" in models("delete", name, "2", status=1)
    for command in (("promote", f"{name}@3"), ("rollback", name)):
        assert "experiment t of model" in models(*command, status=1)
    models("promote", f"{name}@3", "--alias=challenger")
    models("promote", f"{name}@3", "--stop-experiment")
    assert champion(models, name) == "3"
    assert [kind for kind, _, _ in events(kafka, name)][-2:] == ["promoted", "experiment-stopped"]


def test_a_published_version_is_not_replaced_unless_asked(
    models: Models, kafka: KafkaSettings, name: str, tmp_path: Path
) -> None:
    put(kafka, name, "1")
    models("publish", saved(tmp_path, name, "1"))
    other = saved(tmp_path, name, "1", threshold=5.0)
    assert "another model is published" in models("publish", other, status=1)
    models("publish", other, "--over")
    assert "threshold  5" in models("show", name)


def test_two_versions_are_compared(
    models: Models, kafka: KafkaSettings, name: str, tmp_path: Path
) -> None:
    put(kafka, name, "1")
    mean = (80.0, *Bundle.load(SMALL).manifest.mean[1:])
    models("publish", saved(tmp_path, name, "2", threshold=25.0, mean=mean))
    lines = models("diff", f"{name}@1", name).splitlines()
    assert lines == [
        "~ threshold: 20 -> 25",
        "~ speed: mean 50 -> 80 km/h (+1.00 sd), sd 30 -> 30 (x1), error x1",
    ]
    as_json = json.loads(models("diff", f"{name}@1", name, "--json"))
    assert as_json["changed"] == {"threshold": [20.0, 25.0]}


def test_what_is_not_there_is_one_line(
    models: Models, kafka: KafkaSettings, name: str, tmp_path: Path
) -> None:
    assert f"no model '{name}'" in models("list", name, status=5)
    assert f"no model '{name}'" in models("show", name, status=5)
    put(kafka, name, "1")
    assert "no alias or version '9'" in models("show", f"{name}@9", status=5)
    assert "no version '9'" in models("promote", f"{name}@9", status=5)
    assert "no version '9'" in models("delete", name, "9", status=5)
    assert "no alias 'x'" in models("unset", name, "x", status=1)
    assert "cannot read" in models("publish", str(tmp_path / "none"), status=2)
    assert "cannot write" in models("get", name, str(tmp_path / "no" / "where"), status=2)
    (tmp_path / "junk").write_bytes(b"junk")
    assert "not-avro" in models("publish", str(tmp_path / "junk"), status=5)


@pytest.mark.parametrize("padding", [0, 2_000_000])
def test_a_signature_and_bounds_reach_the_log_whole(
    models: Models, name: str, tmp_path: Path, padding: int
) -> None:
    key = SigningKey.generate()
    key.save(tmp_path / "a.key")
    small = Bundle.load(SMALL)
    model = small.model + bytes(padding)  # Over a megabyte it goes in chunks.
    manifest = replace(small.manifest, name=name, model_sha256=sha256_hex(model))
    Bundle(manifest, model).save(tmp_path / "a.motorcade")
    signing = ["--sign-key", str(tmp_path / "a.key")]
    said = models("publish", str(tmp_path / "a.motorcade"), *signing, "--alerts-max=5")
    assert f"signed by {key.public.key_id}" in said
    shown = models("show", name)
    assert f"signature  by key {key.public.key_id}" in shown
    assert "bounds     at most 5 alerts a vehicle-hour" in shown
    models("get", name, str(tmp_path / "b.motorcade"))
    found = Bundle.load(tmp_path / "b.motorcade")
    assert found.model == model
    assert TrustStore({key.public.key_id: key.public}).judge(found.manifest) is Verdict.TRUSTED
    Bundle(replace(manifest, version="other"), model).save(tmp_path / "c.motorcade")
    models("publish", str(tmp_path / "c.motorcade"))
    lines = models("diff", f"{name}@{manifest.version}", f"{name}@other").splitlines()
    assert f"~ signature: {key.public.key_id} -> none" in lines
    assert "~ bounds.alerts_per_vehicle_hour_max: 5 -> none" in lines
