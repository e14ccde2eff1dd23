"""`motorcade bench shadow`: what a shadow takes from the champion.

One stack, one scorer, a steady rate of readings. Rounds alternate: without a shadow, and with one
that scores a share of the vehicles beside the champion. Of each round the champion's latency is
told, from the sending of a reading to its committed score; what the rounds of one kind differ
among themselves is the noise that a difference between the kinds has to exceed.
"""

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloud.bench_fleet import bench_bundle
from cloud.bench_live import LiveLoad, percentiles_ms
from cloud.experiment_desk import now_ms, start_experiment, stop_experiment
from cloud.model_desk import Deed
from deploy.stack import Endpoints, Stack
from motorcade.demo_children import Child, Crew, settings_text
from schemas.errors import MotorcadeError
from schemas.topics import SHADOW_SCORES, TOPICS
from scoring.traffic import Mode
from scoring.trial import Asked, Wish
from transport.kafka import KafkaSettings, ensure_topics, latest_offsets, register_schemas
from transport.releases import publish_release

DEED = Deed("bench", "to measure what a shadow costs")
EXPERIMENT = "bench-shadow"

_START_TIMEOUT_S = 60.0
_DRAIN_TIMEOUT_S = 60.0
_WARM_S = 1.0


@dataclass(frozen=True, slots=True)
class ShadowPlan:
    """What is measured.

    Attributes:
        rounds: Of each kind.
        seconds: Length of a round.
        rate: Readings a second.
        share: Of the vehicles that the shadow scores.
    """

    rounds: int = 3
    seconds: float = 15.0
    rate: int = 1_000
    share: float = 0.5


def bench_shadow(plan: ShadowPlan, *, on_progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure.

    Returns:
        `without` and `with`, each a list of `{p50, p99, p999}` in milliseconds, one a round;
        `median_p99_ms` of each, and `noise_p99_ms`: the range of the rounds without a shadow.

    Raises:
        MotorcadeError: A part did not start, or readings were lost or scored twice.
    """
    on_progress("training a model")
    bundle = bench_bundle(memory=False)
    with tempfile.TemporaryDirectory(prefix="motorcade-bench-") as directory:
        root = Path(directory)
        on_progress("starting Kafka")
        with Stack(root / "stack") as stack, Crew(root) as crew:
            bench = _Bench(plan, stack.endpoints, crew, on_progress)
            publish_release(bench.kafka, bundle)
            rounds = bench.measure(bundle.manifest.name, bundle.manifest.version)
    medians = {kind: statistics.median(r["p99"] for r in found) for kind, found in rounds.items()}
    alone = [r["p99"] for r in rounds["without"]]
    return {**rounds, "median_p99_ms": medians, "noise_p99_ms": round(max(alone) - min(alone), 2)}


def shadow_table(result: dict[str, Any]) -> str:
    """A line a round, and what comes of them."""
    head = f"{'ms':<16}{'p50':>9}{'p99':>9}{'p99.9':>9}"
    rows = [
        f"{kind + ' shadow':<16}" + "".join(f"{r[name]:>9.2f}" for name in ("p50", "p99", "p999"))
        for pair in zip(result["without"], result["with"], strict=True)
        for kind, r in zip(("without", "with"), pair, strict=True)
    ]
    medians = result["median_p99_ms"]
    last = (
        f"median p99: {medians['without']:.2f} ms without, {medians['with']:.2f} ms with; rounds "
        f"without differ by {result['noise_p99_ms']:.2f} ms"
    )
    return "\n".join([head, *rows, last])


class _Bench:
    """The parts of one run."""

    def __init__(
        self,
        plan: ShadowPlan,
        endpoints: Endpoints,
        crew: Crew,
        on_progress: Callable[[str], None],
    ) -> None:
        self._plan = plan
        self._crew = crew
        self._say = on_progress
        self.kafka = KafkaSettings(
            bootstrap_servers=endpoints.kafka_bootstrap, registry_url=endpoints.registry_url
        )
        ensure_topics(self.kafka, TOPICS)
        self._ids = register_schemas(self.kafka)

    def measure(self, name: str, version: str) -> dict[str, list[dict[str, float]]]:
        """All rounds, alternately."""
        found: dict[str, list[dict[str, float]]] = {"without": [], "with": []}
        scorer = self._start(name)
        self._await_live(scorer)
        for number in range(self._plan.rounds):
            self._say(f"round {number + 1} of {self._plan.rounds}: without a shadow")
            found["without"].append(self._round())
            self._begin_shadow(name, version)
            self._say(f"round {number + 1} of {self._plan.rounds}: with a shadow")
            found["with"].append(self._round())
            stop_experiment(self.kafka, name, DEED)
        return found

    def _start(self, name: str) -> Child:
        config = self._crew.directory / "motorcade.toml"
        sections: dict[str, dict[str, Any]] = {
            "kafka": {
                "bootstrap_servers": self.kafka.bootstrap_servers,
                "registry_url": self.kafka.registry_url,
            },
            "scorer": {"model": f"embedded:{name}", "max_vehicles": 20_000},
        }
        config.write_text(settings_text(sections), "utf-8")
        return self._crew.start("scorer", ["--config", str(config), "score"])

    def _load(self) -> LiveLoad:
        return LiveLoad(self.kafka, self._ids, rate=self._plan.rate)

    def _await_live(self, scorer: Child) -> None:
        with self._load() as load:
            if not load.watch_until(lambda: bool(load.result.arrivals), timeout_s=_START_TIMEOUT_S):
                raise MotorcadeError(f"the scorer does not score live readings:\n{scorer.tail()}")
            load.drain(timeout_s=_DRAIN_TIMEOUT_S)

    def _begin_shadow(self, name: str, version: str) -> None:
        """Start the experiment, and wait until its shadow scores."""
        before = self._shadowed()
        arm = Asked("shadow", version, self._plan.share)
        wish = Wish(EXPERIMENT, Mode.SHADOW, (arm,), salt=EXPERIMENT, started_time_ms=now_ms())
        start_experiment(self.kafka, name, wish, DEED)
        with self._load() as load:
            if not load.watch_until(lambda: self._shadowed() > before, timeout_s=_START_TIMEOUT_S):
                raise MotorcadeError("the shadow does not score")
            load.drain(timeout_s=_DRAIN_TIMEOUT_S)

    def _shadowed(self) -> int:
        return sum(latest_offsets(self.kafka, SHADOW_SCORES.name).values())

    def _round(self) -> dict[str, float]:
        with self._load() as load:
            load.watch(self._plan.seconds + _WARM_S)
            result = load.drain(timeout_s=_DRAIN_TIMEOUT_S)
        if result.lost or result.repeated:
            raise MotorcadeError(f"{result.lost} readings lost, {result.repeated} scored twice")
        # The first second is left out: connections and caches warm up in it.
        warm_s = min(arrival.sent_s for arrival in result.arrivals) + _WARM_S
        return percentiles_ms(result.delays_ms(since_s=warm_s))
