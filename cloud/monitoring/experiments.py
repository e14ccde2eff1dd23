"""Running experiments: what is known of their arms, and what follows from it. Pure.

An arm whose guard trips, here or in a scorer, loses its vehicles to the champion. The sequential
test compares how often a labelled case went well: a fault that was found, against one that was
missed and a false alarm (the critical success index, Schaefer, Weather and Forecasting 5, 1990).
When it has decided, that is told; where the experiment asks for it the winner is promoted, or the
loser rolled back.

A decision is a change that is made from the newest traffic: where somebody else has stopped the
experiment, or taken the arm out, it changes nothing, and then nothing is told either.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from cloud.monitoring.guards import Exposure, Tripped, tripped
from cloud.monitoring.joining import Case, Outcome, Quality
from cloud.monitoring.sequential import PairedTest, TwoSampleTest
from cloud.monitoring.settings import MonitorSettings
from scoring.catalog import Catalog
from scoring.events import EventKind, ModelEvent, Severity
from scoring.stats import ArmCounts, ArmWindow
from scoring.traffic import CHAMPION, Arm, Experiment, Mode, Splitter, Traffic
from scoring.trial import reweighted, stopped

BY = "monitor"

SLICES_MAX = 10_000
"""Windows of an arm that guards look at; beyond it the oldest goes."""

Change = Callable[[Catalog, Traffic], Traffic]
Test = TwoSampleTest | PairedTest


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be told, and done.

    Attributes:
        model: Concerned.
        events: To tell; with a change only if that changes anything.
        change: Of the model's traffic; None: nothing to do.
        reason: Of the change, in a sentence.
    """

    model: str
    events: tuple[ModelEvent, ...]
    change: Change | None = None
    reason: str = ""

    def told(self, before: Traffic, after: Traffic) -> tuple[ModelEvent, ...]:
        """The events of a change that was made."""
        if before.experiment is None or after.experiment is not None:
            return self.events
        first = self.events[0]
        ended = ModelEvent(
            EventKind.EXPERIMENT_STOPPED,
            self.model,
            f"experiment {before.experiment.id} is over: {self.reason}",
            BY,
            first.time_ms,
            experiment=before.experiment.id,
        )
        return (*self.events, ended)


@dataclass(slots=True)
class ArmState:
    """What is known of one arm.

    Attributes:
        counts: Sums of what scorers counted since the experiment began, features left out.
        exposure: The same, as guards and reports need it.
        vehicles: Most vehicles seen in one window, by component.
        recent: Exposures of the last windows, by their ends.
        quality: Of settled outcomes.
    """

    counts: ArmCounts = field(default_factory=ArmCounts)
    exposure: Exposure = field(default_factory=Exposure)
    vehicles: dict[str, int] = field(default_factory=dict)
    recent: deque[tuple[int, Exposure]] = field(default_factory=lambda: deque(maxlen=SLICES_MAX))
    quality: Quality = field(default_factory=Quality)

    def add(self, window: ArmWindow) -> None:
        """Take a window in."""
        exposure = Exposure.of(window)
        self.counts = self.counts.plus(replace(window.counts, features={}))
        self.exposure = self.exposure.plus(exposure)
        seen = max(self.vehicles.get(window.key.component_id, 0), window.counts.vehicles)
        self.vehicles[window.key.component_id] = seen
        self.recent.append((window.end_ms, exposure))

    def since(self, time_ms: int) -> Exposure:
        """What happened since; lets go of what was before."""
        while self.recent and self.recent[0][0] < time_ms:
            self.recent.popleft()
        total = Exposure()
        for _, exposure in self.recent:
            total = total.plus(exposure)
        return total


