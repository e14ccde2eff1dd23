"""What a gateway says of itself: numbers of the machine, faults, and lines for a person."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from edge_parts import FakeClock

from edge.announce import Announcer
from edge.health import CONNECTED, Health
from edge.machine import disk_free_bytes, rss_bytes, temperature_celsius
from edge.settings import GatewaySettings
from edge.spool import Spool
from edge.status import StatusTaker, bytes_allowed, faults, notes
from edge.timekeeper import Timekeeper
from motorcade.gateway_lines import status_lines
from schemas.records import decode_single_object, encode_single_object, parsed_schema

SETTINGS = GatewaySettings(spool_bytes_max=1_000, disk_free_min_bytes=100)
GOOD: dict[str, Any] = {
    "mqtt_connected": True,
    "spool": "ok",
    "scoring": "ok",
    "spool_depth": 5,
    "spool_bytes": 500,
    "disk_free_bytes": 10_000,
    "temperature_celsius": None,
    "uplink": CONNECTED,
    "clock_synced": True,
    "model_rollback": None,
    "model_version": "1",
    "model_sha256": "ab",
}


def test_the_status_of_a_real_spool_fits_its_schema_and_counts_as_healthy(tmp_path: Path) -> None:
    settings = GatewaySettings(spool_path=tmp_path / "spool", disk_free_min_bytes=1)
    spool = Spool(settings.spool_path, now_ms=1)
    health = Health(Announcer(wall_ms=lambda: 0), uplink="away")
    health.announcer.warn("uplink", "lost it")
    keeper = Timekeeper(FakeClock(), spool)
    taker = StatusTaker(settings, spool, health, mqtt_connected=lambda: True, keeper=keeper)
    try:
        record, full = taker.record(), taker.full()
    finally:
        spool.close()
    assert set(record) == {field["name"] for field in parsed_schema("GatewayStatus")["fields"]}
    assert decode_single_object("GatewayStatus", encode_single_object("GatewayStatus", record))
    assert set(record) < set(full)
    assert full["faults"] == []
    assert record["rss_bytes"] > 1_000_000
    assert record["disk_free_bytes"] > 0
    text = "\n".join(status_lines(full))
    for expected in ("healthy", "not forwarding", "1970-01-01 00:00:00Z  lost it"):
        assert expected in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        ({"uplink": "refused"}, None),
        ({"scoring": "no model yet"}, None),
        ({"clock_synced": False}, None),
        ({"mqtt_connected": False}, "MQTT"),
        ({"spool": "disk full"}, "disk full"),
        ({"scoring": "model 2 failed"}, "model 2 failed"),
        ({"spool_bytes": 990}, "oldest telemetry goes"),
        ({"spool_bytes": 990, "spool_depth": 0}, None),
        ({"disk_free_bytes": 99}, "less room"),
        ({"disk_free_bytes": -1}, None),
        ({"temperature_celsius": 79.9}, None),
        ({"temperature_celsius": 80.0}, "slows down"),
    ],
)
def test_what_is_a_fault_and_what_is_not(change: dict[str, Any], said: str | None) -> None:
    found = faults(GOOD | change, SETTINGS, 1_000)
    assert bool(found) is (said is not None)
    assert said is None or said in " ".join(found)


@pytest.mark.parametrize(
    "change", [{"uplink": "x"}, {"scoring": "no model yet"}, {"clock_synced": False}]
)
def test_what_is_no_fault_is_told_all_the_same(change: dict[str, Any]) -> None:
    assert notes(GOOD) == []
    assert len(notes(GOOD | change)) == 1


def test_a_disk_without_room_lowers_the_quota() -> None:
    assert bytes_allowed(GOOD, SETTINGS, 1_000) == 1_000
    assert bytes_allowed(GOOD | {"disk_free_bytes": 300}, SETTINGS, 1_000) == 700
    assert bytes_allowed(GOOD | {"disk_free_bytes": 50}, SETTINGS, 1_000) == 500
    assert bytes_allowed(GOOD | {"disk_free_bytes": -1}, SETTINGS, 1_000) == 1_000


def test_a_board_tells_its_hottest_zone(tmp_path: Path) -> None:
    assert temperature_celsius(tmp_path) is None
    for zone, text in enumerate(["45123", "61000", "off", "-273000"]):
        (tmp_path / f"thermal_zone{zone}").mkdir()
        (tmp_path / f"thermal_zone{zone}" / "temp").write_text(text)
    assert temperature_celsius(tmp_path) == 61.0


def test_what_the_system_does_not_tell_is_minus_one(tmp_path: Path) -> None:
    assert rss_bytes(tmp_path / "none") == -1
    assert disk_free_bytes(tmp_path / "none") == -1


def test_the_c_library_of_a_gateway_can_keep_one_heap() -> None:
    program = "from edge.machine import keep_one_heap; raise SystemExit(not keep_one_heap())"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
