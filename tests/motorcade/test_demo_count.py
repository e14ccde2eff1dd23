"""The closing table is right about what it is given."""

import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from cloud.audit import AlertLog, MeasuredBoot
from cloud.audit_reader import Found
from cloud.protocol import Event
from motorcade.demo_count import Fleet, Witnessed, count, event_ms_at
from motorcade.demo_report import as_json, closing_table

START_MS = 1_000_000
MODEL = {"name": "anomaly", "version": "v1", "sha256": "ab" * 32}


def boot(vehicle_id: str, batches: int = 100, dropped: tuple[int, ...] = ()) -> MeasuredBoot:
    return MeasuredBoot(
        vehicle_id,
        1,
        batches,
        batches,
        dropped_seq=np.array(dropped, np.int64),
        dropped_readings=len(dropped),
        published_ms=START_MS + 1000 * np.arange(batches, dtype=np.int64),
    )


def alert(vehicle_id: str, seq: int, origin: str, state: str = "OPEN") -> dict[str, Any]:
    return {
        "alert_id": f"{origin}/{vehicle_id}/{seq}",
        "state": state,
        "origin": origin,
        "vehicle_id": vehicle_id,
        "boot_id": 1,
        "seq": seq,
        "event_time": START_MS + 1000 * (seq - 1),
        "score_time": START_MS + 1000 * (seq - 1) + 40,
        "late": False,
    }


def found(alerts: list[dict[str, Any]], *, telemetry: list[int], scores: list[int]) -> Found:
    result = Found(alerts=AlertLog(tuple(alerts), 0))
    for log, seqs in ((result.telemetry, telemetry), (result.scores, scores)):
        for vehicle in ("a", "b"):
            ones = [1] * len(seqs)
            log.add([vehicle] * len(seqs), ones, seqs, ones)
    result.observed = dict.fromkeys(("a", "b"), (START_MS, START_MS + 99000))
    return result


def witnessed(**arrivals: dict[str, int]) -> Witnessed:
    return Witnessed(arrivals, MODEL, START_MS + 40_000, 10.5)


ALL = list(range(1, 101))
FLEET = Fleet(
    [boot("a"), boot("b")], 200, [Event("a", START_MS + 50_000, START_MS + 10**9, "stuck")]
)


def test_a_sound_run_has_the_keys_that_the_issue_names() -> None:
    alerts = [alert("a", 61, "EDGE"), alert("a", 62, "CLOUD")]
    seen = witnessed(edge={"EDGE/a/61": START_MS + 60_020}, cloud={"CLOUD/a/62": START_MS + 61_100})
    result = count(found(alerts, telemetry=ALL, scores=ALL), FLEET, seen)
    assert result.sound
    told = json.loads(json.dumps(as_json(result)))
    assert told["readings"] == {
        "measured": 200,
        "acknowledged": 200,
        "in_kafka": 200,
        "scored": 200,
        "lost": 0,
        "duplicated": 0,
        "dropped_by_vehicles": 0,
    }
    assert told["faults"] == {"injected": 1, "detected": 1, "missed": 0}
    assert told["faults_by_code"] == {"stuck": {"injected": 1, "detected": 1}}
    assert told["false_alerts_per_vehicle_hour"] == 0
    assert told["alert_delay_s"] == {"p50": 10.0, "p90": 10.0}
    assert told["latency_ms"]["edge"]["p50"] == told["latency_ms"]["edge"]["p99"] == 20
    assert told["latency_ms"]["cloud"]["p50"] == 100
    assert told["outage_s"] == 10.5
    assert told["model"] == MODEL


def test_what_is_missing_in_kafka_is_lost_once() -> None:
    result = count(found([], telemetry=ALL[:-1], scores=ALL[:-1]), FLEET, witnessed())
    assert result.lost == 2
    assert not result.sound


def test_what_was_not_scored_is_lost_too() -> None:
    result = count(found([], telemetry=ALL, scores=ALL[1:]), FLEET, witnessed())
    assert result.lost == 2


def test_what_a_vehicle_dropped_is_not_lost() -> None:
    fleet = Fleet([boot("a", dropped=(1,)), boot("b", dropped=(1,))], 198, [])
    result = count(found([], telemetry=ALL[1:], scores=ALL[1:]), fleet, witnessed())
    assert result.sound
    assert as_json(result)["readings"]["dropped_by_vehicles"] == 2


def test_repeats_count_wherever_they_are() -> None:
    result = count(found([], telemetry=[*ALL, 5], scores=[*ALL, 6]), FLEET, witnessed())
    assert result.duplicated == 4
    assert not result.sound


def test_an_alert_on_a_sound_vehicle_is_false() -> None:
    result = count(found([alert("b", 70, "EDGE")], telemetry=ALL, scores=ALL), FLEET, witnessed())
    told = as_json(result)
    assert told["faults"]["missed"] == 1
    assert told["false_alerts_per_vehicle_hour"] > 0
    assert told["alert_delay_s"]["p50"] is None


def test_an_alert_of_the_cloud_on_a_backlog_is_told_apart() -> None:
    alerts = [alert("a", 61, "EDGE"), alert("a", 61, "CLOUD"), alert("b", 90, "CLOUD")]
    seen = replace(witnessed(), backlogs_ms=[(START_MS + 55_000, START_MS + 65_000)])
    latency = as_json(count(found(alerts, telemetry=ALL, scores=ALL), FLEET, seen))["latency_ms"]
    assert (latency["edge"]["count"], latency["edge"]["late_count"]) == (1, 0)
    assert (latency["cloud"]["count"], latency["cloud"]["late_count"]) == (1, 1)


def test_a_replays_clock_runs_faster_and_in_the_past() -> None:
    measured = boot("a", 101)
    span = (5_000, 5_000 + 3_000_000)  # 30 times as fast
    assert event_ms_at(START_MS, measured, span) == 5_000
    assert event_ms_at(START_MS + 50_000, measured, span) == 5_000 + 1_500_000


@pytest.mark.parametrize("scores", [ALL, ALL[1:]])
def test_the_table_can_be_shown(scores: list[int]) -> None:
    result = count(found([], telemetry=ALL, scores=scores), FLEET, witnessed())
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(closing_table(result))
    text = console.export_text()
    assert "measured" in text
    assert ("lost: 0, duplicated: 0" in text) == result.sound
