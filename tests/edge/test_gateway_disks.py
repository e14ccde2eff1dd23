"""A gateway on disks that are full, read-only, forbidden or limited, and well again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from edge_parts import Fleet, GatewayProcess, identities, reading, running, until
from edge_world import World, made
from small_disks import WITH_MOUNTS, WITHOUT_MOUNTS, MakeDisk, may_mount, switch_of

from deploy.stack import Stack
from edge.control_client import ask
from schemas.records import encode_single_object
from schemas.topics import GAPS, TELEMETRY
from transport.settings import KafkaSettings

pytestmark = pytest.mark.integration

# Where mounts are not allowed the others show the same refusals, so nothing is skipped.
DISKS = WITH_MOUNTS if may_mount() else WITHOUT_MOUNTS


@pytest.fixture
def world(stack: Stack, tmp_path: Path) -> World:
    return made(stack, tmp_path)


@pytest.fixture
def fleet(world: World) -> Iterator[Fleet]:
    with Fleet(world.mqtt) as fleet:
        yield fleet


def status(gateway: GatewayProcess) -> dict[str, Any]:
    return ask(gateway.directory / "c", "status")


@pytest.mark.parametrize("make_disk", DISKS, ids=lambda make: make.__name__)
def test_a_disk_that_refuses_is_told_and_nothing_is_acknowledged_before_it_is_healed(
    world: World, fleet: Fleet, make_disk: MakeDisk
) -> None:
    car = world.vehicle("a")
    spool = world.directory / "gateway" / "spool"
    spool.mkdir(parents=True)
    gateway = world.gateway(disk_free_min_bytes=0, hooks={"refuse": str(switch_of(spool))})
    with make_disk(spool) as disk, running(gateway):
        assert status(gateway)["spool"] == "ok"
        disk.refuse(gateway)
        for seq in range(1, 6):
            fleet.send(car, seq)
        until("the gateway says so", lambda: disk.says in status(gateway)["spool"])
        fleet.send_again()
        until("it is tried again", lambda: status(gateway)["disk_refusals"] > 2)
        assert fleet.acks == []
        if disk.heals_only_unmounted:
            assert gateway.stop() == 0
            disk.heal(gateway)
            gateway.start()
        else:
            disk.heal(gateway)
        fleet.settle()
        assert status(gateway)["spool"] == "ok"
        world.wait_for(TELEMETRY, 5)
        assert gateway.stop() == 0
    assert identities(world.mine(TELEMETRY)) == [(car, 1, seq) for seq in range(1, 6)]


AWAY = KafkaSettings(bootstrap_servers="127.0.0.1:1", registry_url="http://127.0.0.1:1")
QUOTA_BYTES = 1024 * 1024


def large_batch(vehicle: str, seq: int) -> bytes:
    """A batch of some 25 KiB."""
    record = {
        "vehicle_id": vehicle,
        "boot_id": 1,
        "seq": seq,
        "oldest_seq": 1,
        "uptime_ms": 1_000 * seq,
        "clock_synced": True,
        "readings": [reading(index) for index in range(600 * seq, 600 * seq + 600)],
    }
    return encode_single_object("TelemetryBatch", record)


def test_what_a_reached_quota_let_go_is_told_and_the_rest_arrives(
    world: World, fleet: Fleet
) -> None:
    car, count = world.vehicle("a"), 100
    wanted: dict[str, Any] = {
        "gateway_id": world.name,
        "model_name": world.name,
        "disk_free_min_bytes": 0,
    }
    wanted |= {"spool_bytes_max": QUOTA_BYTES}
    directory = world.directory / "gateway"
    with running(GatewayProcess(directory, world.mqtt, AWAY, **wanted)) as offline:
        for seq in range(1, count + 1):
            fleet.held[car, 1, seq] = large_batch(car, seq)
        assert sum(map(len, fleet.held.values())) > 2 * QUOTA_BYTES
        fleet.send_again()
        fleet.settle()
        until("the drops are told", lambda: status(offline)["drops"].get("quota", 0) > 0)
        assert status(offline)["spool_bytes"] < 1.2 * QUOTA_BYTES
        offline.kill()
    with running(GatewayProcess(directory, world.mqtt, world.kafka, **wanted)) as online:
        until("all is in Kafka", lambda: status(online)["spool_depth"] == 0)
        # The total outlives the process; housekeeping tells it within a second.
        until("the drops are told", lambda: status(online)["drops"].get("quota", 0) > 0)
        told = status(online)
        assert online.stop() == 0
    arrived = [seq for _, _, seq in identities(world.mine(TELEMETRY))]
    gaps = [seq for gap in world.mine(GAPS) for seq in range(gap["first_seq"], gap["last_seq"] + 1)]
    assert sorted(arrived + gaps) == list(range(1, count + 1))
    assert len(gaps) == told["drops"]["quota"]
