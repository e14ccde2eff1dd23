"""From the vehicles' outboxes to MQTT and back: shared connections, one thread that sends.

Acknowledgements arrive on the network threads and are only queued there. While a broker is away
nothing is handed to the client: vehicles hold their batches, and send them again when it is back.
"""

import random
import secrets
import time
from collections import deque
from dataclasses import dataclass, replace

from schemas.errors import ContractError, TransientError
from schemas.records import decode_single_object, encode_single_object
from schemas.topics import mqtt_ack, mqtt_label, mqtt_link_state, mqtt_telemetry
from simulator.delivery import Held
from simulator.fleet_accounts import FleetAccounts
from simulator.measured import Fault
from simulator.settings import SimulatorSettings
from transport.mqtt import AVRO_CONTENT_TYPE, Incoming, MqttClient, SessionSettings, Will
from transport.settings import MqttSettings
from transport.tracing import NO_SPANS, TRACEPARENT, Spans, begin_trace

SESSION_EXPIRY_S = 60
FLUSH_S = 5.0


@dataclass(slots=True)
class _Line:
    """One connection and its vehicles."""

    client: MqttClient
    vehicles: list[int]
    lost: bool = False


class Publisher:
    """All connections of a fleet.

    Args:
        settings: Of the fleet.
        mqtt: The broker.
        accounts: What is to be sent.
        rng: For disturbances and jitter.
    """

    def __init__(
        self,
        settings: SimulatorSettings,
        mqtt: MqttSettings,
        accounts: FleetAccounts,
        rng: random.Random,
    ) -> None:
        self._settings = settings
        self._disturb = settings.effective_disturbances()
        self._fleet = mqtt.fleet
        self._accounts = accounts
        self._rng = rng
        self._number = {mqtt_ack(mqtt.fleet, v): i for i, v in enumerate(accounts.vehicle_ids)}
        self._topics = [mqtt_telemetry(mqtt.fleet, v) for v in accounts.vehicle_ids]
        self._acks: deque[Incoming] = deque(maxlen=1_000_000)
        self._swapped: dict[int, Held] = {}
        self.malformed_acks = 0
        count = min(settings.connections, len(accounts.vehicle_ids))
        # Not from the seed: two fleets of one seed must not take over each other's sessions.
        instance = f"{settings.name}-{secrets.token_hex(6)}"
        short_lived = replace(mqtt, session_expiry_s=SESSION_EXPIRY_S)
        self._lines = [self._line(short_lived, instance, i, count) for i in range(count)]

    def start(self) -> None:
        """Connect all; they come back by themselves."""
        for line in self._lines:
            line.client.start()
            line.client.subscribe(
                [mqtt_ack(self._fleet, self._accounts.vehicle_ids[v]) for v in line.vehicles],
                qos=0,
            )

    def wait_connected(self, timeout_s: float) -> None:
        """Raises SettingsError or TransientError as `MqttClient.wait_connected`."""
        deadline_s = time.monotonic() + timeout_s
        for line in self._lines:
            line.client.wait_connected(max(0.0, deadline_s - time.monotonic()))
            self._announce(line, "online")

    def stop(self) -> None:
        """Say goodbye for every vehicle, and disconnect."""
        for line in self._lines:
            if line.client.connected:
                self._announce(line, "offline")
                line.client.flush(FLUSH_S)
            line.client.stop()

    def pump(self, now_ms: int) -> None:
        """Take acknowledgements in and send what is due. Does not wait.

        Raises:
            MotorcadeError: A connection has failed for good.
        """
        self._take_acks()
        for line in self._lines:
            line.client.raise_if_failed()
            if line.lost and line.client.connected:
                line.lost = False
                self._announce(line, "online")
                for vehicle in line.vehicles:
                    self._accounts.outboxes[vehicle].connection_lost()
            if line.client.connected:
                self._send(line, now_ms)

    def label(self, faults: list[Fault]) -> None:
        """Publish ground truth, at the broker's promise of once or more."""
        for fault in faults:
            name = self._accounts.vehicle_ids[fault.vehicle]
            record = {
                "vehicle_id": name,
                "label": fault.code,
                "signal": fault.signal,
                "start_time": fault.start_event_ms,
                "end_time": fault.end_event_ms,
                "severity": fault.severity,
                "source": "simulator",
            }
            self._lines[fault.vehicle % len(self._lines)].client.publish(
                mqtt_label(self._fleet, name), encode_single_object("VehicleLabel", record)
            )

    def _line(self, mqtt: MqttSettings, instance: str, number: int, count: int) -> _Line:
        vehicles = list(range(number, len(self._accounts.vehicle_ids), count))
        will = None
        if len(vehicles) == 1:
            # A connection has one will, so only a vehicle that has it to itself can leave one.
            topic = mqtt_link_state(self._fleet, self._accounts.vehicle_ids[vehicles[0]])
            will = Will(topic, b"offline", delay_s=10)
        session = SessionSettings(
            client_id=f"fleet-{instance}-{number}",
            inflight_max=self._settings.connection_inflight_max,
            manual_ack=False,
            will=will,
        )
        line: _Line

        def note_loss(_: str) -> None:
            line.lost = True

        client = MqttClient(
            mqtt,
            session,
            on_message=self._acks.append,
            on_disconnected=note_loss,
            rng=random.Random(self._rng.getrandbits(32)),
        )
        line = _Line(client, vehicles)
        return line

    def _announce(self, line: _Line, state: str) -> None:
        for vehicle in line.vehicles:
            topic = mqtt_link_state(self._fleet, self._accounts.vehicle_ids[vehicle])
            line.client.publish(topic, state.encode(), retain=True)

    def _take_acks(self) -> None:
        while self._acks:
            message = self._acks.popleft()
            try:
                ack = decode_single_object("Ack", message.payload)
                self._accounts.acknowledge(self._number[message.topic], ack)
            except (ContractError, KeyError):
                self.malformed_acks += 1

    def _send(self, line: _Line, now_ms: int) -> None:
        for vehicle in line.vehicles:
            outbox = self._accounts.outboxes[vehicle]
            for batch in outbox.due(now_ms):
                if line.client.outstanding >= self._settings.connection_inflight_max:
                    outbox.give_back(batch)
                    return
                try:
                    self._publish(line, vehicle, batch)
                except TransientError:
                    outbox.give_back(batch)
                    return

    def _publish(self, line: _Line, vehicle: int, batch: Held) -> None:
        """Send a batch, or what the disturbances make of it."""
        self._accounts.ledger.resent += batch.sendings > 1
        if self._rng.random() < self._disturb.reorder_share and vehicle not in self._swapped:
            self._swapped[vehicle] = batch
            return
        self._put(line, vehicle, batch)
        if self._rng.random() < self._disturb.duplicate_share:
            self._put(line, vehicle, batch)
        held_back = self._swapped.pop(vehicle, None)
        if held_back is not None:
            self._put(line, vehicle, held_back)

    def _put(self, line: _Line, vehicle: int, batch: Held) -> None:
        span = self._begin_trace(vehicle, batch)
        properties = [("boot_id", str(batch.boot_id)), ("seq", str(batch.seq))]
        if batch.traceparent is not None:
            properties.append((TRACEPARENT, batch.traceparent))
        with span:
            line.client.publish(
                self._topics[vehicle],
                batch.payload,
                user_properties=properties,
                content_type=AVRO_CONTENT_TYPE,
            )

    def _begin_trace(self, vehicle: int, batch: Held) -> Spans:
        """Begin one for the share of the batches that is sampled; later sendings belong to it."""
        if batch.sendings > 1 or batch.traceparent is not None:
            return NO_SPANS
        name = self._accounts.vehicle_ids[vehicle]
        span = begin_trace("vehicle publish", vehicle_id=name, seq=batch.seq)
        if span is None:
            return NO_SPANS
        batch.traceparent = span.traceparent
        return Spans([span])
