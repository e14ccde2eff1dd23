"""A real gateway process between a real MQTT broker and a real Kafka."""

from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

import pytest
from edge_parts import (
    FAULTY,
    HEALTHY,
    Fleet,
    batch,
    bundle,
    identities,
    running,
    until,
)
from edge_world import World, made

from deploy.stack import Stack
from edge.check import check
from edge.control_client import NotRunningError, ask
from edge.settings import GatewaySettings
from schemas.errors import Reason
from schemas.records import (
    Record,
    encode_confluent,
    encode_single_object,
    single_object_header,
)
from schemas.topics import (
    ALERTS,
    DEAD_LETTERS,
    GATEWAY_STATUS,
    LABELS,
    RELEASES,
    TELEMETRY,
    TRAFFIC,
)
from scoring.catalog import Catalog
from scoring.traffic import Traffic
from transport.catalog import write_traffic
from transport.kafka import Outgoing, publish, register_schemas
from transport.releases import publish_release, release_key
from transport.settings import KafkaSettings

pytestmark = pytest.mark.integration


@pytest.fixture
def world(stack: Stack, tmp_path: Path) -> World:
    return made(stack, tmp_path)


@pytest.fixture
def fleet(world: World) -> Iterator[Fleet]:
    with Fleet(world.mqtt) as fleet:
        yield fleet


def expected(vehicle: str, last: int, *, boot: int = 1) -> list[tuple[str, int, int]]:
    return [(vehicle, boot, seq) for seq in range(1, last + 1)]


def test_a_reading_travels_to_kafka_and_an_alert_to_both_sides(world: World, fleet: Fleet) -> None:
    car, other = world.vehicle("a"), world.vehicle("b")
    with running(world.gateway()) as gateway:
        for seq in range(1, 6):
            fleet.send(car, seq)
            fleet.send(other, seq)
        fleet.settle()
        publish_release(world.kafka, world.bundle())
        until("model in use", lambda: f"scoring with {world.name} 1" in gateway.log())
        for seq in range(6, 9):
            fleet.send(car, seq, signals=FAULTY)
            fleet.send(other, seq)
        until("alert on MQTT", lambda: fleet.alerts.get(car))
        for seq in range(9, 13):
            fleet.send(car, seq)
        until("alert emptied", lambda: fleet.alerts.get(car) == b"")
        fleet.settle()
        label = {
            "vehicle_id": car,
            "label": "test",
            "signal": None,
            "start_time": 0,
            "end_time": None,
            "severity": 1.0,
            "source": "test",
        }
        fleet.publish(car, encode_single_object("VehicleLabel", label), leaf="label")
        world.wait_for(LABELS, 1)
        assert gateway.stop() == 0
    assert identities(world.mine(TELEMETRY)) == expected(car, 12) + expected(other, 8)
    alerts = world.mine(ALERTS)
    assert [(a["state"], a["seq"], a["gateway_id"]) for a in alerts] == [
        ("OPEN", 7, world.name),
        ("CLOSED", 11, world.name),
    ]
    assert alerts[0]["signals"][0]["name"] == "speed"
    last = world.mine(GATEWAY_STATUS)[-1]
    assert (last["spool_depth"], last["model_version"]) == (0, "1")
    assert other not in fleet.alerts


POINTS = [
    ("before store", 2),
    ("after store", 2),
    ("after mqtt ack", 2),
    ("before alert store", 1),
    ("after alert store", 1),
    ("before alert publish", 2),
    ("after alert publish", 2),
    ("after alerts published", 1),
    ("after produce", 3),
    ("before commit", 2),
    ("after commit", 2),
    ("after note", 3),
    ("after trim", 2),
]


def test_killed_at_every_point_everything_arrives_once(world: World, fleet: Fleet) -> None:
    cars = [world.vehicle(name) for name in "abc"]
    gateway = world.gateway(group_commit_max=5, history_messages_max=50)
    world.install()
    seq = 0
    try:
        for point in POINTS:
            gateway.start(crash=point)
            for signals in 3 * (3 * [FAULTY] + 4 * [HEALTHY]):  # opens and closes, three times
                seq += 1
                for car in cars:
                    fleet.send(car, seq, signals=signals if car is cars[0] else HEALTHY)
            assert gateway.wait_gone() == -9, point
        gateway.start()
        fleet.settle()
        openings = 3 * len(POINTS)
        alerts = world.wait_for(ALERTS, 2 * openings)
        until("alert emptied", lambda: fleet.alerts.get(cars[0]) == b"")
        assert gateway.stop() == 0
    finally:
        gateway.kill()
    assert identities(world.mine(TELEMETRY)) == sorted(
        identity for car in cars for identity in expected(car, seq)
    )
    told = [(a["alert_id"], a["state"]) for a in alerts]
    assert len(set(told)) == len(told) == 2 * openings
    assert [state for _, state in told] == ["OPEN", "CLOSED"] * openings