class Trial:
    """What is known of one experiment.

    Args:
        model: Whose.
        experiment: As it is now.

    Attributes:
        arms: By name, the champion's among them.
        tests: Of each other arm against the champion.
        done: Arms about which nothing more is to be decided.
        storms: What scorers told of arms whose alerts they hold back.
    """

    def __init__(self, model: str, experiment: Experiment) -> None:
        self.model = model
        self.experiment = experiment
        self.arms: dict[str, ArmState] = {CHAMPION: ArmState()}
        self.tests: dict[str, Test] = {}
        self.done: set[str] = set()
        self.storms: dict[str, ModelEvent] = {}
        self._splitter = Splitter(experiment, remembered_max=10_000)
        self.follow(experiment)

    @property
    def identity(self) -> tuple[str, int]:
        """What tells it from another experiment of the same name."""
        return self.experiment.id, self.experiment.started_time_ms

    @property
    def alpha(self) -> float:
        """Level of each arm's test: together they err with at most the experiment's."""
        return self.experiment.alpha / max(len(self.tests), 1)

    def follow(self, experiment: Experiment) -> None:
        """Weights may have changed."""
        if experiment.arms != self.experiment.arms:
            self._splitter = Splitter(experiment, remembered_max=10_000)
        self.experiment = experiment
        champion = experiment.arm(CHAMPION)
        for arm in experiment.arms:
            self.arms.setdefault(arm.name, ArmState())
            if arm.name == CHAMPION or arm.name in self.tests:
                continue
            if champion is None:
                self.tests[arm.name] = PairedTest()
            else:
                self.tests[arm.name] = TwoSampleTest.of_weights(champion.weight, arm.weight)

    def take_window(self, window: ArmWindow) -> None:
        """Count what a scorer saw of an arm, if it is one of these."""
        key = window.key
        arm = self.experiment.arm(key.arm)
        mine = arm.version == key.version if arm else key.arm == CHAMPION
        if mine and window.start_ms >= self.experiment.started_time_ms:
            self.arms[key.arm].add(window)

    def take_event(self, event: ModelEvent) -> None:
        """What was told of an arm before, by this monitor or one before it, or by a scorer."""
        if event.arm is None or event.time_ms < self.experiment.started_time_ms:
            return
        if event.kind is EventKind.GUARD_TRIPPED and event.by != BY:
            self.storms[event.arm] = event
        elif event.kind in (EventKind.GUARD_TRIPPED, EventKind.EXPERIMENT_DECIDED):
            self.done.add(event.arm)

    def take_outcomes(self, outcomes: Iterable[Outcome]) -> None:
        """Settled outcomes, in order of their times."""
        mine = [outcome for outcome in outcomes if self._concerns(outcome)]
        for outcome in mine:
            self.arms[outcome.arm.arm].quality.add(outcome)
        for name, test in self.tests.items():
            if isinstance(test, PairedTest):
                self.tests[name] = test.plus(list(self._pairs(name, mine)))
            else:
                self.tests[name] = test.plus(a=_cases(CHAMPION, mine), b=_cases(name, mine))

    def decide(self, now_ms: int, settings: MonitorSettings) -> Iterator[Decision]:
        """What follows now; each only once."""
        since_ms = now_ms - round(settings.guard_window_s * 1000)
        champion = self.arms[CHAMPION].since(since_ms)
        for arm in self.experiment.arms:
            if arm.name == CHAMPION or arm.name in self.done or arm.weight == 0:
                continue
            exposure = self.arms[arm.name].since(since_ms)
            trips = tripped(self.experiment.guards, exposure, champion)
            decision = self._guarded(arm, trips, now_ms) or self._tested(arm, now_ms)
            if decision is not None:
                self.done.add(arm.name)
                yield decision

    def _concerns(self, outcome: Outcome) -> bool:
        arm = outcome.arm
        if arm.model != self.model or outcome.time_ms < self.experiment.started_time_ms:
            return False
        held = self.experiment.arm(arm.arm)
        return held.version == arm.version if held else arm.arm == CHAMPION

    def _pairs(self, name: str, outcomes: list[Outcome]) -> Iterator[bool]:
        """Cases in which exactly one of champion and shadow was right: whether the shadow was."""
        faults: dict[tuple[str, int], dict[str, bool]] = {}
        for outcome in outcomes:
            arm = outcome.arm.arm
            if arm not in (CHAMPION, name) or not self._has(name, outcome.vehicle_id):
                continue
            if outcome.case is Case.ALARM:
                if not outcome.good:
                    yield arm == CHAMPION
                continue
            pair = faults.setdefault((outcome.vehicle_id, outcome.time_ms), {})
            pair[arm] = outcome.good
            if len(pair) == 2 and pair[CHAMPION] != pair[name]:
                yield pair[name]

    def _has(self, name: str, vehicle_id: str) -> bool:
        number = int(self._splitter.choose([vehicle_id.encode()])[0])
        return number >= 0 and self._splitter.arms[number].name == name

    def _guarded(self, arm: Arm, trips: list[Tripped], now_ms: int) -> Decision | None:
        storm = self.storms.get(arm.name)
        if storm is None and not trips:
            return None
        shadow = self.experiment.mode is Mode.SHADOW
        why = "; ".join(trip.detail for trip in trips) if trips else "a scorer held back its alerts"
        values = {trip.guard: trip.value for trip in trips}
        events = []
        if trips:
            events.append(
                self._event(
                    EventKind.GUARD_TRIPPED,
                    arm,
                    f"arm {arm.name}: {why}",
                    now_ms,
                    severity=Severity.WARNING if shadow else Severity.CRITICAL,
                    values=values,
                )
            )
        if shadow:
            return Decision(self.model, tuple(events)) if events else None
        reason = f"arm {arm.name} ({arm.version}) goes back to the champion: {why}"
        events.append(
            self._event(
                EventKind.ROLLED_BACK,
                arm,
                reason,
                now_ms,
                severity=Severity.CRITICAL,
                values=values,
            )
        )
        return Decision(self.model, tuple(events), self._without(arm.name), reason)

    def _tested(self, arm: Arm, now_ms: int) -> Decision | None:
        test = self.tests[arm.name]
        if not test.is_decided(self.alpha):
            return None
        better = test.b_is_better
        verdict = "better" if better else "worse"
        reason = (
            f"arm {arm.name} ({arm.version}) does {verdict} than the champion on labelled cases "
            f"(p {test.p_value:.2g}, alpha {self.alpha:.2g})"
        )
        decided = self._event(
            EventKind.EXPERIMENT_DECIDED,
            arm,
            reason,
            now_ms,
            values={"p_value": test.p_value, "alpha": self.alpha, "better": float(better)},
        )
        if not self.experiment.auto_promote:
            return Decision(self.model, (decided,))
        kind = EventKind.PROMOTED if better else EventKind.ROLLED_BACK
        acted = self._event(kind, arm, reason, now_ms)
        change = self._promoting(arm.name) if better else self._without(arm.name)
        return Decision(self.model, (decided, acted), change, reason)

    def _event(
        self,
        kind: EventKind,
        arm: Arm,
        detail: str,
        now_ms: int,
        *,
        severity: Severity = Severity.INFO,
        values: dict[str, float] | None = None,
    ) -> ModelEvent:
        return ModelEvent(
            kind=kind,
            model_name=self.model,
            detail=detail,
            by=BY,
            time_ms=now_ms,
            model_version=arm.version,
            arm=arm.name,
            experiment=self.experiment.id,
            severity=severity,
            values=values or {},
        )

    def _is_running(self, traffic: Traffic) -> bool:
        held = traffic.experiment
        return held is not None and (held.id, held.started_time_ms) == self.identity

    def _without(self, name: str) -> Change:
        """The champion gets the arm's vehicles; an experiment without another arm is over."""

        def change(catalog: Catalog, traffic: Traffic) -> Traffic:
            if not self._is_running(traffic) or traffic.experiment is None:
                return traffic
            arms = traffic.experiment.arms
            if not any(arm.name == name and arm.weight > 0 for arm in arms):
                return traffic
            left = any(arm.name not in (name, CHAMPION) and arm.weight > 0 for arm in arms)
            return reweighted(traffic, {name: 0.0}) if left else stopped(catalog, traffic)

        return change

    def _promoting(self, name: str) -> Change:
        """The arm's version becomes champion, and the experiment is over."""

        def change(catalog: Catalog, traffic: Traffic) -> Traffic:
            if not self._is_running(traffic):
                return traffic
            return stopped(catalog, traffic, promote=name)

        return change


