"""Metrics of the gateway: taken from its health when asked for, and once for each batch scored."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edge.health import CONNECTED, Health
from edge.history import moments
from edge.marks import Mark
from edge.rows import StoredTelemetry
from edge.spool import Spool
from edge.timekeeper import Moment, Stamp, age_ms, is_true
from schemas.columns import TelemetryColumns
from scoring.bundle import Bundle
from scoring.stream import Scored
from scoring.traffic import CHAMPION
from transport import metrics
from transport.metric_kinds import is_recording

DEPLOYMENT = "edge"


def fill(health: Health, status: Mapping[str, Any]) -> None:
    """Tell what the gateway counts anyway.

    Args:
        health: Its counts.
        status: What the control socket tells (`edge.status.StatusTaker.full`).
    """
    metrics.GATEWAY_RECEIVED.hold(health.received)
    metrics.GATEWAY_STORED.hold(health.stored)
    metrics.GATEWAY_DUPLICATES.hold(health.duplicates)
    metrics.GATEWAY_REFUSED.hold(health.dead_letters)
    metrics.GATEWAY_ACKS.hold(health.acks)
    metrics.GATEWAY_FORWARDED.hold(health.forwarded)
    metrics.GATEWAY_VEHICLE_DROPS.hold(health.vehicle_drops)
    metrics.GATEWAY_DISK_REFUSALS.hold(health.disk_refusals)
    metrics.GATEWAY_CONNECTED.set(health.uplink == CONNECTED, peer="kafka")
    _fill_from_status(status)


def _fill_from_status(status: Mapping[str, Any]) -> None:
    for name, gauge in _GAUGES.items():
        gauge.set(status[name])
    metrics.GATEWAY_CONNECTED.set(status["mqtt_connected"], peer="mqtt")
    metrics.GATEWAY_FAULTS.set(len(status["faults"]))
    metrics.GATEWAY_HANGING.set(len(status["hanging"]))
    if status["temperature_celsius"] is not None:
        metrics.GATEWAY_TEMPERATURE.set(status["temperature_celsius"])
    for reason, count in status["drops"].items():
        metrics.GATEWAY_DROPS.hold(count, reason=reason)


_GAUGES = {
    "spool_depth": metrics.GATEWAY_SPOOL_ROWS,
    "spool_bytes": metrics.GATEWAY_SPOOL_BYTES,
    "spool_bytes_allowed": metrics.GATEWAY_SPOOL_ALLOWED,
    "spool_oldest_age_s": metrics.GATEWAY_UNSENT_AGE,
    "backlog_depth": metrics.GATEWAY_BACKLOG_ROWS,
    "disk_free_bytes": metrics.GATEWAY_DISK_FREE,
    "clock_synced": metrics.GATEWAY_CLOCK,
}


def unsent_age_s(spool: Spool, now: Stamp) -> float:
    """Seconds since the oldest telemetry that is not in Kafka was received; 0 without any.

    By monotonic time, so at least that: see `edge.timekeeper.age_ms`.
    """
    reader = spool.reader()
    try:
        oldest = moments(reader)(spool.marks[Mark.FORWARDED_TELEMETRY] + 1)
    finally:
        reader.close()
    return 0.0 if oldest is None else age_ms(oldest, now) / 1000.0


def model_in_use(bundle: Bundle) -> None:
    """The gateway scores with this one from now on."""
    metrics.model_in_use(
        "gateway",
        model=bundle.manifest.name,
        version=bundle.manifest.version,
        arm=CHAMPION,
        sha256=bundle.manifest.model_sha256,
    )


class ScoreMeter:
    """Takes the time of one batch, from when it is made."""

    def __init__(self, now: Callable[[], Stamp]) -> None:
        self._now = now
        self._began_s = time.monotonic()

    def scored(
        self,
        bundle: Bundle,
        rows: Sequence[StoredTelemetry],
        columns: TelemetryColumns,
        scored: Scored,
    ) -> None:
        """The batch was scored."""
        if not is_recording():
            return
        compute_s = time.monotonic() - self._began_s
        now = self._now()
        labels = {
            "model": bundle.manifest.name,
            "version": bundle.manifest.version,
            "arm": CHAMPION,
            "deployment": DEPLOYMENT,
        }
        ages_ms = [age_ms(Moment(row.gateway_boot, row.monotonic_ms), now) for row in rows]
        waited_s = np.maximum(0.0, np.array(ages_ms) / 1000.0 - compute_s)
        ages_s = metrics.ages_s(columns, now.received_ms)
        metrics.poll_scored(
            ages_s if is_true(now.gateway_boot) else np.full_like(ages_s, np.nan),
            messages=len(rows),
            queue_s=waited_s,
            compute_s=compute_s,
            labels=labels,
        )
        metrics.SCORE_MESSAGES.add(len(rows), **labels)
        metrics.SCORE_READINGS.add(len(scored.scores), **labels)
        opened = sum(transition.state == "OPEN" for transition in scored.transitions)
        metrics.SCORE_ALERTS.add(opened, change="opened", **labels)
        metrics.SCORE_ALERTS.add(len(scored.transitions) - opened, change="closed", **labels)
