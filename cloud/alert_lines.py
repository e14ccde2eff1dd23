"""How an alert reads: one line for people, one JSON object for programs. Pure."""

import json
import math
from datetime import UTC, datetime
from typing import Any

from schemas.records import Record

SIGNALS_SHOWN = 3

# VSS unit names that have a shorter sign.
UNIT_SIGNS = {"Celsius": "°C", "percent": "%", "degrees": "°"}


def clock_time(time_ms: int) -> str:
    """UTC to the tenth of a second: '2026-11-22 18:30:12.3Z'."""
    moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 100_000}Z"


def duration(duration_ms: int) -> str:
    """'8 s', '3 min 20 s', '2 h 5 min'; a negative one (a clock stepped back) reads '?'."""
    if duration_ms < 0:
        return "?"
    seconds = round(duration_ms / 1000)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def _quantity(value: float | None, unit: str) -> str:
    sign = UNIT_SIGNS.get(unit, unit)
    if value is None or not math.isfinite(value):
        return "absent"
    # More digits would claim a precision that float32 sensors do not have.
    return f"{float(f'{value:.4g}'):g}{'' if sign in {'%', '°'} else ' '}{sign}"


def signal_text(signal: Record) -> str:
    """'coolant_temperature 131 °C, expected 88 °C (+9.1 sigma)'."""
    value = _quantity(signal["value"], signal["unit"])
    text = f"{signal['name']} {value}"
    if signal["expected"] is not None:
        text += f", expected {_quantity(signal['expected'], signal['unit'])}"
    return f"{text} ({signal['deviation']:+.1f} sigma)"


def alert_line(alert: Record) -> str:
    """One readable line.

    Args:
        alert: Record `Alert` with times as integers of milliseconds.

    Returns:
        When, OPEN or CLOSED, vehicle, origin, what is off and by how much, since when, which
        model said so, whether the data was late, and whether its vehicle's clock was wrong: times
        are then the true ones (`cloud.clocks`).
    """
    event_ms: int = alert["true_event_time" if "true_event_time" in alert else "event_time"]
    since_ms: int = alert["true_since" if "true_since" in alert else "since"]
    lasted = duration(event_ms - since_ms)
    signals = "; ".join(signal_text(signal) for signal in alert["signals"][:SIGNALS_SHOWN])
    parts = [
        clock_time(event_ms),
        f"{alert['state']:<6}",
        alert["vehicle_id"],
        alert["origin"].lower() + (f" {alert['gateway_id']}" if alert["gateway_id"] else ""),
        alert["code"],
        signals or "no single signal",
        f"since {clock_time(since_ms)} ({lasted})",
        f"score {alert['score']:.3g} > {alert['threshold']:.3g}"
        if alert["state"] == "OPEN"
        else f"score {alert['score']:.3g}",
        f"model {alert['model_name']} {alert['model_version']}",
    ]
    late = ["LATE"] if alert["late"] else []
    corrected = ["TIME CORRECTED"] if "true_event_time" in alert else []
    return "  ".join(parts + late + corrected)


def _jsonable(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_jsonable(item) for item in value]
    return value


def alert_json(alert: Record) -> str:
    """One JSON object on one line: the record, hashes in hex, times in milliseconds, NaN null."""
    return json.dumps(_jsonable(alert), ensure_ascii=False, sort_keys=True)
