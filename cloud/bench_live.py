"""A live load for benchmarks: telemetry at a steady rate, and when each of its scores is there.

One thread sends batches of one reading at a fixed rate; the caller's thread reads the scores as
any consumer would, committed ones only, and notes when each came. What was sent and never came is
lost; what came more than once is repeated.
"""

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cloud.bench_fleet import SIGNALS, measured
from schemas.codec import Framing, encode_telemetry
from schemas.records import decode_confluent
from schemas.topics import SCORES, TELEMETRY
from transport.kafka import (
    AtLeastOnceProducer,
    KafkaSettings,
    LogConsumer,
    SchemaIds,
    latest_offsets,
    make_consumer,
)

TICK_S = 0.005
"""What is due is sent this often: a rate of 1,000 a second goes out in fives."""

VEHICLES = 1_000
_POLL_S = 0.02
_POLL_MESSAGES = 2_000

Identity = tuple[str, int]
"""Vehicle and sequence number."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A score that came: when its reading was sent, when it came, and which version made it."""

    sent_s: float
    came_s: float
    version: str

    @property
    def delay_s(self) -> float:
        """From the sending of the reading to its score."""
        return self.came_s - self.sent_s


@dataclass(slots=True)
class LiveResult:
    """What became of a load.

    Attributes:
        sent: Readings sent.
        arrivals: The first score of each reading.
        repeated: Scores beyond the first.
    """

    sent: int = 0
    arrivals: list[Arrival] = field(default_factory=list)
    repeated: int = 0

    @property
    def lost(self) -> int:
        """Readings without a score."""
        return self.sent - len(self.arrivals)

    def delays_ms(self, *, since_s: float = 0.0, until_s: float = np.inf) -> NDArray[np.float64]:
        """Of the readings sent in that time, in milliseconds. Shape (N,)."""
        chosen = [a.delay_s for a in self.arrivals if since_s <= a.sent_s < until_s]
        return np.array(chosen, np.float64) * 1e3


def percentiles_ms(delays_ms: NDArray[np.float64]) -> dict[str, float]:
    """p50, p99 and p99.9; NaN where there is nothing."""
    names = {"p50": 50.0, "p99": 99.0, "p999": 99.9}
    if not len(delays_ms):
        return dict.fromkeys(names, float("nan"))
    return {name: round(float(np.percentile(delays_ms, q)), 2) for name, q in names.items()}


class LiveLoad:
    """Sends while the block lasts; `watch` reads meanwhile.

    Args:
        kafka: Where Kafka is.
        ids: Schema ids of telemetry and scores.
        rate: Readings a second, each a message of its own.
        seed: Of the values.
    """

    def __init__(self, kafka: KafkaSettings, ids: SchemaIds, *, rate: int, seed: int = 1) -> None:
        self._kafka = kafka
        self._ids = ids
        self._rate = rate
        self._rng = np.random.default_rng(seed)
        self._mark = uuid.uuid4().hex[:6]
        self._sent: dict[Identity, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send, name="bench-load", daemon=True)
        self._error: BaseException | None = None
        self._consumer: LogConsumer | None = None
        self._seen: set[Identity] = set()
        self.result = LiveResult()

    def __enter__(self) -> Self:
        consumer = make_consumer(self._kafka, f"bench-live-{self._mark}")
        consumer.start()
        ends = latest_offsets(self._kafka, SCORES.name)
        consumer.assign({(SCORES.name, partition): end for partition, end in ends.items()})
        self._consumer = consumer
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._consumer is not None:
            self._consumer.close()

    def watch(self, seconds: float) -> None:
        """Read scores for so long. Raises what stopped the sending."""
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            self._read()

    def watch_until(self, done: Callable[[], bool], *, timeout_s: float) -> bool:
        """Read scores until something holds; whether it came to hold in time."""
        until_s = time.monotonic() + timeout_s
        while not done():
            if time.monotonic() > until_s:
                return False
            self._read()
        return True

    def drain(self, *, timeout_s: float) -> LiveResult:
        """Stop sending, and read until every reading has its score, or the time is over."""
        self._stop.set()
        self._thread.join()
        self.watch_until(lambda: len(self._seen) >= len(self._sent), timeout_s=timeout_s)
        self.watch(0.5)  # For repeats that follow.
        self.result.sent = len(self._sent)
        return self.result

    def _read(self) -> None:
        if self._error is not None:
            raise self._error
        assert self._consumer is not None
        messages = self._consumer.consume(_POLL_MESSAGES, _POLL_S)
        came_s = time.monotonic()
        schema_id = self._ids.id_of(SCORES)
        for message in messages:
            self._note(decode_confluent(SCORES.record, schema_id, message.value() or b""), came_s)

    def _note(self, score: dict[str, Any], came_s: float) -> None:
        identity = (score["vehicle_id"], score["seq"])
        sent_s = self._sent.get(identity)
        if sent_s is None:
            return  # Of another load.
        if identity in self._seen:
            self.result.repeated += 1
            return
        self._seen.add(identity)
        self.result.arrivals.append(Arrival(sent_s, came_s, score["model_version"]))

    def _send(self) -> None:
        try:
            producer = AtLeastOnceProducer(self._kafka, lambda _: None, linger_ms=0)
            producer.start()
            self._send_all(producer)
            producer.close()
        except BaseException as error:  # noqa: BLE001 - raised again by `_read`
            self._error = error

    def _send_all(self, producer: AtLeastOnceProducer) -> None:
        levels = self._rng.normal(0.0, 0.3, (VEHICLES, len(SIGNALS))).astype(np.float32)
        began_s = time.monotonic()
        sent = 0
        while not self._stop.is_set():
            due = int((time.monotonic() - began_s) * self._rate) - sent
            if due > 0:
                self._send_some(producer, np.arange(sent, sent + due), levels)
                sent += due
            self._stop.wait(TICK_S)

    def _send_some(
        self, producer: AtLeastOnceProducer, number: NDArray[np.int64], levels: NDArray[np.float32]
    ) -> None:
        vehicle, seq = number % VEHICLES, number // VEHICLES + 1
        names = [f"live-{self._mark}-{v:04d}" for v in vehicle.tolist()]
        values = self._encoded(names, seq, levels[vehicle])
        partition = (vehicle % TELEMETRY.partitions).tolist()
        records = [
            {"key": name.encode(), "value": value, "partition": p}
            for name, value, p in zip(names, values, partition, strict=True)
        ]
        sent_s = time.monotonic()
        self._sent |= dict.fromkeys(zip(names, seq.tolist(), strict=True), sent_s)
        producer.produce_batch(TELEMETRY.name, records)
        producer.commit()

    def _encoded(
        self, names: list[str], seq: NDArray[np.int64], levels: NDArray[np.float32]
    ) -> list[bytes]:
        count = len(seq)
        now_ms = time.time_ns() // 1_000_000
        return encode_telemetry(
            [name.encode() for name in names],
            np.ones(count, np.int64),
            seq,
            seq,
            (seq - 1) * 1000,
            np.ones(count, np.bool_),
            np.ones(count, np.int64),
            np.full(count, now_ms, np.int64),
            measured(levels, self._rng),
            signals=SIGNALS,
            framing=Framing.CONFLUENT,
            schema_id=self._ids.id_of(TELEMETRY),
        )
