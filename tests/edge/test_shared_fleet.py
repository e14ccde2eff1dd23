"""Gateways that share a fleet: each batch is on a disk and in Kafka, whoever got it."""

import random
from pathlib import Path

import pytest
from edge_parts import FAULTY, Fleet, identities, running, until
from edge_world import World, made
from hypothesis import given
from hypothesis import strategies as st
from mosquitto_broker import MosquittoBroker

from deploy.stack import Stack
from edge.acks import ack_payload
from edge.identity import IdentityBook, Verdict
from schemas.records import decode_single_object
from schemas.topics import ALERTS, ALERTS_STATE, DEAD_LETTERS, GATEWAY_STATUS, TELEMETRY
from simulator.delivery import Held, Outbox

VEHICLES = 200
ROUNDS = 8


@given(
    st.integers(0, 1 << 32),
    st.integers(2, 4),
    st.sampled_from([0.0, 0.3]),
    st.booleans(),
)
def test_a_vehicle_frees_what_any_gateway_has_and_nothing_else(
    seed: int, gateways: int, lost: float, one_dies: bool
) -> None:
    rng = random.Random(seed)
    books = [IdentityBook(lambda _: {}, vehicles_max=9, shared=True) for _ in range(gateways)]
    stored: set[int] = set()
    outbox = Outbox(capacity=10_000, window=20, resend_after_ms=100, resend_max_ms=1_000)
    measured, now_ms = 0, 0
    while measured < 400 or len(outbox):
        now_ms += 50
        assert now_ms < 1_000_000, seed
        for _ in range(rng.randint(0, 5) if measured < 400 else 0):
            measured += 1
            oldest = outbox.oldest_seq(1, measured)
            outbox.add(Held(1, measured, 1, oldest.to_bytes(8, "big")))
        alive = books[:-1] if one_dies and measured > 200 else books
        answered: dict[int, set[int]] = {}
        for held in outbox.due(now_ms):
            number = rng.randrange(gateways)
            if rng.random() < lost or number >= len(alive):
                continue
            verdict = books[number].admit("v", 1, held.seq, int.from_bytes(held.payload, "big"))
            assert verdict in (Verdict.NEW, Verdict.DUPLICATE)
            stored.add(held.seq)
            answered.setdefault(number, set()).add(held.seq)
        for number, seqs in answered.items():
            if rng.random() >= lost:
                state = books[number].state("v", 1)
                ack = decode_single_object("Ack", ack_payload("gw", 1, state, seqs))
                ranges = [(entry["first"], entry["last"]) for entry in ack["ranges"]]
                outbox.acknowledge(1, ack["seq"], ranges)
        freed = set(range(1, measured + 1)) - {seq for _, seq in outbox._held}
        assert freed <= stored, seed
    assert stored == set(range(1, measured + 1))
    assert sum(book.vehicle_drops for book in books) == 0


@pytest.mark.integration
def test_two_gateways_share_a_fleet_and_one_is_killed(
    stack: Stack, mosquitto: MosquittoBroker, tmp_path: Path
) -> None:
    world = made(stack, tmp_path)
    # A dead gateway's share goes on waiting for it until its session is over.
    world.broker, world.session_expiry_s = mosquitto, 2
    cars = [world.vehicle(f"{number:03}") for number in range(VEHICLES)]
    names = [f"{world.name}-{place}" for place in ("left", "right")]
    left, right = (
        world.gateway(name, gateway_id=name, shared_group="depot", status_interval_s=1.0)
        for name in names
    )

    def drive(first: int, last: int) -> None:
        for seq in range(first, last + 1):
            for car in cars:
                fleet.send(car, seq, says_oldest=True)

    with Fleet(world.mqtt) as fleet, running(left), running(right):
        drive(1, ROUNDS // 2)
        until(
            "both have a share",
            lambda: (
                {
                    status["gateway_id"]
                    for status in world.mine(GATEWAY_STATUS)
                    if status["forwarded"] > 0
                }
                == set(names)
            ),
        )
        right.kill()
        drive(ROUNDS // 2 + 1, ROUNDS)
        fleet.settle()
        assert left.stop() == 0
        right.start()  # what it had taken and not forwarded comes now
        until("all of its spool is in Kafka", lambda: _emptied(world, names[1]))
        assert right.stop() == 0
    found = identities(world.mine(TELEMETRY))
    assert sorted(set(found)) == [(car, 1, n) for car in cars for n in range(1, ROUNDS + 1)]
    assert world.mine(DEAD_LETTERS) == []
    last = {status["gateway_id"]: status for status in world.mine(GATEWAY_STATUS)}
    assert [last[name]["vehicle_drops"] for name in names] == [0, 0]
    print(f"{len(found) - len(set(found))} of {len(set(found))} batches came to both")


def _emptied(world: World, gateway_id: str) -> bool:
    mine = [s for s in world.mine(GATEWAY_STATUS) if s["gateway_id"] == gateway_id]
    return bool(mine) and mine[-1]["spool_depth"] == 0


@pytest.mark.integration
def test_alerts_of_gateways_that_share_a_vehicle_stand_beside_each_other(
    stack: Stack, mosquitto: MosquittoBroker, tmp_path: Path
) -> None:
    world = made(stack, tmp_path)
    world.broker = mosquitto
    car = world.vehicle("a")
    names = [f"{world.name}-{place}" for place in ("left", "right")]
    gateways = [world.gateway(name, gateway_id=name, shared_group="depot") for name in names]
    for name in names:
        world.install(name)
    with Fleet(world.mqtt) as fleet, running(gateways[0]), running(gateways[1]):
        until("models in use", lambda: all("scoring with" in each.log() for each in gateways))
        for seq in range(1, 21):
            fleet.send(car, seq, signals=FAULTY, says_oldest=True)
        until("both have opened theirs", lambda: len(world.mine(ALERTS)) == 2)
        fleet.settle()
        codes = {f"anomaly@{name}" for name in names}
        assert set(fleet.topics) == {f"v1/{world.name}/{car}/alert/{code}" for code in codes}
        assert all(fleet.topics.values())
        for gateway in gateways:
            assert gateway.stop() == 0
    assert {alert["code"] for alert in world.mine(ALERTS)} == codes
    assert {state["code"] for state in world.mine(ALERTS_STATE)} == codes
    assert len({alert["alert_id"] for alert in world.mine(ALERTS)}) == 2


@pytest.mark.integration
def test_one_gateway_serves_five_thousand_vehicles(
    stack: Stack, mosquitto: MosquittoBroker, tmp_path: Path
) -> None:
    world = made(stack, tmp_path)
    world.broker = mosquitto
    world.install()
    cars = [world.vehicle(f"{number:04}") for number in range(5_000)]
    with Fleet(world.mqtt) as fleet, running(world.gateway()) as gateway:
        until("model in use", lambda: "scoring with" in gateway.log())
        before = gateway.rss_bytes
        for seq in (1, 2):
            for car in cars:
                fleet.send(car, seq)
            fleet.settle()
        until("all is in Kafka", lambda: len(world.mine(TELEMETRY)) == 2 * len(cars))
        after = gateway.rss_bytes
        assert gateway.stop() == 0
    assert identities(world.mine(TELEMETRY)) == [(car, 1, seq) for car in cars for seq in (1, 2)]
    print(f"resident: {before >> 20} MiB before, {after >> 20} MiB with {len(cars)} vehicles")
    assert after < 250 << 20
