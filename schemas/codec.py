"""Telemetry and scores between payloads and columns, a whole poll at a time, at array speed.

`decode_telemetry` and `encode_telemetry` are each other's inverse; `encode_scores` writes the
answers. They agree with fastavro on every input (`schemas.telemetry_record` is what that means)
and cost well under a microsecond a message where that takes five to ten.
"""

from schemas.columns import (
    EVENT_TIME_MS_MAX,
    EVENT_TIME_MS_MIN,
    MAX_PAYLOAD_BYTES,
    MAX_READINGS,
    MAX_VEHICLE_ID_BYTES,
    UPTIME_MS_MAX,
    Framing,
    Rejected,
    ScoreStamp,
    TelemetryColumns,
)
from schemas.decode import decode_telemetry
from schemas.encode import encode_scores, encode_telemetry

__all__ = [
    "EVENT_TIME_MS_MAX",
    "EVENT_TIME_MS_MIN",
    "MAX_PAYLOAD_BYTES",
    "MAX_READINGS",
    "MAX_VEHICLE_ID_BYTES",
    "UPTIME_MS_MAX",
    "Framing",
    "Rejected",
    "ScoreStamp",
    "TelemetryColumns",
    "decode_telemetry",
    "encode_scores",
    "encode_telemetry",
]
