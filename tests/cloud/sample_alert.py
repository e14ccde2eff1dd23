"""An alert record for tests, to be varied."""

from typing import Any

from schemas.records import Record

SIGNAL: Record = {
    "name": "coolant_temperature",
    "unit": "Celsius",
    "value": 131.04,
    "expected": 88.25,
    "deviation": 9.13,
    "share": 0.8,
}


def alert(**changes: Any) -> Record:
    record: Record = {
        "alert_id": "EDGE/car-7/1/12/0/anomaly",
        "state": "OPEN",
        "code": "anomaly",
        "origin": "EDGE",
        "gateway_id": "gate-1",
        "model_name": "anomaly",
        "model_version": "20251122T183012Z-1a2b3c4d",
        "model_sha256": bytes(range(32)),
        "arm": "champion",
        "threshold": 2.5,
        "input_topic": "v1/demo/car-7/telemetry",
        "input_partition": -1,
        "input_offset": 42,
        "vehicle_id": "car-7",
        "boot_id": 1,
        "seq": 12,
        "reading_index": 0,
        "since": 1_763_836_204_000,
        "event_time": 1_763_836_212_345,
        "score_time": 1_763_836_212_400,
        "score": 7.25,
        "late": False,
        "signals": [SIGNAL],
    }
    return record | changes
