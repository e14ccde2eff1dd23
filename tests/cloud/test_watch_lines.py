import json
import math

import pytest
from sample_alert import SIGNAL, alert

from cloud.alert_lines import alert_json, alert_line, clock_time, duration, signal_text
from cloud.decoding import decode_plain
from schemas.errors import ContractError, Reason
from schemas.records import Record, encode_confluent


def test_a_line_says_it_all() -> None:
    assert alert_line(alert()) == (
        "2025-11-22 18:30:12.3Z  OPEN    car-7  edge gate-1  anomaly  "
        "coolant_temperature 131 °C, expected 88.25 °C (+9.1 sigma)  "
        "since 2025-11-22 18:30:04.0Z (8 s)  score 7.25 > 2.5  "
        "model anomaly 20251122T183012Z-1a2b3c4d"
    )


def test_times_of_a_vehicle_that_did_not_know_the_time_are_the_true_ones() -> None:
    known = alert()
    shown = alert(
        since=4_000,
        event_time=12_345,
        true_since=known["since"],
        true_event_time=known["event_time"],
    )
    assert alert_line(shown) == alert_line(known) + "  TIME CORRECTED"
    assert json.loads(alert_json(shown))["event_time"] == 12_345


def test_a_late_closing_of_the_cloud() -> None:
    line = alert_line(
        alert(state="CLOSED", origin="CLOUD", gateway_id=None, signals=[], late=True, score=0.5)
    )
    assert "  CLOSED  car-7  cloud  anomaly  " in line
    assert "score 0.5  " in line
    assert line.endswith("LATE")


def test_no_more_than_three_signals_are_shown() -> None:
    assert alert_line(alert(signals=[SIGNAL] * 5)).count("sigma") == 3


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"unit": "percent"}, "131%, expected 88.25%"),
        ({"unit": "rpm", "value": 3210.25}, "3210 rpm, expected"),
        ({"value": None}, "absent, expected"),
        ({"value": math.nan}, "absent, expected"),
        ({"expected": None, "deviation": -4.0}, "131 °C (-4.0 sigma)"),
    ],
)
def test_signals_in_their_units(changes: Record, text: str) -> None:
    assert text in signal_text(SIGNAL | changes)


@pytest.mark.parametrize(
    ("duration_ms", "text"),
    [(0, "0 s"), (59_400, "59 s"), (200_000, "3 min 20 s"), (7_500_000, "2 h 5 min"), (-1, "?")],
)
def test_durations(duration_ms: int, text: str) -> None:
    assert duration(duration_ms) == text


def test_clock_time_of_the_epoch() -> None:
    assert clock_time(0) == "1970-01-01 00:00:00.0Z"


def test_json_is_one_line_of_plain_values() -> None:
    line = alert_json(alert(score=math.nan))
    parsed = json.loads(line)
    assert "\n" not in line
    assert parsed["score"] is None
    assert parsed["model_sha256"] == bytes(range(32)).hex()
    assert parsed["event_time"] == 1_763_836_212_345
    assert parsed["signals"][0]["name"] == "coolant_temperature"


def test_records_from_kafka_keep_their_times_as_integers() -> None:
    decoded = decode_plain("Alert", 7, encode_confluent("Alert", 7, alert()))
    assert (decoded["event_time"], decoded["since"]) == (1_763_836_212_345, 1_763_836_204_000)
    assert decoded["signals"][0]["deviation"] == pytest.approx(9.13)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (None, Reason.NOT_AVRO),
        (b"{}", Reason.NOT_AVRO),
        (b"\x00\x00\x00\x00\x08rest", Reason.UNKNOWN_SCHEMA_ID),
        (b"\x00\x00\x00\x00\x07", Reason.TRUNCATED),
        (encode_confluent("Alert", 7, alert()) + b"!", Reason.MALFORMED),
    ],
)
def test_what_is_no_alert_is_refused(payload: bytes | None, reason: Reason) -> None:
    with pytest.raises(ContractError) as refused:
        decode_plain("Alert", 7, payload)
    assert refused.value.reason is reason