def truncated(world: World, car: str) -> bytes:
    return batch(car, 3)[:-4]


def not_avro(world: World, car: str) -> bytes:
    return b'{"speed": 50}'


def unknown_fingerprint(world: World, car: str) -> bytes:
    return b"\xc3\x01" + b"\x07" * 8 + batch(car, 3)[10:]


def wrong_schema(world: World, car: str) -> bytes:
    ack = {"gateway_id": car, "boot_id": 1, "seq": 1, "ranges": []}
    body = encode_single_object("Ack", ack)[10:]
    return single_object_header("TelemetryBatch") + body


def oversized(world: World, car: str) -> bytes:
    return batch(car, 3) + bytes(300_000)


def out_of_range(world: World, car: str) -> bytes:
    return batch(car, 3, signals={"speed": 9_999.0})


def not_a_number(world: World, car: str) -> bytes:
    return batch(car, 3, signals={"speed": float("nan")})


def other_vehicle(world: World, car: str) -> bytes:
    return batch(world.vehicle("somebody-else"), 3)


BAD: list[tuple[Callable[[World, str], bytes], set[Reason]]] = [
    (truncated, {Reason.TRUNCATED, Reason.MALFORMED}),
    (not_avro, {Reason.NOT_AVRO}),
    (unknown_fingerprint, {Reason.UNKNOWN_FINGERPRINT}),
    (wrong_schema, {Reason.TRUNCATED, Reason.MALFORMED, Reason.IDENTITY}),
    (oversized, {Reason.OVERSIZED}),
    (out_of_range, {Reason.OUT_OF_RANGE}),
    (not_a_number, {Reason.NOT_FINITE}),
    (other_vehicle, {Reason.IDENTITY}),
]


def test_bad_input_becomes_dead_letters_and_nothing_else_is_lost(
    world: World, fleet: Fleet
) -> None:
    with running(world.gateway()) as gateway:
        for number, (make, _) in enumerate(BAD):
            car = world.vehicle(f"{number}-car")
            fleet.send(car, 1)
            fleet.send(car, 2)
            fleet.publish(car, make(world, car), boot_seq="1/3")
            fleet.send(car, 4)
        fleet.settle()
        until(
            "bad batches are settled too",
            lambda: sum(a["seq"] == 4 for a in fleet.acks) >= len(BAD) - 1,
        )
        letters = world.wait_for(DEAD_LETTERS, len(BAD))
        assert gateway.stop() == 0
    by_car = {letter["key"].decode(): letter for letter in letters}
    assert len(by_car) == len(letters) == len(BAD)
    for number, (make, reasons) in enumerate(BAD):
        car = world.vehicle(f"{number}-car")
        letter, payload = by_car[car], make(world, car)
        assert Reason(letter["reason"]) in reasons, (make, letter["error"])
        assert letter["payload"] == payload[: 256 * 1024]
        assert letter["payload_bytes"] == len(payload)
        assert {h["name"]: h["value"] for h in letter["headers"]} == {
            "boot_id": b"1",
            "seq": b"3",
        }
        assert letter["topic"].endswith(f"{car}/telemetry")
    assert identities(world.mine(TELEMETRY)) == sorted(
        (world.vehicle(f"{number}-car"), 1, seq) for number in range(len(BAD)) for seq in (1, 2, 4)
    )


def test_bad_models_are_dead_letters_and_the_old_one_goes_on(world: World, fleet: Fleet) -> None:
    world.install()
    car = world.vehicle("a")
    schema_id = register_schemas(world.kafka, [RELEASES]).id_of(RELEASES)

    def release(version: str, content: Record) -> Outgoing:
        value = encode_confluent("ModelRelease", schema_id, content)
        return Outgoing(RELEASES.name, value, release_key(world.name, version), 0)

    good = world.bundle("2").to_record()
    wrong_hash = good | {"model": good["model"] + b"\0"}
    unfit = good | {"manifest": good["manifest"].replace("engine_speed", "no_such_signal")}
    with running(world.gateway()) as gateway:
        publish(world.kafka, [release("2", wrong_hash), release("3", unfit)])
        letters = world.wait_for(DEAD_LETTERS, 2)
        for seq in (1, 2, 3):
            fleet.send(car, seq, signals=FAULTY)
        until("the old model alerts", lambda: fleet.alerts.get(car))
        publish_release(world.kafka, world.bundle("4"))
        until("the new model is in use", lambda: f"scoring with {world.name} 4" in gateway.log())
        for seq in (4, 5, 6, 7):
            fleet.send(car, seq)
        until("the alert closes under the new model", lambda: fleet.alerts.get(car) == b"")
        fleet.settle()
        assert gateway.stop() == 0
        gateway.start()
        fleet.send(car, 8)
        fleet.settle()
        until("the newest model is kept", lambda: gateway.log().count(f"{world.name} 4") >= 2)
        assert gateway.stop() == 0
    assert [letter["reason"] for letter in letters] == [Reason.MODEL_HASH, Reason.MODEL_FEATURES]
    assert [letter["topic"] for letter in letters] == [RELEASES.name] * 2
    alerts = world.mine(ALERTS)
    assert [(a["state"], a["model_version"]) for a in alerts] == [("OPEN", "1"), ("CLOSED", "4")]
    assert len(world.mine(DEAD_LETTERS)) == 2
    assert identities(world.mine(TELEMETRY)) == expected(car, 8)


