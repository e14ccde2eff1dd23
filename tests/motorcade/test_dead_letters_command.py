"""`motorcade dead-letters`, each command on a real Kafka."""

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from deploy.stack import Stack
from motorcade import cli
from schemas.records import decode_confluent, encode_confluent, encode_single_object
from schemas.topics import DEAD_LETTERS, GATEWAY_STATUS, Topic
from transport.kafka import (
    KafkaSettings,
    Message,
    Outgoing,
    delete_topics,
    ensure_topics,
    publish,
    read_to_end,
    register_schemas,
)

pytestmark = pytest.mark.integration

Run = Callable[..., str]


@pytest.fixture(scope="module")
def kafka(stack: Stack) -> KafkaSettings:
    settings = KafkaSettings(stack.endpoints.kafka_bootstrap, stack.endpoints.registry_url)
    ensure_topics(settings)
    return settings


@pytest.fixture
def mark() -> str:
    """Component of this test's own letters, on a log that others write to, too."""
    return f"desk-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def source(kafka: KafkaSettings, mark: str) -> Iterator[str]:
    """A topic that letters come from."""
    ensure_topics(kafka, [Topic(f"from-{mark}", "TelemetryBatch", 3, False, "")])
    yield f"from-{mark}"
    delete_topics(kafka, [f"from-{mark}"])


@pytest.fixture
def run(kafka: KafkaSettings, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command; gives what it prints, or what it says of an error that is expected."""

    def command(*arguments: str, status: int = 0) -> str:
        where = [
            f"--kafka-bootstrap-servers={kafka.bootstrap_servers}",
            f"--kafka-registry-url={kafka.registry_url}",
        ]
        capsys.readouterr()
        assert cli.run(["dead-letters", *arguments, *where]) == status
        said = capsys.readouterr()
        return said.err + said.out if status else said.out

    return command


def bury(kafka: KafkaSettings, mark: str, **facts: Any) -> None:
    """Write a dead letter."""
    record = {
        "reason": "malformed",
        "error": "4 bytes behind the end",
        "component": mark,
        "component_id": "one",
        "failed_time": 1_790_000_000_000,
        "model_version": None,
        "topic": "nowhere",
        "partition": 2,
        "offset": 5,
        "key": b"car-1",
        "headers": [{"name": "boot_id", "value": b"7"}],
        "payload": b"payload",
        "payload_bytes": 7,
    } | facts
    schema_id = register_schemas(kafka, [DEAD_LETTERS]).id_of(DEAD_LETTERS)
    publish(kafka, [Outgoing(DEAD_LETTERS.name, encode_confluent("DeadLetter", schema_id, record))])


def ids(run: Run, mark: str) -> list[str]:
    found = run("list", "--component", mark, "--json").splitlines()
    return [json.loads(line)["id"] for line in found]


def written(kafka: KafkaSettings, topic: str) -> list[Message]:
    return [message for batch in read_to_end(kafka, topic) for message in batch]


def test_letters_are_listed_and_shown(run: Run, kafka: KafkaSettings, mark: str) -> None:
    bury(kafka, mark)
    bury(kafka, mark, reason="truncated", payload=None, payload_bytes=0)
    lines = run("list", "--component", mark).splitlines()
    assert len(lines) == 2
    assert f"{mark} one  malformed  nowhere[2]@5  4 bytes behind the end" in lines[0]
    assert len(run("list", "--component", mark, "--reason", "truncated").splitlines()) == 1
    assert run("list", "--component", mark, "--topic", "elsewhere") == ""
    first = ids(run, mark)[0]
    shown = run("show", first)
    assert "header     boot_id: 7" in shown
    assert b"payload".hex(" ", 4) in shown
    as_json = json.loads(run("show", first, "--json"))
    assert (as_json["payload"], as_json["decoded"]) == (b"payload".hex(), None)


def test_letters_go_back_where_they_came_from(
    run: Run, kafka: KafkaSettings, mark: str, source: str
) -> None:
    for number in range(5):
        bury(kafka, mark, topic=source, offset=number, payload=b"load-%02d" % number)
    bury(kafka, mark, topic=source, payload=b"pay", payload_bytes=950_000)
    dry = run("redrive", "--topic", source, "--dry-run", status=1)
    assert "5 would be redriven, 1 refused" in dry
    assert "its payload was cut from 950000 to 3 bytes" in dry
    assert written(kafka, source) == []
    assert f"sent to {source}" in run("redrive", ids(run, mark)[0])
    outcome = run("redrive", *ids(run, mark)[1:5], "--json", "--per-second", "1000")
    assert json.loads(outcome) == {"redriven": 4, "refused": 0, "dry_run": False}
    found = written(kafka, source)
    assert [message.value() for message in found] == [b"load-%02d" % n for n in range(5)]
    assert {message.partition() for message in found} == {2}
    assert {message.key() for message in found} == {b"car-1"}
    headers = found[0].headers()
    assert headers == [("boot_id", b"7"), ("redriven-from", f"0:{ids(run, mark)[0]}".encode())]


def test_what_came_from_mqtt_needs_a_topic_and_gets_kafkas_frame(
    run: Run, kafka: KafkaSettings, mark: str
) -> None:
    status = {
        "gateway_id": mark,
        "time": 0,
        "uptime_s": 1.0,
        "received": 0,
        "duplicates": 0,
        "dead_letters": 0,
        "forwarded": 0,
        "spool_depth": 0,
        "spool_bytes": 0,
        "uplink": "ok",
        "model_version": None,
        "vehicle_drops": 0,
        "spool_oldest_age_s": 0.0,
        "backlog_depth": 0,
        "drops": {},
        "disk_free_bytes": -1,
        "clock_synced": True,
        "rss_bytes": -1,
        "temperature_celsius": None,
        "model_name": None,
        "model_sha256": None,
        "scoring": "ok",
        "spool": "ok",
        "mqtt_connected": True,
        "model_rollback": None,
    }
    payload = encode_single_object("GatewayStatus", status)
    mqtt = {"topic": f"v1/demo/{mark}/telemetry", "partition": -1, "offset": -1}
    bury(kafka, mark, **mqtt, payload=payload, payload_bytes=len(payload))
    letter = ids(run, mark)[0]
    assert "came from MQTT" in run("redrive", letter, status=1)
    assert "does not take it" in run("redrive", letter, "--to", "vehicle.telemetry", status=1)
    run("redrive", letter, "--to", GATEWAY_STATUS.name)
    schema_id = register_schemas(kafka, [GATEWAY_STATUS]).id_of(GATEWAY_STATUS)
    found = [
        decode_confluent("GatewayStatus", schema_id, message.value() or b"")
        for message in written(kafka, GATEWAY_STATUS.name)
        if mark.encode() in (message.value() or b"")
    ]
    assert [record["gateway_id"] for record in found] == [mark]


def test_what_cannot_be_done_is_said(run: Run, kafka: KafkaSettings, mark: str) -> None:
    assert "which ones?" in run("redrive", status=2)
    assert "an id is an offset" in run("show", "first", status=2)
    assert run("show", "99999999", status=1) == "motorcade: no dead letter 99999999\n"
    bury(kafka, mark)
    assert "there is no topic nowhere" in run("redrive", "--component", mark, status=2)
