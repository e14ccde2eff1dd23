"""A whole fleet over a real broker, to a gateway that keeps everything in memory."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from mosquitto_broker import MosquittoBroker, free_port

from schemas.errors import SettingsError, TransientError
from schemas.records import Record, decode_single_object, encode_single_object
from schemas.topics import mqtt_ack
from simulator.ledger import Ledger
from simulator.run import Progress, run
from simulator.settings import Disturbances, SimulatorSettings
from transport.mqtt import Incoming, MqttClient, MqttSettings, SessionSettings

WAIT_S = 30.0
FLEET = "demo"
FAST = SimulatorSettings(
    vehicles=6,
    rate_hz=20.0,
    duration_s=3.0,
    connections=2,
    ack_timeout_s=0.3,
    ack_timeout_max_s=1.0,
    drain_timeout_s=WAIT_S,
)


class Gateway:
    """Keeps what comes and acknowledges it, unless it is told to be deaf."""

    def __init__(self, mqtt: MqttSettings) -> None:
        self.batches: dict[tuple[str, int, int], Record] = {}
        self.copies: Counter[tuple[str, int, int]] = Counter()
        self.labels: list[Record] = []
        self.links: dict[str, str] = {}
        self.oldest_seq: dict[tuple[str, int], int] = {}
        self.deaf = False
        self.client = MqttClient(
            mqtt, SessionSettings("gateway", manual_ack=False), on_message=self._take
        )
        self.client.subscribe(
            [f"v1/{FLEET}/+/{leaf}" for leaf in ("telemetry", "label", "state/link")]
        )

    def _take(self, message: Incoming) -> None:
        vehicle_id, leaf = message.topic.split("/")[2], message.topic.split("/")[-1]
        if leaf == "link":
            self.links[vehicle_id] = message.payload.decode()
        elif leaf == "label":
            self.labels.append(decode_single_object("VehicleLabel", message.payload))
        elif not self.deaf:
            self._store(vehicle_id, message)

    def _store(self, vehicle_id: str, message: Incoming) -> None:
        record = decode_single_object("TelemetryBatch", message.payload)
        assert record["vehicle_id"] == vehicle_id
        if message.user_properties:
            assert dict(message.user_properties) == {
                "boot_id": str(record["boot_id"]),
                "seq": str(record["seq"]),
            }
        identity = (vehicle_id, record["boot_id"], record["seq"])
        self.batches[identity] = record
        self.copies[identity] += 1
        boot = identity[:2]
        self.oldest_seq[boot] = max(self.oldest_seq.get(boot, 1), record["oldest_seq"])
        ack = {"gateway_id": "g", "boot_id": boot[1], **self._covered(boot)}
        self.client.publish(mqtt_ack(FLEET, vehicle_id), encode_single_object("Ack", ack))

    def _covered(self, boot: tuple[str, int]) -> Record:
        seqs = {seq for *b, seq in self.batches if tuple(b) == boot}
        top = self.oldest_seq[boot] - 1
        while top + 1 in seqs:
            top += 1
        return {"seq": top, "ranges": [{"first": s, "last": s} for s in seqs if s > top]}


@contextmanager
def listening(broker: MosquittoBroker, version: int = 5) -> Iterator[tuple[Gateway, MqttSettings]]:
    mqtt = MqttSettings(
        host=broker.host,
        port=broker.port,
        fleet=FLEET,
        version=version,
        backoff_min_s=0.02,
        backoff_max_s=0.2,
    )
    gateway = Gateway(mqtt)
    with gateway.client:
        gateway.client.wait_connected(WAIT_S)
        yield gateway, mqtt
    gateway.client.raise_if_failed()


def assert_everything_arrived(ledger: Ledger, gateway: Gateway) -> None:
    expected = {
        (boot.vehicle_id, boot.boot_id, seq)
        for boot in ledger.boots
        for seq in range(1, boot.last_seq + 1)
        if seq not in boot.dropped_seq
    }
    assert expected <= gateway.batches.keys()
    assert ledger.measured == sum(boot.readings for boot in ledger.boots)
    assert ledger.acknowledged == ledger.measured - ledger.dropped
    assert ledger.held == 0


def in_background(act: Callable[[], Ledger]) -> tuple[threading.Thread, list[Ledger]]:
    done: list[Ledger] = []
    thread = threading.Thread(target=lambda: done.append(act()))
    thread.start()
    return thread, done


def wait_until(true: Callable[[], object], what: str) -> None:
    until_s = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < until_s, f"waited in vain for {what}"
        time.sleep(0.01)


@pytest.mark.parametrize("version", [5, 4])
@pytest.mark.parametrize("readings", [1, 7])
def test_everything_measured_arrives(
    mosquitto: MosquittoBroker, tmp_path: Path, version: int, readings: int
) -> None:
    path = tmp_path / "ledger.json"
    settings = replace(FAST, readings_per_message=readings, ledger=path)
    told: list[Progress] = []
    with listening(mosquitto, version) as (gateway, mqtt):
        ledger = run(settings, mqtt, stop=threading.Event(), on_progress=told.append)
        wait_until(lambda: "offline" in gateway.links.values(), "the goodbyes")
    assert_everything_arrived(ledger, gateway)
    assert Ledger.load(path) == ledger
    assert told[-1].acknowledged == ledger.measured
    for record in gateway.batches.values():
        times = [reading["event_time"] for reading in record["readings"]]
        assert len(times) <= readings
        assert times == sorted(set(times))
        assert sum(v is not None for v in record["readings"][0].values()) - 1 >= 18


def test_a_broker_that_dies_loses_nothing(mosquitto: MosquittoBroker) -> None:
    with listening(mosquitto) as (gateway, mqtt):
        thread, done = in_background(lambda: run(FAST, mqtt, stop=threading.Event()))
        wait_until(lambda: len(gateway.batches) > 50, "the drive")
        for _ in range(2):
            mosquitto.kill()
            time.sleep(0.3)
            mosquitto.start()
            known = len(gateway.batches)
            wait_until(partial(_more_than, gateway, known), "the fleet to be back")
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert_everything_arrived(done[0], gateway)
    assert done[0].dropped == 0


def _more_than(gateway: Gateway, known: int) -> bool:
    return len(gateway.batches) > known


def test_nothing_is_freed_while_no_gateway_acknowledges(mosquitto: MosquittoBroker) -> None:
    with listening(mosquitto) as (gateway, mqtt):
        gateway.deaf = True
        thread, done = in_background(lambda: run(FAST, mqtt, stop=threading.Event()))
        time.sleep(1.0)
        assert not gateway.batches
        gateway.deaf = False
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert_everything_arrived(done[0], gateway)
    assert done[0].resent > 0


def test_a_full_buffer_drops_and_counts(mosquitto: MosquittoBroker) -> None:
    settings = replace(FAST, buffer_messages=10, vehicle_inflight_max=2)
    with listening(mosquitto) as (gateway, mqtt):
        gateway.deaf = True
        thread, done = in_background(lambda: run(settings, mqtt, stop=threading.Event()))
        time.sleep(1.5)
        gateway.deaf = False
        thread.join(WAIT_S)
    ledger = done[0]
    assert ledger.dropped > 0
    assert ledger.dropped == sum(boot.dropped_readings for boot in ledger.boots)
    assert ledger.dropped == sum(len(boot.dropped_seq) for boot in ledger.boots)
    assert_everything_arrived(ledger, gateway)


def test_disturbances_disturb_and_lose_nothing(mosquitto: MosquittoBroker) -> None:
    settings = replace(
        FAST,
        vehicles=20,
        readings_per_message=3,
        disturbances=Disturbances(
            duplicate_share=0.2,
            reorder_share=0.2,
            reboot_share=0.5,
            reboot_after_s=1.0,
            clock_back_share=0.5,
            clock_back_after_s=2.0,
            unsynced_share=0.3,
        ),
    )
    with listening(mosquitto) as (gateway, mqtt):
        ledger = run(settings, mqtt, stop=threading.Event())
    assert_everything_arrived(ledger, gateway)
    assert max(gateway.copies.values()) > 1
    boots = Counter(boot.vehicle_id for boot in ledger.boots)
    assert set(boots.values()) == {1, 2}
    synced = {record["clock_synced"] for record in gateway.batches.values()}
    assert synced == {True, False}
    assert _clocks_that_jumped_back(gateway) > 0


def _clocks_that_jumped_back(gateway: Gateway) -> int:
    """Vehicles whose event time fell while their uptime rose; never inside a batch."""
    jumped = set()
    last: dict[tuple[str, int], Record] = {}
    for (vehicle_id, boot_id, _), record in sorted(gateway.batches.items()):
        times = [reading["event_time"] for reading in record["readings"]]
        assert (times[-1] - times[0]).total_seconds() < 10
        assert times == sorted(times)
        before = last.get((vehicle_id, boot_id))
        if before is not None:
            assert record["uptime_ms"] > before["uptime_ms"]
            if times[0] < before["readings"][0]["event_time"]:
                jumped.add(vehicle_id)
        last[vehicle_id, boot_id] = record
    return len(jumped)


@pytest.mark.parametrize("how", ["by itself", "when told"])
def test_faults_are_labelled(mosquitto: MosquittoBroker, how: str) -> None:
    inject = threading.Event()
    settings = replace(FAST, fault_share=0.5)
    if how == "by itself":
        settings = replace(settings, fault_after_s=0.5)
    with listening(mosquitto) as (gateway, mqtt):
        thread, done = in_background(
            lambda: run(settings, mqtt, stop=threading.Event(), inject=inject)
        )
        wait_until(lambda: len(gateway.batches) > 30, "the drive")
        if how == "when told":
            inject.set()
        wait_until(lambda: len(gateway.labels) == 3, "labels")
        thread.join(WAIT_S)
    faults = {(f.vehicle_id, f.code, f.start_event_ms) for f in done[0].faults}
    assert faults == {
        (r["vehicle_id"], r["label"], round(r["start_time"].timestamp() * 1000))
        for r in gateway.labels
    }


def test_the_same_seed_measures_the_same(mosquitto: MosquittoBroker) -> None:
    values = []
    for _ in range(2):
        with listening(mosquitto) as (gateway, mqtt):
            run(replace(FAST, duration_s=1.0, boot_id=5), mqtt, stop=threading.Event())
        values.append(
            {
                identity: [
                    {k: v for k, v in reading.items() if k != "event_time"}
                    for reading in record["readings"]
                ]
                for identity, record in gateway.batches.items()
            }
        )
    assert values[0] == values[1]


def test_replay_over_the_broker(mosquitto: MosquittoBroker) -> None:
    recording = Path(__file__).parents[2] / "simulator" / "data" / "kit_normal_small.csv.gz"
    settings = replace(FAST, replay=recording, speed=2_000.0, duration_s=None, fault_share=0.0)
    with listening(mosquitto) as (gateway, mqtt):
        ledger = run(settings, mqtt, stop=threading.Event())
    assert_everything_arrived(ledger, gateway)
    assert ledger.measured == 7_565


def test_stop_ends_a_drive_without_an_end(mosquitto: MosquittoBroker) -> None:
    stop = threading.Event()
    with listening(mosquitto) as (gateway, mqtt):
        thread, done = in_background(lambda: run(replace(FAST, duration_s=None), mqtt, stop=stop))
        wait_until(lambda: gateway.batches, "the drive")
        stop.set()
        thread.join(WAIT_S)
    assert_everything_arrived(done[0], gateway)


def test_no_broker_and_wrong_settings_are_told_apart() -> None:
    with pytest.raises(SettingsError, match="simulator vehicles is 0; it may be 1 to"):
        run(replace(FAST, vehicles=0), MqttSettings(), stop=threading.Event())
    with pytest.raises(SettingsError, match="duplicate_share"):
        bad = replace(FAST, disturbances=Disturbances(duplicate_share=2.0))
        run(bad, MqttSettings(), stop=threading.Event())


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulator.run.CONNECT_TIMEOUT_S", 0.3)
    mqtt = MqttSettings(port=free_port(), backoff_min_s=0.02, backoff_max_s=0.1)
    with pytest.raises(TransientError, match="no MQTT broker"):
        run(FAST, mqtt, stop=threading.Event())
