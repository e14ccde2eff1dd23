"""How an event of a model reads: one line for people, one JSON object for programs. Pure."""

import json
import math

from cloud.alert_lines import clock_time
from schemas.records import Record


def event_line(event: Record) -> str:
    """When, how grave, what, of which model, in a sentence, by whom.

    Example:
        >>> event_line({
        ...     "time": 0, "severity": "WARNING", "kind": "input-drift", "model_name": "anomaly",
        ...     "model_version": "7", "detail": "speed drifts", "by": "monitor",
        ... })
        '1970-01-01 00:00:00.0Z WARNING  input-drift anomaly@7: speed drifts (monitor)'
    """
    version = event["model_version"]
    model = event["model_name"] if version is None else f"{event['model_name']}@{version}"
    return (
        f"{clock_time(event['time'])} {event['severity']:<8} {event['kind']} {model}: "
        f"{event['detail']} ({event['by']})"
    )


def event_json(event: Record) -> str:
    """The record as it is, times in milliseconds; a figure that is no number is null."""
    values = {
        name: value if math.isfinite(value) else None for name, value in event["values"].items()
    }
    return json.dumps({**event, "values": values})
