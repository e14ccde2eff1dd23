"""The figures of a running experiment, for people and programs."""

import math
import time
from dataclasses import asdict, dataclass
from typing import Any

from cloud.monitoring.experiments import ArmState, Trial
from cloud.monitoring.joining import Quality
from cloud.monitoring.loop import TOPICS, take
from cloud.monitoring.roster import ArmRef
from cloud.monitoring.settings import MonitorSettings
from cloud.monitoring.sources import LogTail
from cloud.monitoring.state import MonitorState
from schemas.topics import MODEL_EVENTS
from scoring.sketch import SCORE_BINS, TIME_BINS, Sizes, ks_distance, ks_limit
from scoring.traffic import CHAMPION, Experiment
from transport.catalog import CatalogFollower
from transport.kafka import KafkaSettings, register_schemas

READ_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class ArmReport:
    """One arm of an experiment; None where there is nothing to tell a figure from.

    Attributes:
        arm: Its name.
        version: Of the model.
        weight: Share of the vehicles; None: the champion beside a shadow.
        vehicles: Seen at once, at most.
        vehicle_hours: Driven.
        readings: Scored.
        unscored_share: Of the readings.
        alerts_opened: By the arm.
        alerts_held: That a scorer kept back.
        alerts_per_vehicle_hour: Openings, those held among them.
        score_p50: Median of score / threshold.
        score_p99: 99th percentile of it.
        score_ks: Distance of its distribution from the champion's.
        score_ks_limit: What that exceeds by chance once in a hundred experiments.
        compute_p50_ms: Median time of scoring a poll.
        compute_p99_ms: 99th percentile of it.
        alarms: Judged, settled or not.
        precision: Share of the alarms that labels confirm.
        faults: Labelled, of its vehicles.
        recall: Share of the faults that it found.
        p_value: Of the sequential test against the champion, valid at every look.
        decided: 'better', 'worse', or '' while the test has not decided.
    """

    arm: str
    version: str
    weight: float | None
    vehicles: int
    vehicle_hours: float
    readings: int
    unscored_share: float
    alerts_opened: int
    alerts_held: int
    alerts_per_vehicle_hour: float | None
    score_p50: float | None
    score_p99: float | None
    score_ks: float | None
    score_ks_limit: float | None
    compute_p50_ms: float | None
    compute_p99_ms: float | None
    alarms: int
    precision: float | None
    faults: int
    recall: float | None
    p_value: float | None
    decided: str


@dataclass(frozen=True, slots=True)
class ExperimentReport:
    """An experiment and its arms, the champion's first.

    Attributes:
        model: Its name.
        experiment: As it is now.
        arms: Their figures.
    """

    model: str
    experiment: Experiment
    arms: tuple[ArmReport, ...]

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        experiment = self.experiment
        return {
            "model": self.model,
            "experiment": experiment.id,
            "mode": experiment.mode.value,
            "started_time_ms": experiment.started_time_ms,
            "auto_promote": experiment.auto_promote,
            "alpha": experiment.alpha,
            "guards": experiment.guards.to_map(),
            "arms": [asdict(arm) for arm in self.arms],
        }


def experiment_report(
    kafka: KafkaSettings, model: str, settings: MonitorSettings
) -> ExperimentReport | None:
    """Read the log back as a monitor does, and tell what it knows of the running experiment.

    Args:
        kafka: Where Kafka and the registry are.
        model: Its name.
        settings: How far back, and when labels settle.

    Returns:
        None: no experiment runs.

    Raises:
        SettingsError: A topic is missing.
        TransientError: Kafka or the registry did not answer.
    """
    now_ms = time.time_ns() // 1_000_000
    with CatalogFollower(kafka, [model]) as follower:
        catalog = follower.read_to_end(READ_TIMEOUT_S)
    experiment = catalog.traffic(model).experiment
    if experiment is None:
        return None
    back_ms = now_ms - round(settings.lookback_s * 1000)
    since_ms = max(back_ms, experiment.started_time_ms)
    state = MonitorState(settings, since_ms=now_ms)
    state.take_catalog(catalog)
    with LogTail(kafka, TOPICS, register_schemas(kafka, TOPICS), since_ms=since_ms) as tail:
        for records in tail.history():
            take(state, records)
            state.take_history_of_events(records.get(MODEL_EVENTS.name, ()))
    state.decide(now_ms)  # Settles what may be settled; what follows from it is the monitor's.
    return reported(state, model, now_ms)


def reported(state: MonitorState, model: str, now_ms: int) -> ExperimentReport | None:
    """What a state knows of a model's experiment; None where none runs."""
    trial = state.trials.of(model)
    if trial is None:
        return None
    quality = state.quality(now_ms)
    names = sorted(trial.arms, key=lambda name: (name != CHAMPION, name))
    arms = tuple(
        _arm(trial, name, quality, state.champion(model) if name == CHAMPION else "")
        for name in names
    )
    return ExperimentReport(model, trial.experiment, arms)


def _arm(trial: Trial, name: str, quality: dict[ArmRef, Quality], otherwise: str) -> ArmReport:
    held, state, test = trial.experiment.arm(name), trial.arms[name], trial.tests.get(name)
    version = held.version if held else otherwise
    judged = quality.get(ArmRef(trial.model, version, name), Quality())
    exposure, counts = state.exposure, state.counts
    distance, limit = (None, None) if name == CHAMPION else _ks(state, trial.arms[CHAMPION])
    decided = ""
    if test is not None and test.is_decided(trial.alpha):
        decided = "better" if test.b_is_better else "worse"
    return ArmReport(
        arm=name,
        version=version,
        weight=held.weight if held else None,
        vehicles=sum(state.vehicles.values()),
        vehicle_hours=exposure.vehicle_hours,
        readings=exposure.readings,
        unscored_share=exposure.unscored_share,
        alerts_opened=counts.alerts_opened,
        alerts_held=counts.alerts_held,
        alerts_per_vehicle_hour=_known(exposure.alerts_per_vehicle_hour),
        score_p50=_known(SCORE_BINS.quantile(counts.scores, 0.5)),
        score_p99=_known(SCORE_BINS.quantile(counts.scores, 0.99)),
        score_ks=distance,
        score_ks_limit=limit,
        compute_p50_ms=_known(1000 * TIME_BINS.quantile(counts.compute, 0.5)),
        compute_p99_ms=_known(1000 * TIME_BINS.quantile(counts.compute, 0.99)),
        alarms=judged.alarms,
        precision=judged.precision,
        faults=judged.faults,
        recall=judged.recall,
        p_value=None if test is None else test.p_value,
        decided=decided,
    )


def _ks(arm: ArmState, champion: ArmState) -> tuple[float | None, float | None]:
    sizes = sum(arm.vehicles.values()), sum(champion.vehicles.values())
    if not all(sizes) or not arm.counts.scores.sum() or not champion.counts.scores.sum():
        return None, None
    distance = ks_distance(champion.counts.scores, arm.counts.scores)
    return distance, ks_limit(Sizes(sizes[1], sizes[0]), alpha=0.01)


def _known(value: float) -> float | None:
    """None for what JSON has no number for."""
    return None if math.isnan(value) else value