def test_promotion_and_rollback_reach_a_running_gateway(world: World, fleet: Fleet) -> None:
    car = world.vehicle("a")

    def used() -> list[str]:
        """Versions that scored, as the heartbeats tell."""
        found = [status["model_version"] for status in world.mine(GATEWAY_STATUS)]
        return [version for version, _ in groupby(filter(None, found))]

    def change(decide: Callable[[Catalog, Traffic], Traffic]) -> None:
        write_traffic(world.kafka, world.name, decide, by="test", reason="")

    publish_release(world.kafka, world.bundle("1"))
    with running(world.gateway(status_interval_s=0.2)) as gateway:
        until("the only release scores", lambda: used() == ["1"])
        change(lambda catalog, traffic: traffic.promoted("1", champion_now="1"))
        publish_release(world.kafka, world.bundle("2"))
        small = world.bundle().model
        large = bundle("3", name=world.name, model=small + bytes(2_000_000))
        publish_release(world.kafka, large)
        change(lambda catalog, traffic: traffic.promoted("3", champion_now="1"))
        until("the promoted one scores", lambda: used() == ["1", "3"])
        change(lambda catalog, traffic: traffic.rolled_back(catalog.former_champions(world.name)))
        until("the former champion scores", lambda: used() == ["1", "3", "1"])
        fleet.send(car, 1)
        fleet.settle()
        assert gateway.stop() == 0
        gateway.start()
        until("it is kept on the disk", lambda: gateway.log().count(f"{world.name} 1") >= 2)
        fleet.send(car, 2)
        fleet.settle()
        until("it goes on", lambda: len(world.mine(TELEMETRY)) == 2)
        assert gateway.stop() == 0
    assert used() == ["1", "3", "1"]
    assert world.mine(DEAD_LETTERS) == []


def test_a_broken_word_on_traffic_is_one_dead_letter(world: World) -> None:
    world.install()
    with running(world.gateway()) as gateway:
        publish(world.kafka, [Outgoing(TRAFFIC.name, b"junk", world.name.encode(), 0)])
        letters = world.wait_for(DEAD_LETTERS, 1)
        assert gateway.stop() == 0
        gateway.start()
        until("said again, not written again", lambda: "still refused" in gateway.log())
        assert gateway.stop() == 0
    assert (letters[0]["topic"], letters[0]["reason"]) == (TRAFFIC.name, Reason.NOT_AVRO)
    assert len(world.mine(DEAD_LETTERS)) == 1


def test_repeats_reordering_reboot_and_a_clock_that_jumps(world: World, fleet: Fleet) -> None:
    car = world.vehicle("a")
    hour_ms = 3_600_000
    with running(world.gateway()) as gateway:
        for seq in (3, 1, 1, 5, 3, 2, 4, 5):
            fleet.send(car, seq)
        for seq in (6, 7):
            fleet.send(car, seq, step_ms=-hour_ms)
        for seq in (2, 1):
            fleet.send(car, seq, boot=2)
        fleet.send(car, 8)
        fleet.settle()
        assert gateway.stop() == 0
    assert identities(world.mine(TELEMETRY)) == expected(car, 8) + expected(car, 2, boot=2)
    status = world.mine(GATEWAY_STATUS)[-1]
    assert status["duplicates"] >= 3
    assert status["vehicle_drops"] == 0


def test_a_vehicle_that_gave_batches_up_is_believed_and_counted(world: World, fleet: Fleet) -> None:
    car = world.vehicle("a")
    with running(world.gateway()) as gateway:
        fleet.send(car, 1)
        fleet.publish(car, batch(car, 10, oldest=8))
        until("acknowledged", lambda: any(ack["seq"] == 7 for ack in fleet.acks))
        assert fleet.acks[-1]["ranges"] == [{"first": 10, "last": 10}]
        fleet.send(car, 8)
        fleet.send(car, 9)
        until("closed up", lambda: any(ack["seq"] == 10 for ack in fleet.acks))
        assert gateway.stop() == 0
    assert [seq for _, _, seq in identities(world.mine(TELEMETRY))] == [1, 8, 9, 10]
    assert world.mine(GATEWAY_STATUS)[-1]["vehicle_drops"] == 6


