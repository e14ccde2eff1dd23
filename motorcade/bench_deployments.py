"""`motorcade bench deployments`: the three ways to deploy a model, measured side by side.

One run on one machine: the same release, the same topic of telemetry, the programs as people run
them (`motorcade score`, `motorcade serve`) as processes of their own. For each deployment:

- throughput: the scorer reads a whole topic from its beginning, exactly once and at least once;
- latency: a steady rate of readings, from the sending of each to its committed score;
- outage: what serves the model is killed with SIGKILL and comes back after a while (the server;
  where the model is embedded, the scorer itself);
- swap: a new version is released while readings come;
- memory: resident, of the scorer and of the server.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from typing import Any

from cloud.bench_fleet import Fleet, bench_bundle
from cloud.bench_live import LiveLoad, percentiles_ms
from deploy.ports import LOOPBACK, free_ports
from deploy.stack import Endpoints, Stack
from motorcade.demo_children import Child, Crew, settings_text
from schemas.errors import MotorcadeError
from schemas.topics import SCORES, TELEMETRY, TOPICS
from scoring.bundle import Bundle
from transport.kafka import (
    KafkaSettings,
    SchemaIds,
    TransactionalProducer,
    ensure_topics,
    latest_offsets,
    register_schemas,
)
from transport.releases import publish_release

DEPLOYMENTS = ("embedded", "rpc", "kafka")
SERVED = ("rpc", "kafka")
MODEL = "bench"

VEHICLES = 10_000
_CHUNK = 20_000
_LOOK_S = 0.02
_START_TIMEOUT_S = 60.0
_RUN_TIMEOUT_S = 180.0
_DRAIN_TIMEOUT_S = 60.0
_SWAP_BEFORE_S = 3.0
_SWAP_AFTER_S = 5.0
_TOLD_S = 1.0
_WARM_UP_S = 8.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured.

    Attributes:
        deployments: Of `DEPLOYMENTS`.
        messages: Readings in the topic, each a message of its own.
        rate: Readings a second of the live load.
        seconds: How long latency is measured.
        outage_s: How long what serves the model is away.
    """

    deployments: Sequence[str] = DEPLOYMENTS
    messages: int = 400_000
    rate: int = 1_000
    seconds: float = 15.0
    outage_s: float = 10.0


