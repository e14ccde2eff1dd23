"""`motorcade bench requests`: what the Kafka door carries, and how long a request takes.

Broker, server and client share this machine. For at least once and for exactly once, the door and
beside it a bare loop that writes each request back as it is, are asked twice: as fast as they
answer (a window of requests is always on its way), and at a fixed rate, one request at a time. A
latency is counted from the time at which the request was due, whether or not it could be sent then.
"""

import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud.bench_fleet import bench_bundle
from cloud.bench_requests_child import Task, topics_of
from cloud.serving.kafka_door import DoorTopics
from schemas.errors import MotorcadeError, TransientError
from schemas.requests import Envelope, decode_requests, encode_requests
from scoring.bundle import Bundle
from transport.kafka import (
    KafkaSettings,
    SchemaIds,
    delete_topics,
    ensure_topics,
    register_schemas,
)
from transport.kafka_replies import ReplyChannel, ReplyTopics

WINDOW = 30_000
"""Requests on their way at saturation."""

CHUNK = 3_000
"""Requests written at once at saturation."""

VEHICLES = 1_000
_PATIENCE_S = 60.0
_RETRY_S = 0.1
_ID_DIGITS = 10


@dataclass(frozen=True, slots=True)
class RequestsBench:
    """How to measure.

    Attributes:
        saturation_s: Seconds of each run at saturation, after the warm-up.
        latency_s: Seconds of each run at a fixed rate, after the warm-up.
        rate: Requests a second at the fixed rate.
        warm_up_s: Seconds before each run that do not count.
        deliveries: Whether exactly once, of each pair of loops.
    """

    saturation_s: float = 10.0
    latency_s: float = 20.0
    rate: int = 1_000
    warm_up_s: float = 1.0
    deliveries: tuple[bool, ...] = (False, True)


