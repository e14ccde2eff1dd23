from dataclasses import replace

import pytest
from cloud_kafka import now_ms, publish_records, publish_telemetry
from sample_alert import alert
from trainer_fleet import START_MS, poll

from cloud.audit import MeasuredBoot, tally
from cloud.audit_reader import read_found
from deploy.stack import Stack
from schemas.records import Record
from schemas.topics import ALERTS, DEAD_LETTERS, SCORES, TELEMETRY
from transport.kafka import KafkaSettings, Outgoing, ensure_topics, publish

pytestmark = pytest.mark.integration


def score(vehicle_id: str, seq: int) -> Record:
    return {
        "origin": "CLOUD",
        "model_name": "anomaly",
        "model_version": "1",
        "model_sha256": bytes(32),
        "arm": "champion",
        "threshold": 1.0,
        "input_topic": TELEMETRY.name,
        "score_time": START_MS,
        "input_partition": 0,
        "input_offset": seq,
        "vehicle_id": vehicle_id,
        "boot_id": 1,
        "seq": seq,
        "event_time": START_MS,
        "late": False,
        "scores": [0.5, 0.25],
    }


LETTER: Record = {
    "reason": "truncated",
    "error": "ends early",
    "component": "gateway",
    "component_id": "gate-1",
    "failed_time": START_MS,
    "topic": "v1/demo/car/telemetry",
    "partition": -1,
    "offset": -1,
    "headers": [],
    "payload_bytes": 0,
    "key": None,
    "payload": None,
    "model_version": None,
}


def test_the_topics_are_counted_against_what_was_measured(stack: Stack) -> None:
    kafka = KafkaSettings(
        bootstrap_servers=stack.endpoints.kafka_bootstrap,
        registry_url=stack.endpoints.registry_url,
    )
    ensure_topics(kafka)
    since_ms = now_ms()
    columns = poll(2, 3)
    columns = replace(columns, vehicle_ids=[b"audit-" + name for name in columns.vehicle_ids])
    publish_telemetry(kafka, columns)
    publish(kafka, [Outgoing(TELEMETRY.name, b"junk", b"audit")])
    publish_records(kafka, SCORES, [score("audit-car-000", seq) for seq in (1, 2, 2)])
    opened = alert(vehicle_id="audit-car-000", alert_id="audit")
    publish_records(kafka, ALERTS, [opened, opened, opened | {"state": "CLOSED"}])
    publish_records(kafka, DEAD_LETTERS, [LETTER])

    found = read_found(kafka, since_ms=since_ms)

    boots = [MeasuredBoot(f"audit-car-{i:03d}", 1, 4, 4) for i in (0, 1)]
    telemetry = tally(boots, found.telemetry)
    assert (telemetry.messages, telemetry.lost_readings, telemetry.duplicate_messages) == (6, 2, 0)
    scores = tally([MeasuredBoot("audit-car-000", 1, 2, 4)], found.scores)
    assert (scores.readings, scores.lost_messages, scores.duplicate_messages) == (4, 0, 1)
    assert (len(found.alerts.unique), found.alerts.duplicates) == (2, 1)
    assert found.dead_letters == {"truncated": 1}
    assert found.broken[TELEMETRY.name] == 1
    assert found.observed["audit-car-001"] == (START_MS, START_MS + 2_000)