def bench_deployments(plan: Plan, *, on_progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure.

    Returns:
        `deployments`, by name: `records_per_s`, `at_least_once_records_per_s`, `eos_cost` (share of
        the throughput without transactions that they take), `latency_ms`, `memory_mb` and
        `memory_parts_mb`, `outage` and `swap`; and `plan`.

    Raises:
        MotorcadeError: A part did not start, or did not come to its end.
    """
    on_progress("training a model")
    bundles = [_release(bench_bundle(memory=False, seed=seed), str(seed)) for seed in (1, 2)]
    with tempfile.TemporaryDirectory(prefix="motorcade-bench-") as directory:
        root = Path(directory)
        on_progress("starting Kafka")
        with Stack(root / "stack") as stack, Crew(root) as crew:
            bench = _Bench(plan, stack.endpoints, crew, bundles, on_progress)
            bench.prepare()
            bench.warm_up()
            measured = {name: bench.measure(name) for name in plan.deployments}
    facts = {"messages": plan.messages, "rate": plan.rate, "cores": os.cpu_count()}
    return {"deployments": measured, "plan": facts | {"outage_s": plan.outage_s}}


def _release(bundle: Bundle, version: str) -> Bundle:
    return Bundle(replace(bundle.manifest, name=MODEL, version=version), bundle.model)


class _Bench:
    """The parts of one run."""

    def __init__(
        self,
        plan: Plan,
        endpoints: Endpoints,
        crew: Crew,
        bundles: list[Bundle],
        on_progress: Callable[[str], None],
    ) -> None:
        self._plan = plan
        self._crew = crew
        self._bundles = bundles
        self._say = on_progress
        self._kafka = KafkaSettings(
            bootstrap_servers=endpoints.kafka_bootstrap, registry_url=endpoints.registry_url
        )
        self._ids: SchemaIds = register_schemas(self._kafka)
        self._config = crew.directory / "motorcade.toml"
        self._grpc_port = 0
        self._released = 0

    def prepare(self) -> None:
        """Topics, the first release, and telemetry to read."""
        ensure_topics(self._kafka, TOPICS)
        self._grpc_port, rest_port = free_ports(2)
        sections: dict[str, dict[str, Any]] = {
            "kafka": {
                "bootstrap_servers": self._kafka.bootstrap_servers,
                "registry_url": self._kafka.registry_url,
            },
            "scorer": {"session_timeout_s": 6.0, "backoff_max_s": 1.0, "max_vehicles": 20_000},
            "server": {"port": rest_port, "grpc_port": self._grpc_port},
        }
        self._config.write_text(settings_text(sections), "utf-8")
        publish_release(self._kafka, self._bundles[0])
        self._say(f"writing {self._plan.messages:,} readings")
        fleet = Fleet(VEHICLES, 1, self._plan.messages, TELEMETRY.partitions)
        producer = TransactionalProducer(self._kafka, "bench-fill")
        producer.start()
        for records in fleet.records(self._ids.id_of(TELEMETRY), chunk=_CHUNK):
            with producer.transaction():
                for partition, messages in records.items():
                    producer.produce_batch(TELEMETRY.name, messages, partition=partition)
        producer.close()

    def warm_up(self) -> None:
        """Read and score once unmeasured: whoever came first would else pay for a cold Kafka."""
        self._say("warming Kafka up")
        before = self._scores()
        with self._scoring("embedded", "exactly-once", group="bench-warm-up") as scorer:
            self._await_scores(scorer, before, self._plan.messages, _RUN_TIMEOUT_S)
            with self._load() as load:
                load.watch(_WARM_UP_S)
                load.drain(timeout_s=_DRAIN_TIMEOUT_S)

    # One deployment

    def measure(self, name: str) -> dict[str, Any]:
        """All figures of a deployment."""
        with self._served(name):
            fast = self._throughput(name, "at-least-once")
            exact = self._throughput(name, "exactly-once")
            with self._scoring(name, "exactly-once") as scorer:
                self._await_live()
                latency = self._latency(name)
                memory = self._memory(name, scorer)
                outage = self._outage(name)
                swap = self._swap(name)
        return {
            "records_per_s": round(exact),
            "at_least_once_records_per_s": round(fast),
            "eos_cost": round(1 - exact / fast, 3),
            "latency_ms": latency,
            "memory_mb": round(sum(memory.values())),
            "memory_parts_mb": {part: round(size) for part, size in memory.items()},
            "outage": outage,
            "swap": swap,
        }

    @contextmanager
    def _served(self, name: str) -> Iterator[None]:
        """With a model server, where the deployment has one."""
        if name not in SERVED:
            yield
            return
        server = self._start_server(name)
        try:
            yield
        finally:
            server.stop()

    def _start_server(self, name: str) -> Child:
        self._say(f"{name}: starting the model server")
        doors = ["--no-kafka-door"] if name == "rpc" else []
        return self._crew.start(f"server-{name}", ["--config", str(self._config), "serve", *doors])

    @contextmanager
    def _scoring(self, name: str, delivery: str, *, group: str = "") -> Iterator[Child]:
        """With a scorer that goes on where the last one of the same group stopped."""
        group = group or f"bench-{name}-{delivery}"
        child = self._crew.start(f"scorer-{name}-{delivery}", self._scorer(name, delivery, group))
        try:
            yield child
        finally:
            child.stop()

    def _scorer(self, name: str, delivery: str, group: str) -> list[str]:
        models = {
            "embedded": f"embedded:{MODEL}",
            "rpc": f"rpc://{LOOPBACK}:{self._grpc_port}/{MODEL}",
            "kafka": f"kafka://{MODEL}",
        }
        return [
            *("--config", str(self._config), "score", "--model", models[name]),
            *("--group-id", group, "--transactional-id", group, "--delivery", delivery),
        ]

    def _throughput(self, name: str, delivery: str) -> float:
        """Records a second, from the first score that is there to the last.

        Raises:
            MotorcadeError: The scores did not come.
        """
        self._say(f"{name}: reading {self._plan.messages:,} readings {delivery}")
        before = self._scores()
        with self._scoring(name, delivery) as scorer:
            first_s, first = self._await_scores(scorer, before, 1, _START_TIMEOUT_S)
            last_s, last = self._await_scores(scorer, before, self._plan.messages, _RUN_TIMEOUT_S)
        return (last - first) / (last_s - first_s)

    def _scores(self) -> int:
        return sum(latest_offsets(self._kafka, SCORES.name).values())

    def _await_scores(
        self, scorer: Child, before: int, wanted: int, timeout_s: float
    ) -> tuple[float, int]:
        """When so many more offsets were there, and how many they then were.

        Offsets count the marks of transactions too; these are one in thousands.
        """
        until_s = time.monotonic() + timeout_s
        while time.monotonic() < until_s and scorer.running:
            found = self._scores() - before
            now_s = time.monotonic()
            if found >= wanted:
                return now_s, found
            time.sleep(_LOOK_S)
        raise MotorcadeError(
            f"{scorer.name}: {self._scores() - before} of {wanted} scores:\n{scorer.tail()}"
        )

    # Live

    def _load(self) -> LiveLoad:
        return LiveLoad(self._kafka, self._ids, rate=self._plan.rate)

    def _await_live(self) -> None:
        """Until the scorer answers; it may first have to rebuild its state from the log."""
        with self._load() as load:
            if not load.watch_until(lambda: bool(load.result.arrivals), timeout_s=_START_TIMEOUT_S):
                raise MotorcadeError("the scorer does not score live readings")
            load.drain(timeout_s=_DRAIN_TIMEOUT_S)

    def _latency(self, name: str) -> dict[str, float]:
        self._say(f"{name}: {self._plan.rate:,} readings/s for {self._plan.seconds:g} s")
        with self._load() as load:
            load.watch(self._plan.seconds + _TOLD_S)
            result = load.drain(timeout_s=_DRAIN_TIMEOUT_S)
        # The first second is left out: connections and caches warm up in it.
        warm_s = min(arrival.sent_s for arrival in result.arrivals) + _TOLD_S
        return percentiles_ms(result.delays_ms(since_s=warm_s))

    def _outage(self, name: str) -> dict[str, float]:
        victim = self._crew.children[
            f"server-{name}" if name in SERVED else f"scorer-{name}-exactly-once"
        ]
        self._say(f"{name}: {victim.name} is killed for {self._plan.outage_s:g} s")
        with self._load() as load:
            load.watch(_SWAP_BEFORE_S)
            victim.kill()
            load.watch(self._plan.outage_s)
            self._crew.restart(victim.name)
            load.watch(_SWAP_AFTER_S)
            result = load.drain(timeout_s=_DRAIN_TIMEOUT_S)
        delays = result.delays_ms()
        return {
            "lost": result.lost,
            "repeated": result.repeated,
            "delayed_s": round(float(delays.max()) / 1e3, 2),
        }

    def _swap(self, name: str) -> dict[str, float]:
        """A release while readings come, and back again for the next deployment's sake."""
        self._say(f"{name}: a new version arrives")
        bundle = self._next_release()
        with self._load() as load:
            load.watch(_SWAP_BEFORE_S)
            before_s = time.monotonic()
            # On a thread of its own: while it waits for Kafka, scores that come are to be noted.
            publishing = Thread(target=publish_release, args=(self._kafka, bundle))
            publishing.start()
            version = bundle.manifest.version
            came = load.watch_until(
                lambda: bool(load.result.arrivals) and load.result.arrivals[-1].version == version,
                timeout_s=_START_TIMEOUT_S,
            )
            load.watch(_SWAP_AFTER_S - _SWAP_BEFORE_S)
            publishing.join()
            result = load.drain(timeout_s=_DRAIN_TIMEOUT_S)
        if not came:
            raise MotorcadeError(f"{name}: version {version} did not score within the time")
        return {
            "lost": result.lost,
            "repeated": result.repeated,
            "p99_ms": percentiles_ms(result.delays_ms(since_s=before_s))["p99"],
        }

    def _next_release(self) -> Bundle:
        """The other model, as a version that was not there yet."""
        self._released += 1
        bundle = self._bundles[self._released % len(self._bundles)]
        return _release(bundle, f"{self._released + 1}")

    def _memory(self, name: str, scorer: Child) -> dict[str, float]:
        parts = {"scorer": scorer}
        if name in SERVED:
            parts["server"] = self._crew.children[f"server-{name}"]
        return {part: resident_mb(child.pid) for part, child in parts.items()}


def resident_mb(pid: int | None) -> float:
    """Resident memory of a process and its children, in MB, as Linux counts it.

    Raises:
        MotorcadeError: It does not run.
    """
    try:
        text = Path(f"/proc/{pid}/status").read_text("ascii")
        kilobytes = next(line.split()[1] for line in text.splitlines() if "VmRSS:" in line)
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    except (OSError, StopIteration) as error:
        raise MotorcadeError(f"process {pid} has ended") from error
    return int(kilobytes) / 1024 + sum(resident_mb(int(child)) for child in children)