def bench_requests(
    kafka: KafkaSettings,
    how: RequestsBench,
    *,
    bundle: Bundle | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Measure.

    Args:
        kafka: Where Kafka and the registry are; topics are made there and deleted again.
        how: How long, how fast.
        bundle: The model; None: one is trained, which needs TensorFlow.
        on_progress: Told what is being done.

    Returns:
        One dictionary a loop: `loop` ('door' or 'bare'), `exactly_once`, `requests_per_s` at
        saturation, `cpu_us_per_request` there (server and client, without the broker), and
        `latency_ms` at the fixed `rate`: `p50`, `p90`, `p99`, `p999` and `max`.

    Raises:
        TransientError: Kafka did not answer.
        MotorcadeError: A loop came to a stop, or a request was not answered.
    """
    if bundle is None:
        on_progress("training a model")
        bundle = bench_bundle(memory=False)
    rows = []
    with tempfile.TemporaryDirectory(prefix="motorcade-bench-") as directory:
        path = Path(directory) / "bench.motorcade"
        bundle.save(path)
        for exactly_once in how.deliveries:
            for kind in ("bare", "door"):
                on_progress(f"{kind}, {'exactly' if exactly_once else 'at least'} once")
                rows.append(_measure(kafka, how, path, kind=kind, exactly_once=exactly_once))
    return rows


def _measure(
    kafka: KafkaSettings, how: RequestsBench, path: Path, *, kind: str, exactly_once: bool
) -> dict[str, Any]:
    bundle = Bundle.load(path)
    with _arena(kafka) as (mark, topics, ids), _channel(kafka, topics, ids) as channel:
        task = Task(
            kind=kind,
            exactly_once=exactly_once,
            bootstrap_servers=kafka.bootstrap_servers,
            mark=mark,
            ids=ids.by_topic,
            reply_partition=channel.address[1],
            bundle=str(path),
        )
        load = _Load(channel, topics, bundle, echoed=kind == "bare")
        with _server(task) as server:
            cpu_s = server.cpu_s() + time.process_time()
            answered, per_s = load.saturate(how)
            cpu_s = server.cpu_s() + time.process_time() - cpu_s
            latency_ms = load.steady(how)
    p50, p90, p99, p999 = np.percentile(latency_ms, [50, 90, 99, 99.9])
    return {
        "loop": kind,
        "exactly_once": exactly_once,
        "requests_per_s": round(per_s),
        "cpu_us_per_request": round(cpu_s / answered * 1e6, 1),
        "rate": how.rate,
        "latency_ms": {
            "p50": round(float(p50), 2),
            "p90": round(float(p90), 2),
            "p99": round(float(p99), 2),
            "p999": round(float(p999), 2),
            "max": round(float(latency_ms.max()), 2),
        },
    }


@contextmanager
def _arena(kafka: KafkaSettings) -> Iterator[tuple[str, DoorTopics, SchemaIds]]:
    """Topics of this run's own; deleted at the end, however it ends."""
    mark = uuid.uuid4().hex[:8]
    topics = topics_of(mark)
    every = [topics.requests, topics.responses, topics.dead_letters]
    known = register_schemas(kafka)
    ids = SchemaIds(
        {t.name: known.by_topic[t.name.partition(".bench-")[0]] for t in every},
    )
    ensure_topics(kafka, every)
    try:
        yield mark, topics, ids
    finally:
        delete_topics(kafka, [topic.name for topic in every])


@contextmanager
def _channel(kafka: KafkaSettings, topics: DoorTopics, ids: SchemaIds) -> Iterator[ReplyChannel]:
    channel = ReplyChannel(kafka, ReplyTopics(topics.requests, topics.responses), ids=ids)
    try:
        _start(channel)
        yield channel
    finally:
        channel.close()


def _start(channel: ReplyChannel) -> None:
    """Start it once the brokers know of the topics, which were made just now."""
    until_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            channel.start()
            return
        except TransientError:
            if time.monotonic() > until_s:
                raise
            time.sleep(_RETRY_S)


@contextmanager
def _server(task: Task) -> Iterator["_Server"]:
    """The server's process, once it has partitions."""
    with subprocess.Popen(
        [sys.executable, "-m", "cloud.bench_requests_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        server = _Server(process)
        try:
            server.ask(task.to_json())
            yield server
        finally:
            process.kill()


class _Server:
    """A server's process: a line in, a line out."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def ask(self, line: str) -> str:
        """Its answer. Raises MotorcadeError where it ended."""
        if self._process.stdin is None or self._process.stdout is None:
            raise MotorcadeError("the server of the benchmark has no pipes")
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        if not answer:
            raise MotorcadeError("the server of the benchmark ended")
        return answer

    def cpu_s(self) -> float:
        """Seconds of processor time that it has used."""
        return float(self.ask("cpu"))


class _Load:
    """Asks, and accounts for every request."""

    def __init__(
        self, channel: ReplyChannel, topics: DoorTopics, bundle: Bundle, *, echoed: bool
    ) -> None:
        self._channel = channel
        self._echoed = echoed
        self._request_id = channel.ids.id_of(topics.requests)
        manifest = bundle.manifest
        self._envelope = Envelope(manifest.name, "", *channel.address)
        rng = np.random.default_rng(1)
        shape = (CHUNK, len(manifest.mean))
        self._rows = rng.normal(manifest.mean, manifest.scale, shape).astype(np.float32)
        self._vehicles = [b"car-%06d" % (number % VEHICLES) for number in range(CHUNK)]
        self._sent = 0
        self._answered = 0

    def saturate(self, how: RequestsBench) -> tuple[int, float]:
        """Requests answered in all, and a second, while `WINDOW` are on their way."""
        began_s = until_s = heard_s = 0.0
        done = 0
        start_s = heard_s = time.monotonic()
        while not until_s or time.monotonic() < until_s or self._answered == done:
            if self._sent - self._answered <= WINDOW - CHUNK:
                self._channel.send_batch(self._requests(CHUNK))
            found = len(self._take(0.001))
            now_s = time.monotonic()
            heard_s = now_s if found else heard_s
            _check_alive(now_s - heard_s)
            if not until_s and now_s - start_s > how.warm_up_s:
                began_s, until_s, done = now_s, now_s + how.saturation_s, self._answered
        per_s = (self._answered - done) / (time.monotonic() - began_s)
        self._drain()
        return self._answered, per_s

    def steady(self, how: RequestsBench) -> NDArray[np.float64]:
        """Milliseconds from when each request was due to its response; without the warm-up."""
        first, rate = self._sent, how.rate
        count = int((how.warm_up_s + how.latency_s) * rate)
        requests = [each for _ in range(0, count, CHUNK) for each in self._requests(CHUNK)][:count]
        self._sent = first
        start_s = heard_s = time.monotonic()
        due_s = start_s + np.arange(count) / rate
        came_s = np.full(count, np.nan)
        while np.isnan(came_s[-1]) or self._answered < self._sent:
            now_s = time.monotonic()
            while self._sent - first < count and due_s[self._sent - first] <= now_s:
                self._channel.send(*requests[self._sent - first])
                self._sent += 1
            left = self._sent - first < count
            wait_s = max(0.0, due_s[self._sent - first] - time.monotonic()) if left else 0.05
            numbers = self._take(min(wait_s, 0.05))
            now_s = time.monotonic()
            heard_s = now_s if len(numbers) else heard_s
            _check_alive(now_s - heard_s)
            came_s[numbers - first] = now_s
        latency_ms: NDArray[np.float64] = (came_s - due_s)[int(how.warm_up_s * rate) :] * 1000
        return latency_ms

    def _requests(self, count: int) -> list[tuple[bytes, bytes | None]]:
        numbers = range(self._sent, self._sent + count)
        payloads = encode_requests(
            self._envelope,
            correlation_ids=[b"%0*d" % (_ID_DIGITS, number) for number in numbers],
            vehicle_ids=self._vehicles[:count],
            deadline_ms=np.zeros(count, np.int64),
            rows=np.ones(count, np.int64),
            values=self._rows[:count],
            schema_id=self._request_id,
        )
        self._sent += count
        return list(zip(payloads, self._vehicles[:count], strict=True))

    def _take(self, timeout_s: float) -> NDArray[np.int64]:
        """Numbers of the requests that were answered now."""
        if self._echoed:
            values = self._channel.receive_values(timeout_s)
            ids = decode_requests(values, schema_id=self._request_id).correlation_ids
        else:
            found = self._channel.receive(timeout_s)
            if any(verdict.reason for verdict in found.verdicts) or found.rejected:
                raise MotorcadeError(f"a request was refused: {found.verdicts} {found.rejected}")
            ids = found.correlation_ids
        numbers = np.array(list(map(int, ids)), np.int64)
        self._answered += len(numbers)
        return numbers

    def _drain(self) -> None:
        """Wait until every request has been answered, and none twice."""
        heard_s = time.monotonic()
        while self._answered < self._sent:
            if len(self._take(0.05)):
                heard_s = time.monotonic()
            _check_alive(time.monotonic() - heard_s)
        if self._answered != self._sent:
            raise MotorcadeError(f"{self._answered} responses to {self._sent} requests")


def _check_alive(silence_s: float) -> None:
    if silence_s > _PATIENCE_S:
        raise MotorcadeError(f"no response of the benchmark for {_PATIENCE_S:g} s")
