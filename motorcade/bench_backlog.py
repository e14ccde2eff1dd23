"""`motorcade bench backlog`: what live data notice of a backlog, and how quickly that drains.

A gateway's spool is filled as a day without an uplink fills it. Then a fleet drives on at the same
rate, and each of its messages is timed from MQTT to a consumer of committed records in Kafka: while
the backlog drains beside it, and without, before and afterwards, in the same run. Everything runs
on this machine: brokers, gateway, sender and consumer.
"""

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud.bench_fleet import bench_bundle
from cloud.bench_live import percentiles_ms
from deploy.stack import Endpoints, Stack
from edge.models import ModelStore
from edge.rows import Lane, Telemetry
from edge.spool import Spool
from motorcade.bench_mqtt import Sender, packet
from motorcade.bench_receiver import Receiver
from motorcade.bench_stream import BOOT_ID, StreamPlan, publications
from schemas.errors import TransientError
from schemas.topics import TELEMETRY, TOPICS
from scoring.bundle import Bundle
from transport.kafka import (
    KafkaSettings,
    LogConsumer,
    ensure_topics,
    latest_offsets,
    make_consumer,
    register_schemas,
)
from transport.settings import MqttSettings

VEHICLES = 10
FORMER_BOOT = 1
"""Number of the gateway's boot in which the backlog came; odd: its clock was right."""

LIVE = "live"
WAITING = "day"
WARM_S = 2.0
_GROUP = 5_000
_POLL_MESSAGES = 10_000
_POLL_S = 0.005
_STALLED_S = 60.0


@dataclass(frozen=True, slots=True)
class BacklogPlan:
    """What is measured.

    Attributes:
        rate: Messages/s of the fleet, then and now.
        hours: How long it drove without an uplink.
        backlog_rate: Of the gateway, messages/s; 0: no limit.
        readings: Of a message.
        seconds: How long live data are timed without a backlog, before and again afterwards.
    """

    rate: float = 10.0
    hours: float = 24.0
    backlog_rate: float = 5_000.0
    readings: int = 1
    seconds: float = 30.0

    @property
    def messages(self) -> int:
        """Of the backlog."""
        return round(self.rate * self.hours * 3600)