def _cases(arm: str, outcomes: Iterable[Outcome]) -> list[bool]:
    """An arm's labelled cases that went well or not; a confirmed alarm is its fault's case."""
    return [
        outcome.good
        for outcome in outcomes
        if outcome.arm.arm == arm and (outcome.case is Case.FAULT or not outcome.good)
    ]


class Trials:
    """The running experiments of all models.

    Bounded: one a model, and what is known of one is let go of when it is over.
    """

    def __init__(self, settings: MonitorSettings) -> None:
        self._settings = settings
        self._trials: dict[str, Trial] = {}

    def take_catalog(self, catalog: Catalog) -> None:
        """Begin to follow what was started, and let go of what was stopped."""
        for traffic in catalog.traffics.values():
            experiment, held = traffic.experiment, self._trials.get(traffic.name)
            if experiment is None:
                self._trials.pop(traffic.name, None)
            elif held is not None and held.identity == (experiment.id, experiment.started_time_ms):
                held.follow(experiment)
            else:
                self._trials[traffic.name] = Trial(traffic.name, experiment)
        for name in self._trials.keys() - catalog.traffics.keys():
            del self._trials[name]

    def of(self, model: str) -> Trial | None:
        """The experiment of a model."""
        return self._trials.get(model)

    def running(self) -> tuple[Trial, ...]:
        """All of them."""
        return tuple(self._trials.values())

    def take_window(self, window: ArmWindow) -> None:
        """What a scorer counted; what a server counts is the same once more."""
        trial = self._trials.get(window.key.model)
        if trial is not None and window.key.component == "scorer":
            trial.take_window(window)

    def take_event(self, event: ModelEvent) -> None:
        """What was told of an experiment."""
        trial = self._trials.get(event.model_name)
        if trial is not None and event.experiment == trial.experiment.id:
            trial.take_event(event)

    def take_outcomes(self, outcomes: list[Outcome]) -> None:
        """Settled outcomes, in order of their times."""
        for trial in self._trials.values():
            trial.take_outcomes(outcomes)

    def decide(self, now_ms: int) -> list[Decision]:
        """What follows now, for all of them."""
        return [
            decision
            for trial in self._trials.values()
            for decision in trial.decide(now_ms, self._settings)
        ]
