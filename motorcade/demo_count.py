"""Counts after the drive: what Kafka holds against what the vehicles measured."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cloud.audit import (
    AlertLog,
    Latency,
    MeasuredBoot,
    alert_latency,
    judge_alerts,
    tally,
)
from cloud.audit_reader import Found
from cloud.protocol import Event
from motorcade.demo_report import Findings
from schemas.records import Record
from simulator.ledger import Ledger

ORIGINS = ("EDGE", "CLOUD")
FOREVER_MS = 1 << 53


@dataclass(frozen=True, slots=True)
class Witnessed:
    """What the demo itself saw while the fleet drove.

    Attributes:
        arrivals_ms: Alert id to when its opening arrived at a watcher, by origin.
        model: name, version and sha256 of the model.
        model_loaded_ms: Wall time at which edge and cloud both had it.
        outage_s: How long Kafka was down.
        backlogs_ms: Stretches of wall time, first and last: what was measured in them was not
            looked at when it was measured, but later (before the model, in the outage).
    """

    arrivals_ms: Mapping[str, Mapping[str, int]]
    model: dict[str, str]
    model_loaded_ms: int
    outage_s: float
    backlogs_ms: Sequence[tuple[int, int]] = ()


@dataclass(frozen=True, slots=True)
class Fleet:
    """What the vehicles say of themselves.

    Attributes:
        boots: What each measured.
        acknowledged: Readings that a gateway said are on its disk.
        faults: What was injected.
    """

    boots: Sequence[MeasuredBoot]
    acknowledged: int
    faults: Sequence[Event]


def fleet_of(ledger: Ledger) -> Fleet:
    """The fleet's account in the words of the audit."""
    return Fleet(
        boots=[
            MeasuredBoot(
                vehicle_id=boot.vehicle_id,
                boot_id=boot.boot_id,
                last_seq=boot.last_seq,
                readings=boot.readings,
                dropped_seq=np.asarray(boot.dropped_seq, np.int64),
                dropped_readings=boot.dropped_readings,
                published_ms=np.asarray(boot.measured_ms, np.int64),
            )
            for boot in ledger.boots
        ],
        acknowledged=ledger.acknowledged,
        faults=[
            Event(
                fault.vehicle_id,
                fault.start_event_ms,
                FOREVER_MS if fault.end_event_ms is None else fault.end_event_ms,
                fault.code,
            )
            for fault in ledger.faults
        ],
    )


def count(found: Found, fleet: Fleet, witnessed: Witnessed) -> Findings:
    """Put the three accounts beside each other. Pure."""
    observed = _observed(found, fleet.boots, witnessed.model_loaded_ms)
    alerts = found.alerts.unique
    return Findings(
        measured=sum(boot.readings for boot in fleet.boots),
        acknowledged=fleet.acknowledged,
        dropped=sum(boot.dropped_readings for boot in fleet.boots),
        in_kafka=tally(fleet.boots, found.telemetry),
        scored=tally(fleet.boots, found.scores),
        judgement=judge_alerts(alerts, fleet.faults, observed=observed),
        by_origin={
            origin.lower(): judge_alerts(alerts, fleet.faults, observed=observed, origin=origin)
            for origin in ORIGINS
        },
        latency={
            origin.lower(): _latency(found.alerts, fleet.boots, witnessed, origin)
            for origin in ORIGINS
        },
        alerts={origin.lower(): _openings(alerts, origin) for origin in ORIGINS},
        duplicate_alerts=found.alerts.duplicates,
        outage_s=witnessed.outage_s,
        model=witnessed.model,
    )


def _observed(
    found: Found, boots: Iterable[MeasuredBoot], since_wall_ms: int
) -> dict[str, tuple[int, int]]:
    """Each vehicle's event time with a model; before it nothing could alert."""
    observed = {}
    for boot in boots:
        first, last = found.observed.get(boot.vehicle_id, (0, -1))
        since = event_ms_at(since_wall_ms, boot, (first, last))
        if since < last:
            observed[boot.vehicle_id] = (since, last)
    return observed


def event_ms_at(wall_ms: int, boot: MeasuredBoot, span: tuple[int, int]) -> int:
    """What a vehicle's clock said at a wall time; a replay's runs faster and in the past.

    Between the first and the last batch of the boot, on a straight line.

    Args:
        wall_ms: When.
        boot: With `published_ms`; without, the clocks are taken to be the same.
        span: First and last event time of the vehicle.
    """
    first, last = span
    if len(boot.published_ms) < 2 or boot.published_ms[-1] == boot.published_ms[0]:
        return max(first, wall_ms)
    began, ended = int(boot.published_ms[0]), int(boot.published_ms[-1])
    share = (wall_ms - began) / (ended - began)
    return max(first, first + round(share * (last - first)))


def _openings(alerts: Iterable[Record], origin: str) -> int:
    return sum(alert["origin"] == origin and alert["state"] == "OPEN" for alert in alerts)


def _latency(
    alerts: AlertLog, boots: Sequence[MeasuredBoot], witnessed: Witnessed, origin: str
) -> Latency:
    """First publish of the deciding reading to the arrival at a watcher.

    The arrival stands in for the score time, which leaves out the way to whoever is told. An
    alert that the watcher missed keeps its score time. The cloud's alerts on a backlog are told
    apart as late: they measure the outage. The edge has none, it looks at what is new.
    """
    arrivals = witnessed.arrivals_ms.get(origin.lower(), {})
    published = {(boot.vehicle_id, boot.boot_id): boot.published_ms for boot in boots}
    backlogs = witnessed.backlogs_ms if origin == "CLOUD" else ()

    def as_it_arrived(alert: Record) -> Record:
        times = published.get((alert["vehicle_id"], alert["boot_id"]), ())
        at_ms = times[alert["seq"] - 1] if 1 <= alert["seq"] <= len(times) else -1
        late = alert["late"] or any(first <= at_ms <= last for first, last in backlogs)
        arrived_ms = arrivals.get(alert["alert_id"], alert["score_time"])
        return {**alert, "score_time": arrived_ms, "late": late}

    return alert_latency(map(as_it_arrived, alerts.unique), boots, origin=origin)
