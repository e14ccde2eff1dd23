"""What a gateway says of itself, and whether that is well.

`GatewayStatus` goes to `gateway.status` and, retained, to MQTT; the control socket tells more. An
uplink that is away is what a gateway is there for, so it is told and not held against it.
"""

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from edge.gateway_metrics import unsent_age_s
from edge.health import CONNECTED, Health
from edge.machine import disk_free_bytes, rss_bytes, temperature_celsius
from edge.settings import GatewaySettings
from edge.spool import Spool
from edge.timekeeper import Timekeeper
from schemas.records import Record

HOT_CELSIUS = 80.0
"""From there on a Raspberry Pi slows itself down."""

FULL_SHARE = 0.95
NO_MODEL = "no model yet"


class StatusTaker:
    """Takes the status of a gateway; from any thread.

    It asks for nothing that a disk which hangs could keep, so that even then it tells what hangs.

    Args:
        settings: Of the gateway.
        spool: Its size and age.
        health: Counts and states.
        mqtt_connected: Whether the MQTT broker is there.
        keeper: What time it is.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        spool: Spool,
        health: Health,
        *,
        mqtt_connected: Callable[[], bool],
        keeper: Timekeeper,
    ) -> None:
        self._settings = settings
        self._spool = spool
        self._health = health
        self._mqtt_connected = mqtt_connected
        self._keeper = keeper
        self._began_s = time.monotonic()

    def record(self) -> Record:
        """A `GatewayStatus`.

        Raises:
            SpoolError: The spool cannot be read for now.
        """
        health = self._health
        now = self._keeper.now()
        return {
            "gateway_id": self._settings.gateway_id,
            "time": now.received_ms,
            "uptime_s": time.monotonic() - self._began_s,
            "received": health.received,
            "duplicates": health.duplicates,
            "dead_letters": health.dead_letters,
            "forwarded": health.forwarded,
            "spool_depth": max(0, self._spool.depth() - health.ahead),
            "spool_bytes": self._spool.size_bytes(),
            "uplink": health.uplink,
            "model_version": health.model_version,
            "vehicle_drops": health.vehicle_drops,
            "spool_oldest_age_s": unsent_age_s(self._spool, now),
            "backlog_depth": health.backlog_depth,
            "drops": dict(health.drops),
            "disk_free_bytes": disk_free_bytes(self._settings.spool_path.parent),
            "clock_synced": self._keeper.synced,
            "rss_bytes": rss_bytes(),
            "temperature_celsius": temperature_celsius(),
            "model_name": None if health.model_version is None else self._settings.model_name,
            "model_sha256": health.model_sha256,
            "scoring": health.scoring,
            "spool": health.spool,
            "mqtt_connected": self._mqtt_connected(),
            "model_rollback": health.model_rollback,
        }

    def full(self) -> dict[str, Any]:
        """The record, and what only the control socket tells; as JSON may hold it. Raises so."""
        record = self.record()
        health, settings = self._health, self._settings
        hanging = health.pulse.hanging()
        return {
            **record,
            "stored": health.stored,
            "scored": health.scored,
            "alerts": health.alerts,
            "acks": health.acks,
            "disk_refusals": health.disk_refusals,
            "spool_bytes_max": settings.spool_bytes_max,
            "spool_bytes_allowed": bytes_allowed(record, settings, self._spool.quota_bytes),
            "disk_free_min_bytes": settings.disk_free_min_bytes,
            "group_commit_ms": settings.group_commit_ms,
            "faults": faults(record, settings, self._spool.quota_bytes)
            + [f"hangs: {loop}" for loop in hanging],
            "notes": notes(record),
            "hanging": hanging,
            "last_problems": [asdict(problem) for problem in health.announcer.problems()],
        }


def bytes_allowed(status: Record, settings: GatewaySettings, quota_bytes: int) -> int:
    """What the spool may take in truth.

    Args:
        status: Of the gateway.
        settings: Of the gateway.
        quota_bytes: The quota that holds now, which a lower `spool_bytes_max` brings down only as
            what is unsent drains. The disk may have less room than that.
    """
    free_bytes = int(status["disk_free_bytes"])
    if free_bytes < 0:
        return quota_bytes
    room = max(0, free_bytes - settings.disk_free_min_bytes)
    return min(quota_bytes, int(status["spool_bytes"]) + room)


def faults(status: Record, settings: GatewaySettings, quota_bytes: int) -> list[str]:
    """What is wrong with a gateway, in words; empty for a healthy one."""
    looks = (
        (not status["mqtt_connected"], "the MQTT broker is away: nothing comes in"),
        (status["spool"] != "ok", f"the spool: {status['spool']}"),
        (status["scoring"] not in ("ok", NO_MODEL), f"scoring: {status['scoring']}"),
        (_is_full(status, settings, quota_bytes), "the spool is full: the oldest telemetry goes"),
        (_is_low(status, settings), "the disk has less room than disk_free_min_bytes"),
        (_is_hot(status), f"the board is hotter than {HOT_CELSIUS:g} °C and slows down"),
    )
    return [text for wrong, text in looks if wrong]


def notes(status: Record) -> list[str]:
    """What a person should know of a gateway that may be healthy all the same."""
    looks = (
        (status["uplink"] != CONNECTED, f"not forwarding, storing on: {status['uplink']}"),
        (status["scoring"] == NO_MODEL, "no model yet: it stores and forwards, and does not score"),
        (not status["clock_synced"], "the clock is not known to be right"),
        (status["model_rollback"], f"went back to an earlier model: {status['model_rollback']}"),
    )
    return [text for there, text in looks if there]


def _is_full(status: Record, settings: GatewaySettings, quota_bytes: int) -> bool:
    # What is forwarded and kept as history goes first and harms nobody.
    full_bytes = FULL_SHARE * bytes_allowed(status, settings, quota_bytes)
    return int(status["spool_depth"]) > 0 and int(status["spool_bytes"]) >= full_bytes


def _is_low(status: Record, settings: GatewaySettings) -> bool:
    return 0 <= int(status["disk_free_bytes"]) < settings.disk_free_min_bytes


def _is_hot(status: Record) -> bool:
    celsius: float | None = status["temperature_celsius"]
    return celsius is not None and celsius >= HOT_CELSIUS
