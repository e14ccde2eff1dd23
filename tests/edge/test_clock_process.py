"""A real gateway whose machine boots in 1970, learns the time, loses it, and is switched off."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from edge_parts import FAULTY, HEALTHY, Fleet, GatewayProcess, batch, identities, running, until
from edge_world import World, made

from deploy.stack import Stack
from schemas.topics import ALERTS, CLOCKS, DEAD_LETTERS, GATEWAY_STATUS, TELEMETRY
from transport.kafka import Message, read_to_end
from transport.release_records import headers_of
from transport.settings import KafkaSettings

pytestmark = pytest.mark.integration

HOUR_MS = 3_600_000
YEAR_MS = 8_766 * HOUR_MS
SLACK_MS = 2_000
NOWHERE = KafkaSettings(bootstrap_servers="127.0.0.1:1", registry_url="http://127.0.0.1:1")


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def monotonic_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class Machine:
    """The clocks of the gateway's machine; see `gateway_child.FileClock`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._facts: dict[str, Any] = {}

    def boot(self, name: str, *, shows_ms: int) -> None:
        """Switched on a moment ago, with a clock that is not set."""
        booted_ms = monotonic_ms() - 20_000
        self._set(boot=name, booted_ms=booted_ms, offset_ms=shows_ms - now_ms(), right=False)

    def jump(self, ms: int, *, right: bool) -> None:
        """The clock is off by this from now on."""
        self._set(offset_ms=ms, right=right)

    def _set(self, **facts: object) -> None:
        self._facts |= facts
        whole = self.path.with_suffix(".new")
        whole.write_text(json.dumps(self._facts), "utf-8")
        whole.replace(self.path)


class Car:
    """A vehicle that boots in 1970 with its first batch."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        self.name = name
        self.zero_ms = now_ms()
        self._fleet = fleet
        self._seq = 0

    def send(self, count: int, *, faulty: bool = False, synced: bool = False) -> None:
        for _ in range(count):
            self._seq += 1
            uptime_ms = now_ms() - self.zero_ms
            payload = batch(
                self.name,
                self._seq,
                event_ms=uptime_ms + (self.zero_ms if synced else 0),
                uptime_ms=uptime_ms,
                synced=synced,
                signals=FAULTY if faulty else HEALTHY,
            )
            self._fleet.hold(self.name, self._seq, payload)
        self._fleet.settle()


def messages_of(world: World, car: str) -> list[Message]:
    """Telemetry of a vehicle in Kafka, in order of its batches."""
    found = [
        message
        for batch_of in read_to_end(world.kafka, TELEMETRY.name)
        for message in batch_of
        if message.key() == car.encode()
    ]
    return sorted(found, key=lambda message: int(headers(message)["seq"]))


def alert_times_ms(world: World, car: str) -> list[int]:
    """Record times of a vehicle's alerts."""
    return [
        int(message.timestamp()[1])
        for batch_of in read_to_end(world.kafka, ALERTS.name)
        for message in batch_of
        if message.key() == car.encode()
    ]


def headers(message: Message) -> dict[str, bytes]:
    return {name: value for name, value in headers_of(message) if value is not None}


def test_a_gateway_without_a_clock_stores_alerts_and_corrects_its_times_later(
    stack: Stack, tmp_path: Path
) -> None:
    world = made(stack, tmp_path)
    world.install()
    machine = Machine(tmp_path / "clock.json")
    machine.boot("one", shows_ms=5_000)
    hooks = {"clock": str(machine.path)}
    online = world.gateway(hooks=hooks, status_interval_s=0.2)
    offline = GatewayProcess(
        online.directory,
        world.mqtt,
        NOWHERE,
        hooks=hooks,
        gateway_id=world.name,
        model_name=world.name,
    )
    began_ms = now_ms()
    with Fleet(world.mqtt) as fleet:
        car = Car(fleet, world.vehicle("a"))
        with running(offline):
            car.send(3, faulty=True)  # an alert, in 1970
            until("alert on MQTT", lambda: fleet.alerts.get(car.name))
            car.send(2)
            assert offline.stop() == 0
        corrected_by_ms = now_ms()
        machine.jump(0, right=True)
        with running(online):
            until("clock is right", lambda: _synced(world) is True)
            car.send(1)
            for jump_ms, faulty in ((YEAR_MS, True), (-HOUR_MS, False)):
                machine.jump(jump_ms, right=False)
                until("clock was lost", lambda: _synced(world) is False)
                car.send(2, faulty=faulty, synced=True)  # the vehicle has learnt the time meanwhile
                machine.jump(0, right=True)
                until("clock is right again", lambda: _synced(world) is True)
            car.send(1, synced=True)
            assert online.stop() == 0
        known_by_ms = now_ms()
        machine.boot("two", shows_ms=7_000)
        with running(online):
            car.send(2, synced=True)
            until("all is in Kafka", lambda: len(world.mine(TELEMETRY)) == 13)
            assert online.stop() == 0

    assert identities(world.mine(TELEMETRY)) == [(car.name, 1, n) for n in range(1, 14)]
    messages = messages_of(world, car.name)
    told = [headers(message) for message in messages]
    times_ms = [int(each["received_ms"]) for each in told]
    assert [message.timestamp()[1] for message in messages] == times_ms
    assert [each.get("received_corrected") for each in told] == [b"1"] * 5 + [None] * 8
    assert all(int(each["received_raw_ms"]) < began_ms - HOUR_MS for each in told[:5])
    assert all(began_ms - SLACK_MS <= t <= corrected_by_ms + SLACK_MS for t in times_ms[:5])
    assert all(corrected_by_ms - SLACK_MS <= t <= known_by_ms + SLACK_MS for t in times_ms[5:11])
    assert [each.get("clock_synced") for each in told] == [None] * 11 + [b"0"] * 2
    assert [(a["state"], a["seq"], a["late"]) for a in world.mine(ALERTS)] == [
        ("OPEN", 2, False),
        ("CLOSED", 6, False),
        ("OPEN", 8, False),
        ("CLOSED", 11, False),
    ]
    # Also of the alert in 1970: a Kafka that keeps records for a week would drop it at once.
    assert all(t >= began_ms - SLACK_MS for t in alert_times_ms(world, car.name))
    (clock,) = [each for each in world.mine(CLOCKS) if each["source"] == "vehicle"]
    assert clock["synced_from_seq"] == 7
    zero_ms = round(clock["zero_time"].timestamp() * 1000)
    assert abs(zero_ms - car.zero_ms) <= clock["error_ms"]
    assert abs(clock["offset_ms"] - car.zero_ms) <= clock["error_ms"]
    assert world.mine(DEAD_LETTERS) == []


def _synced(world: World) -> bool | None:
    """What the newest heartbeat says of the gateway's clock."""
    statuses = world.mine(GATEWAY_STATUS)
    return bool(statuses[-1]["clock_synced"]) if statuses else None
