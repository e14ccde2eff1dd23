"""The demo while the fleet drives: takes the steps that are due and shows what happens."""

import signal
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from deploy.stack import Stack
from motorcade.demo_children import Child, Crew
from motorcade.demo_count import Witnessed
from motorcade.demo_display import Display, Scene, alert_text
from motorcade.demo_plan import Phase, Plan, Step, due
from motorcade.demo_watch import CloudWatch, EdgeWatch, Sighting
from schemas.errors import MotorcadeError, TransientError
from simulator.ledger import Ledger

SETTINGS_FILE = "motorcade.toml"
LEDGER_FILE = "ledger.json"

TICK_S = 0.1
LAST_ALERTS_S = 1.0
STALLED_S = 2.0
ABREAST_S = 3.0
DRAIN_TIMEOUT_S = 120.0
READY_TIMEOUT_S = 60.0
SETTLE_TIMEOUT_S = 90.0


def wall_ms() -> int:
    """The clock of this machine."""
    return time.time_ns() // 1_000_000


def uplink_text(said: str, stalled_s: float) -> str:
    """The gateway's word for its uplink, and what shows before it gives a transaction up."""
    if said == "connected" and stalled_s > STALLED_S:
        return f"no answer from Kafka for {stalled_s:.0f} s"
    return said


