"""A dead letter whose facts a test may change."""

from typing import Any

from cloud.redrive import Letter, LetterId


def letter(**facts: Any) -> Letter:
    payload = facts.get("payload", b"payload")
    record = {
        "reason": "unknown-schema-id",
        "error": "it is 9",
        "component": "scorer",
        "component_id": "one",
        "failed_time": 1_790_000_000_000,
        "model_version": "1",
        "topic": "vehicle.telemetry",
        "partition": 0,
        "offset": 5,
        "key": b"car-1",
        "payload": payload,
        "payload_bytes": len(payload or b""),
    }
    headers = [{"name": name, "value": value} for name, value in facts.pop("headers", [])]
    return Letter(LetterId(0, 17), {**record, **facts, "headers": headers})
