"""The closing table of the demo and its JSON. Pure."""

from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cloud.audit import Latency, Percentiles, Tally, percentiles
from cloud.protocol import Judgement


@dataclass(frozen=True, slots=True)
class Findings:
    """What was counted after the drive.

    Attributes:
        measured: Readings that the vehicles measured.
        acknowledged: Of these, those that a gateway said are on its disk.
        dropped: Of these, those that a vehicle's full buffer dropped, by its own count.
        in_kafka: `vehicle.telemetry` against what was measured.
        scored: `vehicle.scores` against the same.
        judgement: Alerts of both origins as one detector.
        by_origin: 'edge' and 'cloud' each as a detector of its own.
        latency: First publish to arrival of the alert at a watcher, by origin.
        alerts: Openings and closings in Kafka by origin.
        duplicate_alerts: Alerts found again.
        outage_s: How long Kafka was down.
        model: name, version and sha256.
    """

    measured: int
    acknowledged: int
    dropped: int
    in_kafka: Tally
    scored: Tally
    judgement: Judgement
    by_origin: dict[str, Judgement]
    latency: dict[str, Latency]
    alerts: dict[str, int]
    duplicate_alerts: int
    outage_s: float
    model: dict[str, str]

    @property
    def lost(self) -> int:
        """Readings that did not arrive at the end. What is missing in Kafka was never scored."""
        return max(self.in_kafka.lost_readings, self.scored.lost_readings, 0)

    @property
    def duplicated(self) -> int:
        """Readings that are somewhere more than once."""
        return self.in_kafka.duplicate_readings + self.scored.duplicate_readings

    @property
    def sound(self) -> bool:
        """Nothing lost, nothing there twice."""
        return self.lost == 0 and self.duplicated == 0 and self.duplicate_alerts == 0


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _delays(judgement: Judgement) -> dict[str, float | None]:
    found = percentiles(judgement.delays_s)
    return {"p50": _rounded(found.p50, 2), "p90": _rounded(found.p90, 2)}


def _latency(latency: Latency) -> dict[str, float | int | None]:
    """Percentiles of alerts on live data; the backlog of an outage is told apart."""
    return {
        "p50": _rounded(latency.live.p50, 1),
        "p99": _rounded(latency.live.p99, 1),
        "count": latency.live.count,
        "late_count": latency.late.count,
        "late_p50": _rounded(latency.late.p50, 1),
    }


def as_json(found: Findings) -> dict[str, Any]:
    """The findings as a JSON object; keys are stable."""
    return {
        "readings": {
            "measured": found.measured,
            "acknowledged": found.acknowledged,
            "in_kafka": found.in_kafka.readings,
            "scored": found.scored.readings,
            "lost": found.lost,
            "duplicated": found.duplicated,
            "dropped_by_vehicles": found.dropped,
        },
        "faults": _faults(found.judgement),
        "faults_by_code": _by_code(found.judgement),
        "faults_by_origin": {name: _faults(j) for name, j in found.by_origin.items()},
        "false_alerts_per_vehicle_hour": round(found.judgement.false_alarms_per_hour, 3),
        "alert_delay_s": _delays(found.judgement),
        "alerts": {**found.alerts, "duplicated": found.duplicate_alerts},
        "latency_ms": {name: _latency(latency) for name, latency in found.latency.items()},
        "outage_s": round(found.outage_s, 2),
        "model": found.model,
    }


def _faults(judgement: Judgement) -> dict[str, int]:
    return {
        "injected": len(judgement.outcomes),
        "detected": judgement.detected,
        "missed": judgement.missed,
    }


def _by_code(judgement: Judgement) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for outcome in judgement.outcomes:
        count = counts.setdefault(outcome.event.fault, {"injected": 0, "detected": 0})
        count["injected"] += 1
        count["detected"] += outcome.delay_ms is not None
    return dict(sorted(counts.items()))


def closing_table(found: Findings) -> RenderableType:
    """What a person wants to know, in the order of the journey."""
    table = Table(title="What happened", title_justify="left", show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim", no_wrap=True, overflow="ellipsis")
    for row in [*_reading_rows(found), *_alert_rows(found)]:
        table.add_row(*row)
    return Group(table, _verdict(found))


Row = tuple[str, str, str]


def _reading_rows(found: Findings) -> list[Row]:
    return [
        ("measured", f"{found.measured:,}", "readings, by the vehicles"),
        ("acknowledged", f"{found.acknowledged:,}", "on the gateway's disk"),
        ("in Kafka", f"{found.in_kafka.readings:,}", "vehicle.telemetry"),
        ("scored", f"{found.scored.readings:,}", "vehicle.scores"),
        ("lost", f"{found.lost:,}", ", ".join(found.in_kafka.lost + found.scored.lost)[:60]),
        ("duplicated", f"{found.duplicated:,}", ""),
        ("Kafka was down", f"{found.outage_s:.1f} s", "the gateway went on"),
    ]


def _alert_rows(found: Findings) -> list[Row]:
    judged = found.judgement
    counts = f"{judged.detected} of {len(judged.outcomes)}"
    delay = percentiles(judged.delays_s)
    return [
        ("faults detected", counts, f"{judged.missed} missed"),
        (
            "false alerts",
            f"{judged.false_alarms_per_hour:.2f}",
            f"per vehicle-hour, over {judged.clean_hours:.2f} h",
        ),
        ("fault to alert", _seconds(delay), "p50 / p90"),
        *(
            (f"to {name} alert", _milliseconds(latency.live), "from the reading, p50 / p99")
            for name, latency in found.latency.items()
        ),
        ("model", found.model["version"], found.model["name"]),
    ]


def _seconds(values: Percentiles) -> str:
    if values.p50 is None or values.p90 is None:
        return "-"
    return f"{values.p50:.1f} / {values.p90:.1f} s"


def _milliseconds(values: Percentiles) -> str:
    if values.p50 is None or values.p99 is None:
        return "-"
    return f"{values.p50:.0f} / {values.p99:.0f} ms"


def _verdict(found: Findings) -> Text:
    if found.sound:
        return Text("lost: 0, duplicated: 0", style="bold green")
    return Text(
        f"lost: {found.lost}, duplicated: {found.duplicated}, "
        f"alerts twice: {found.duplicate_alerts}",
        style="bold red",
    )