def test_without_kafka_it_stores_and_alerts_and_catches_up(
    fresh_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    world = made(fresh_stack(), tmp_path)
    world.install()
    car = world.vehicle("a")
    with Fleet(world.mqtt) as fleet, running(world.gateway()) as gateway:
        fleet.send(car, 1)
        world.wait_for(TELEMETRY, 1)
        world.stack.kill_part("kafka")
        for seq in range(2, 50):
            fleet.send(car, seq, signals=FAULTY)
        until("alert without uplink", lambda: fleet.alerts.get(car))
        fleet.settle()
        gateway.kill()
        gateway.start()
        fleet.send(car, 50, signals=FAULTY)
        fleet.settle()
        world.stack.start_part("kafka")
        world.wait_for(TELEMETRY, 50)
        world.stack.kill_part("mqtt")
        world.stack.start_part("mqtt")
        for seq in range(51, 55):
            fleet.send(car, seq)
        fleet.settle()
        until("alert closed", lambda: fleet.alerts.get(car) == b"")
        assert gateway.stop() == 0
        assert identities(world.mine(TELEMETRY)) == expected(car, 54)
        assert [a["state"] for a in world.mine(ALERTS)] == ["OPEN", "CLOSED"]


def test_a_second_gateway_with_the_same_id_fences_the_first(world: World, fleet: Fleet) -> None:
    car = world.vehicle("a")
    first, second = (
        world.gateway("first", status_interval_s=1.0),
        world.gateway("second", gateway_id=world.name),
    )
    with running(first):
        fleet.send(car, 1)
        world.wait_for(TELEMETRY, 1)
        with running(second):
            fleet.send(car, 2)
            fleet.send_again()
            until("the first one stops", lambda: first.status is not None)
            assert first.wait_gone() == 3
            assert "fenced" in first.log()
            fleet.settle()
            until(
                "the second one forwards", lambda: (car, 1, 2) in identities(world.mine(TELEMETRY))
            )
            assert second.stop() == 0


def test_a_small_queue_pushes_back_and_loses_nothing(world: World, fleet: Fleet) -> None:
    car = world.vehicle("a")
    small = world.gateway(queue_messages_max=3, group_commit_max=2, group_commit_ms=0)
    with running(small) as gateway:
        for seq in range(1, 501):
            fleet.send(car, seq)
        fleet.settle()
        assert gateway.stop() == 0
    assert identities(world.mine(TELEMETRY)) == expected(car, 500)


def test_a_spool_damaged_under_a_gateway_is_moved_aside(world: World, fleet: Fleet) -> None:
    car = world.vehicle("a")
    gateway = world.gateway()
    with running(gateway):
        fleet.send(car, 1)
        fleet.settle()
        world.wait_for(TELEMETRY, 1)
        gateway.kill()
        for file in (gateway.directory / "spool").rglob("*"):
            if file.is_file():
                file.write_bytes(b"rubbish" * 2_000)
        gateway.start()
        fleet.send(car, 2)
        fleet.settle()
        world.wait_for(TELEMETRY, 2)
        assert gateway.stop() == 0
    assert "damaged" in gateway.log()
    assert list(gateway.directory.glob("spool.damaged-*"))


def test_check_says_what_is_there(world: World) -> None:
    place = world.directory / "checked"
    settings = GatewaySettings(world.name, place / "spool", place / "models")
    results = check(settings, world.mqtt, world.kafka)
    assert [r.name for r in results if not r.ok] == []
    assert {r.name for r in results} >= {"disk", "spool", "model", "mqtt", "kafka", "registry"}
    nowhere = KafkaSettings(bootstrap_servers="127.0.0.1:1", registry_url="http://127.0.0.1:1")
    results = check(settings, world.mqtt, nowhere)
    assert {r.name for r in results if not r.ok} == {"kafka", "registry"}


def test_a_running_gateway_answers_on_its_control_socket(world: World) -> None:
    control = world.directory / "gateway" / "c"
    with running(world.gateway()) as gateway:
        status = ask(control, "status")
        assert status["gateway_id"] == world.name
        gateway.kill()
        with pytest.raises(NotRunningError):
            ask(control, "status")
        gateway.start()
        assert ask(control, "status")["uptime_s"] < status["uptime_s"] + 60
        assert gateway.stop() == 0
    assert not control.exists()