class Drive:
    """One drive, from the first reading to the last acknowledgement.

    Args:
        timeline: When what is due.
        stack: The brokers; Kafka is stopped and started again.
        crew: Where the children are started.
        edge: Alerts on MQTT.
        cloud: Alerts on Kafka.
        display: Shows `scene`.
        scene: Written here.
    """

    def __init__(
        self,
        timeline: Plan,
        stack: Stack,
        crew: Crew,
        *,
        edge: EdgeWatch,
        cloud: CloudWatch,
        display: Display,
        scene: Scene,
    ) -> None:
        self._plan = timeline
        self._stack = stack
        self._crew = crew
        self._config = ["--config", str(crew.directory / SETTINGS_FILE)]
        self._edge = edge
        self._cloud = cloud
        self._display = display
        self._scene = scene
        self._done: dict[Step, float] = {}
        self._began_s = 0.0
        self._end_outage = threading.Event()
        self._outage: Future[float] | None = None
        self._arrivals: dict[str, dict[str, int]] = {"edge": {}, "cloud": {}}
        self._model: dict[str, str] = {}
        self._model_loaded_ms = 0
        self._outage_s = 0.0
        self._outage_began_ms = 0
        self._caught_up_ms = 0
        self._forwarded_s = 0.0
        self._scored_messages = 0

    @property
    def witnessed(self) -> Witnessed:
        """What was seen, for the count."""
        return Witnessed(
            self._arrivals,
            self._model,
            self._model_loaded_ms,
            self._outage_s,
            backlogs_ms=[(0, self._model_loaded_ms), (self._outage_began_ms, self._caught_up_ms)],
        )

    def run(self) -> None:
        """Drive to the end.

        Raises:
            MotorcadeError: A child ended by itself or a step failed, with the end of its log.
        """
        with ThreadPoolExecutor(1, "outage") as pool:
            try:
                self._start_children()
                self._loop(pool)
                self._settle(pool)
            finally:
                self._end_outage.set()

    def _start_children(self) -> None:
        config = self._config
        gateway = self._crew.start("gateway", [*config, "gateway", "run", "--progress"])
        self._crew.start("scorer", [*config, "score", "--progress"])
        self._await_first_word(gateway)
        self._simulator = self._crew.start("simulator", [*config, "simulate", "--progress"])
        self._await_first_word(self._simulator)
        self._began_s = time.monotonic()
        self._scene.phase = Phase.HEALTHY

    def _await_first_word(self, child: Child) -> None:
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while not child.has_spoken:
            self._check_children()
            if time.monotonic() > deadline_s:
                raise TransientError(f"{child.name} said nothing in {READY_TIMEOUT_S:.0f} s")
            self._display.update()
            time.sleep(TICK_S)

    def _loop(self, pool: ThreadPoolExecutor) -> None:
        while self._simulator.running or self._outage_goes_on():
            self._tick(pool)
            finished_s = self._done.get(Step.FINISH, float("inf"))
            if self._scene.elapsed_s > finished_s + DRAIN_TIMEOUT_S:
                raise TransientError(
                    f"the fleet still holds readings {DRAIN_TIMEOUT_S:.0f} s after its end:\n"
                    f"{self._simulator.tail()}"
                )
            time.sleep(TICK_S)
        self._tick(pool)
        if Step.STOP_KAFKA not in self._done:
            raise MotorcadeError(
                "the recording was over before the demo was: try a longer one, or --duration"
            )

    def _settle(self, pool: ThreadPoolExecutor) -> None:
        """Wait until the gateway has forwarded and the scorer answered everything; no longer than
        SETTLE_TIMEOUT_S: what is missing then is counted as lost.
        """
        self._scene.phase = Phase.COUNTING
        ledger = Ledger.load(self._crew.directory / LEDGER_FILE)
        batches = sum(boot.last_seq - len(boot.dropped_seq) for boot in ledger.boots)
        deadline_s = time.monotonic() + SETTLE_TIMEOUT_S
        while time.monotonic() < deadline_s:
            self._tick(pool)
            if self._scored_messages >= batches and self._scene.spool_depth == 0:
                break
            time.sleep(TICK_S)
        time.sleep(LAST_ALERTS_S)
        self._tick(pool)

    def _tick(self, pool: ThreadPoolExecutor) -> None:
        self._check_children()
        self._hear()
        self._see()
        self._settle_outage()
        elapsed_s = time.monotonic() - self._began_s
        self._scene.elapsed_s = elapsed_s
        step = due(
            self._plan, self._done, elapsed_s=elapsed_s, model_loaded=self._model_is_everywhere()
        )
        if step is not None and self._simulator.running:
            self._done[step] = elapsed_s
            self._take(step, pool)
        self._display.update()

    # Steps

    def _take(self, step: Step, pool: ThreadPoolExecutor) -> None:
        if step is Step.TRAIN:
            self._scene.phase = Phase.TRAINING
            self._crew.start("trainer", [*self._config, "train", "--progress"])
        elif step is Step.INJECT:
            self._scene.phase = Phase.FAULTS
            self._model_loaded_ms = wall_ms()
            self._simulator.signal(signal.SIGUSR1)
        elif step is Step.STOP_KAFKA:
            self._scene.phase = Phase.OUTAGE
            self._outage_began_ms = wall_ms()
            self._outage = pool.submit(self._have_outage)
        elif step is Step.FINISH:
            self._scene.phase = Phase.DRAINING
            self._simulator.signal(signal.SIGUSR2)

    def _have_outage(self) -> float:
        """Stop Kafka, wait, start it again. Returns the seconds it did not answer."""
        self._stack.stop_part("kafka")
        began_s = time.monotonic()
        self._end_outage.wait(self._plan.outage_s)
        self._stack.start_part("kafka")
        return time.monotonic() - began_s

    def _outage_goes_on(self) -> bool:
        return self._outage is not None and not self._outage.done()

    def _settle_outage(self) -> None:
        if self._outage is not None and self._outage.done() and not self._outage_s:
            self._outage_s = self._outage.result()
            self._scene.phase = Phase.RECOVERED

    # What the children say

    def _check_children(self) -> None:
        for child in self._crew.children.values():
            if child.status not in (None, 0) or (child.status == 0 and child.name in _LASTING):
                raise MotorcadeError(
                    f"the {child.name} ended with status {child.status}; the end of its log:\n"
                    f"{child.tail()}"
                )

    def _hear(self) -> None:
        for name, child in self._crew.children.items():
            for said in child.progress():
                _HEARERS[name](self, said)

    def _hear_gateway(self, said: dict[str, Any]) -> None:
        now_s, scene = time.monotonic(), self._scene
        if said["forwarded"] != scene.counts["forwarded (messages)"] or not said["spool_depth"]:
            self._forwarded_s = now_s
        scene.count(now_s, "forwarded (messages)", said["forwarded"])
        scene.count(now_s, "scored at the edge", said["scored"])
        scene.spool_depth = said["spool_depth"]
        scene.uplink = uplink_text(said["uplink"], now_s - self._forwarded_s)
        scene.edge_model = said["model_version"]

    def _hear_scorer(self, said: dict[str, Any]) -> None:
        self._scene.count(time.monotonic(), "scored in the cloud", said["readings"])
        self._scene.cloud_model = said["model_version"]
        self._scored_messages = said["messages"]
        if self._outage_s and not self._caught_up_ms and self._cloud_is_abreast():
            self._caught_up_ms = wall_ms()

    def _cloud_is_abreast(self) -> bool:
        """Whether the scorer is behind the vehicles by no more than it always is."""
        behind = self._scene.counts["measured"] - self._scene.counts["scored in the cloud"]
        return behind <= ABREAST_S * self._scene.rates["measured"].per_s

    def _hear_simulator(self, said: dict[str, Any]) -> None:
        now_s = time.monotonic()
        self._scene.count(now_s, "measured", said["measured"])
        self._scene.count(now_s, "acknowledged", said["acknowledged"])
        self._scene.faults = said["faults"]

    def _hear_trainer(self, said: dict[str, Any]) -> None:
        self._model = {key: said[key] for key in ("name", "version", "sha256")}
        self._scene.phase = Phase.MODEL

    def _model_is_everywhere(self) -> bool:
        version = self._model.get("version")
        return version is not None and version == self._scene.edge_model == self._scene.cloud_model

    # What the watchers see

    def _see(self) -> None:
        while self._edge.seen:
            if self._note(self._edge.seen.popleft(), "edge"):
                self._scene.edge_alerts += 1
        while self._cloud.seen:
            if self._note(self._cloud.seen.popleft(), "cloud"):
                self._scene.cloud_alerts += 1

    def _note(self, sighting: Sighting, origin: str) -> bool:
        alert, arrivals = sighting.alert, self._arrivals[origin]
        is_new = (
            alert["origin"] == origin.upper()
            and alert["state"] == "OPEN"
            and alert["alert_id"] not in arrivals
        )
        if is_new:
            arrivals[alert["alert_id"]] = sighting.arrived_ms
            self._display.alert(alert_text(alert))
        return is_new


_LASTING = frozenset({"gateway", "scorer"})
_HEARERS = {
    "gateway": Drive._hear_gateway,
    "scorer": Drive._hear_scorer,
    "simulator": Drive._hear_simulator,
    "trainer": Drive._hear_trainer,
}
