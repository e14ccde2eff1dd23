"""The stream of `motorcade bench gateway`: telemetry of a made-up fleet as MQTT packets."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloud.bench_fleet import SIGNALS, START_MS, measured
from motorcade.bench_mqtt import Publication, packet
from schemas.codec import Framing, encode_telemetry
from schemas.signals import SIGNAL_BY_NAME
from schemas.topics import mqtt_telemetry
from transport.mqtt import AVRO_CONTENT_TYPE

FAULTY_EVERY = 20
BOOT_ID = 1
_CHUNK = 5_000


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """What is sent.

    Attributes:
        fleet: Second level of the topics.
        vehicles: Send in turn.
        messages: In all.
        readings: Of a message, a second apart.
        faults: Whether some messages hold values that the bench's model never saw.
        prefix: Of the vehicles' names.
    """

    fleet: str
    vehicles: int
    messages: int
    readings: int
    faults: bool = False
    prefix: str = "car"

    def vehicle_id(self, number: int) -> str:
        """Who sends a message, by its place in the stream, from 0."""
        return f"{self.prefix}-{number % self.vehicles:06d}"

    def number_of(self, vehicle_id: str, seq: int) -> int:
        """The place in the stream of a vehicle's message."""
        return (seq - 1) * self.vehicles + int(vehicle_id.rpartition("-")[2])


def faulty(number: int, plan: StreamPlan) -> bool:
    """Whether a message is one of the faulty ones: each vehicle is well before and after."""
    seq = number // plan.vehicles
    return plan.faults and (number % plan.vehicles + seq) % FAULTY_EVERY == 0 and seq % 2 == 1


def packets(plan: StreamPlan, *, together: int) -> Iterator[bytes]:
    """PUBLISH packets in order, so many joined at a time; made before the first is given out."""
    made = [packet(publication, number) for number, publication in enumerate(publications(plan))]
    for start in range(0, len(made), together):
        yield b"".join(made[start : start + together])


def publications(plan: StreamPlan) -> Iterator[Publication]:
    """The messages in order, made some thousand at a time."""
    rng = np.random.default_rng(1)
    levels = rng.normal(0.0, 0.3, (plan.vehicles, len(SIGNALS))).astype(np.float32)
    for start in range(0, plan.messages, _CHUNK):
        numbers = np.arange(start, min(start + _CHUNK, plan.messages))
        payloads = _payloads(plan, numbers, levels, rng)
        for number, payload in zip(numbers.tolist(), payloads, strict=True):
            yield Publication(
                mqtt_telemetry(plan.fleet, plan.vehicle_id(number)),
                payload,
                (("boot_id", str(BOOT_ID)), ("seq", str(number // plan.vehicles + 1))),
                AVRO_CONTENT_TYPE,
            )


def _payloads(
    plan: StreamPlan,
    numbers: NDArray[np.int64],
    levels: NDArray[np.float32],
    rng: np.random.Generator,
) -> list[bytes]:
    each = plan.readings
    vehicle, seq = numbers % plan.vehicles, numbers // plan.vehicles + 1
    uptime_ms = (seq - 1) * each * 1000
    reading_ms = np.repeat(uptime_ms, each) + np.tile(np.arange(each) * 1000, len(numbers))
    values = measured(levels[np.repeat(vehicle, each)], rng)
    bad = np.repeat([faulty(number, plan) for number in numbers.tolist()], each)
    values[bad] = _EXTREME
    return encode_telemetry(
        [plan.vehicle_id(number).encode() for number in numbers.tolist()],
        np.full(len(numbers), BOOT_ID, np.int64),
        seq,
        np.ones(len(numbers), np.int64),
        uptime_ms,
        np.ones(len(numbers), np.bool_),
        np.full(len(numbers), each, np.int64),
        START_MS + reading_ms,
        values,
        signals=SIGNALS,
        framing=Framing.SINGLE_OBJECT,
    )


_EXTREME = np.array([SIGNAL_BY_NAME[name].maximum for name in SIGNALS], np.float32)