def bench_backlog(plan: BacklogPlan, *, on_progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure.

    Returns:
        `live_p50_ms`, `live_p99_ms` without a backlog, the same `_under_backlog`, `p99_ratio` of
        the two; `backlog_messages`, `drain_s`, `drain_messages_per_s` and `times_real_time`.

    Raises:
        MotorcadeError: A part did not start, or a message was lost, repeated or not marked.
    """
    on_progress("training a model")
    bundle = bench_bundle(memory=False)
    with tempfile.TemporaryDirectory(prefix="motorcade-bench-") as directory:
        root = Path(directory)
        on_progress("starting the brokers")
        with Stack(root / "stack") as stack:
            return _Bench(plan, root, stack.endpoints, bundle, on_progress).measure()


class _Bench:
    def __init__(
        self,
        plan: BacklogPlan,
        root: Path,
        ends: Endpoints,
        bundle: Bundle,
        on_progress: Callable[[str], None],
    ) -> None:
        self._plan = plan
        self._root = root
        self._mqtt = MqttSettings(host=ends.mqtt_host, port=ends.mqtt_port)
        self._kafka = KafkaSettings(
            bootstrap_servers=ends.kafka_bootstrap, registry_url=ends.registry_url
        )
        self._bundle = bundle
        self._say = on_progress
        ensure_topics(self._kafka, TOPICS)
        register_schemas(self._kafka)

    def measure(self) -> dict[str, Any]:
        plan = self._plan
        with self._live("before") as live, self._gateway("before"):
            live.drive()
            live.watch(WARM_S + plan.seconds, "without a backlog", self._say)
            live.park()
        before = live
        self._say(f"filling a spool with {plan.messages:,} messages")
        self._fill("behind")
        with self._live("behind") as live, self._gateway("behind") as gateway:
            gateway.wait({"forwarded": 1}, timeout_s=_STALLED_S)
            live.drive()
            live.watch_drain(plan.messages, self._say)
            drained_s = time.monotonic()
            live.watch(plan.seconds, "without a backlog again", self._say)
            live.park()
        under = live.delays_ms(until_s=drained_s)
        alone = np.concatenate([before.delays_ms(), live.delays_ms(since_s=drained_s)])
        return _figures(plan, alone, under, live.drain_s)

    def _fill(self, name: str) -> None:
        """What a day without an uplink leaves: stored, scored, and not forwarded."""
        plan = self._plan
        stream = StreamPlan(name, VEHICLES, plan.messages, plan.readings, prefix=WAITING)
        step_ms = 1000.0 / plan.rate
        begin_ms = time.time_ns() / 1e6 - step_ms * plan.messages
        spool = Spool(self._root / name / "spool", now_ms=round(begin_ms))
        try:
            book = spool.identity_book(vehicles_max=VEHICLES)
            rows = (
                Telemetry(
                    stream.vehicle_id(number),
                    BOOT_ID,
                    number // VEHICLES + 1,
                    1,
                    round(begin_ms + step_ms * number),
                    publication.payload,
                    gateway_boot=FORMER_BOOT,
                    monotonic_ms=round(step_ms * number),
                )
                for number, publication in enumerate(publications(stream))
            )
            while group := list(islice(rows, _GROUP)):
                for row in group:
                    book.admit(row.vehicle_id, row.boot_id, row.seq, row.oldest_seq)
                spool.store(group, (), book)
                spool.store_alerts((), (), scored=spool.last(Lane.TELEMETRY))
            spool.save(book)
        finally:
            spool.close()

    @contextmanager
    def _gateway(self, name: str) -> Iterator[Receiver]:
        directory = self._root / name
        directory.mkdir(exist_ok=True)
        ModelStore(directory / "models").install(self._bundle)
        settings = {
            "model_name": self._bundle.manifest.name,
            "backlog_rate": self._plan.backlog_rate,
        }
        given = {
            "cores": sorted(os.sched_getaffinity(0)),
            "directory": str(directory),
            "mqtt": {"host": self._mqtt.host, "port": self._mqtt.port, "fleet": name},
            "kafka": {key: value for key, value in asdict(self._kafka).items() if value},
            "settings": settings,
        }
        with Receiver("gateway", given) as receiver:
            yield receiver

    def _live(self, fleet: str) -> "_Live":
        return _Live(self._plan, self._mqtt, self._kafka, fleet)


class _Live:
    """A consumer that times, and a fleet that drives at the rate from `drive` to the end."""

    def __init__(
        self, plan: BacklogPlan, mqtt: MqttSettings, kafka: KafkaSettings, fleet: str
    ) -> None:
        self._plan = plan
        self._mqtt = mqtt
        self._kafka = kafka
        self._stream = StreamPlan(fleet, VEHICLES, 0, plan.readings, prefix=f"{LIVE}-{fleet}")
        self._key = self._stream.prefix.encode()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send, name="bench-fleet", daemon=True)
        self._error: BaseException | None = None
        self._sent_s: list[float] = []
        self._came_s: dict[int, float] = {}
        self._late = 0
        self._first_late_s = 0.0
        self._consumer: LogConsumer = make_consumer(kafka, f"bench-{fleet}", fetch_wait_max_ms=5)
        self.drain_s = 0.0

    def __enter__(self) -> "_Live":
        self._consumer.start()
        ends = latest_offsets(self._kafka, TELEMETRY.name)
        self._consumer.assign({(TELEMETRY.name, part): end for part, end in ends.items()})
        return self

    def __exit__(self, *_: object) -> None:
        self.park()
        self._consumer.close()

    def park(self) -> None:
        """Send no more."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def drive(self) -> None:
        """Begin to send."""
        self._thread.start()

    def watch(self, seconds: float, what: str, say: Callable[[str], None]) -> None:
        """Time live messages for so long, and until those that were sent are there."""
        say(f"timing live data {what}")
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            self._read()
        wanted = len(self._sent_s)
        self._read_until(lambda: sum(n < wanted for n in self._came_s) == wanted, "live messages")

    def watch_drain(self, messages: int, say: Callable[[str], None]) -> None:
        """Time live messages until the backlog is there."""
        say("draining, and timing live data beside it")
        self._read_until(lambda: self._late >= messages, "the backlog")
        self.drain_s = time.monotonic() - self._first_late_s

    def delays_ms(
        self, *, since_s: float = 0.0, until_s: float = float("inf")
    ) -> NDArray[np.float64]:
        """Of messages that were sent in that time, those of the first WARM_S left out."""
        begin_s = max(since_s, self._sent_s[0] + WARM_S)
        return np.array(
            [
                1e3 * (self._came_s[number] - sent_s)
                for number, sent_s in enumerate(self._sent_s)
                if begin_s <= sent_s < until_s and number in self._came_s
            ]
        )

    def _read_until(self, done: Callable[[], bool], what: str) -> None:
        heard_s, heard = time.monotonic(), -1
        while not done():
            self._read()
            now = self._late + len(self._came_s)
            if now != heard:
                heard_s, heard = time.monotonic(), now
            if self._error is not None:
                raise self._error
            if time.monotonic() - heard_s > _STALLED_S:
                raise TransientError(f"{what} never came: {self._late} late, {len(self._came_s)}")

    def _read(self) -> None:
        messages = self._consumer.consume(_POLL_MESSAGES, _POLL_S)
        now_s = time.monotonic()
        for message in messages:
            headers = dict(message.headers() or ())
            key = message.key()
            assert isinstance(key, bytes)
            if key.startswith(self._key):
                number = self._stream.number_of(key.decode(), int(headers["seq"] or b"0"))
                if number in self._came_s or "late" in headers:
                    raise TransientError(f"live message {number} came twice, or late")
                self._came_s[number] = now_s
            elif headers.get("late") == b"1":
                self._first_late_s = self._first_late_s or now_s
                self._late += 1
            else:
                raise TransientError("a message of the backlog is not marked late")

    def _send(self) -> None:
        try:
            with Sender(self._mqtt.host, self._mqtt.port, f"bench-{self._key.decode()}") as sender:
                begin_s = time.monotonic()
                for number, sendable in enumerate(self._packets()):
                    due_s = begin_s + number / self._plan.rate
                    if self._stop.wait(max(0.0, due_s - time.monotonic())):
                        return
                    self._sent_s.append(time.monotonic())
                    sender.send(sendable)
        except BaseException as error:  # noqa: BLE001 - raised by whoever reads
            self._error = error

    def _packets(self) -> Iterator[bytes]:
        """Of an hour, which is longer than any of this takes."""
        hour = replace(self._stream, messages=round(3600 * self._plan.rate))
        for number, publication in enumerate(publications(hour)):
            yield packet(publication, number)


def _figures(
    plan: BacklogPlan, alone: NDArray[np.float64], under: NDArray[np.float64], drain_s: float
) -> dict[str, Any]:
    quiet, busy = percentiles_ms(alone), percentiles_ms(under)
    rate = plan.messages / drain_s
    return {
        "live_messages": len(alone),
        "live_p50_ms": quiet["p50"],
        "live_p99_ms": quiet["p99"],
        "live_messages_under_backlog": len(under),
        "live_p50_ms_under_backlog": busy["p50"],
        "live_p99_ms_under_backlog": busy["p99"],
        "p99_ratio": round(busy["p99"] / quiet["p99"], 2),
        "backlog_messages": plan.messages,
        "backlog_hours": plan.hours,
        "drain_s": round(drain_s, 1),
        "drain_messages_per_s": round(rate),
        "times_real_time": round(rate / plan.rate, 1),
    }
