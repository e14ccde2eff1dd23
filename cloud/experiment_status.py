"""How an experiment does: its arms, what scorers counted of each, and what was told of it."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cloud.monitoring.sources import LogTail
from schemas.errors import ContractError
from schemas.records import Record
from schemas.topics import MODEL_EVENTS, MODEL_STATS
from scoring.events import ModelEvent
from scoring.sketch import SCORE_BINS, TIME_BINS
from scoring.stats import ArmCounts, ArmWindow
from scoring.traffic import Arm, Experiment
from transport.kafka import register_schemas
from transport.settings import KafkaSettings

EVENTS_SHOWN = 10


@dataclass(slots=True)
class ArmSum:
    """What scorers counted of one arm since the experiment began.

    Attributes:
        counts: Sums; its `vehicles` are those of the component windows, added up.
        vehicles: Most that were seen in one window, by component.
        vehicle_ms: Time for which vehicles were seen.
    """

    counts: ArmCounts = field(default_factory=ArmCounts)
    vehicles: dict[str, int] = field(default_factory=dict)
    vehicle_ms: int = 0

    def add(self, window: ArmWindow) -> None:
        """Take a window in."""
        component, seen = window.key.component_id, window.counts.vehicles
        self.counts = self.counts.plus(window.counts)
        self.vehicles[component] = max(seen, self.vehicles.get(component, 0))
        self.vehicle_ms += seen * (window.end_ms - window.start_ms)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        counts = self.counts
        hours = self.vehicle_ms / 3_600_000
        return {
            "vehicles": sum(self.vehicles.values()),
            "readings": counts.readings,
            "unscored": counts.unscored,
            "exceeding": counts.exceeding,
            "alerts_opened": counts.alerts_opened,
            "alerts_held": counts.alerts_held,
            "alerts_per_vehicle_hour": counts.alerts_opened / hours if hours else None,
            "score_over_threshold_p50": _known(SCORE_BINS.quantile(counts.scores, 0.5)),
            "score_over_threshold_p99": _known(SCORE_BINS.quantile(counts.scores, 0.99)),
            "compute_s_p99": _known(TIME_BINS.quantile(counts.compute, 0.99)),
        }


def _known(value: float) -> float | None:
    """None for what JSON has no number for."""
    return None if math.isnan(value) else value


@dataclass(frozen=True, slots=True)
class ExperimentStatus:
    """An experiment and what is known of it.

    Attributes:
        model: Its name.
        experiment: The experiment.
        sums: Of each arm that was counted.
        events: The newest of it, oldest first.
    """

    model: str
    experiment: Experiment
    sums: Mapping[str, ArmSum]
    events: tuple[ModelEvent, ...]

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
            "arms": [self._arm(arm) for arm in experiment.arms],
            "events": [event.to_record() for event in self.events],
        }

    def _arm(self, arm: Arm) -> dict[str, Any]:
        said = {"arm": arm.name, "version": arm.version, "weight": arm.weight}
        counted = self.sums.get(arm.name)
        return said if counted is None else said | counted.to_json()


def experiment_status(kafka: KafkaSettings, model: str, experiment: Experiment) -> ExperimentStatus:
    """Read what was counted and told since an experiment began.

    Raises:
        SettingsError: A topic is missing.
        TransientError: Kafka or the registry did not answer.
    """
    ids = register_schemas(kafka, [MODEL_STATS, MODEL_EVENTS])
    sums: dict[str, ArmSum] = {}
    events: list[ModelEvent] = []
    since_ms = experiment.started_time_ms
    with LogTail(kafka, [MODEL_STATS, MODEL_EVENTS], ids, since_ms=since_ms) as tail:
        for records in tail.history():
            _add(sums, model, experiment, records.get(MODEL_STATS.name, ()))
            events += _events(model, experiment, records.get(MODEL_EVENTS.name, ()))
            del events[:-EVENTS_SHOWN]
    return ExperimentStatus(model, experiment, sums, tuple(events))


def _add(
    sums: dict[str, ArmSum], model: str, experiment: Experiment, records: Iterable[Record]
) -> None:
    """Add what scorers counted of the arms, each with its version."""
    versions = {arm.name: arm.version for arm in experiment.arms}
    for record in records:
        try:
            window = ArmWindow.from_record(record)
        except ContractError:
            continue  # No sound count; the monitor tells of those.
        key = window.key
        mine = key.component == "scorer" and key.model == model
        if mine and versions.get(key.arm) == key.version:
            sums.setdefault(key.arm, ArmSum()).add(window)


def _events(model: str, experiment: Experiment, records: Iterable[Record]) -> list[ModelEvent]:
    found = []
    for record in records:
        if (record["model_name"], record["experiment"]) != (model, experiment.id):
            continue
        try:
            event = ModelEvent.from_record(record)
        except ContractError:
            continue  # Of a kind that a newer release tells of.
        if event.time_ms >= experiment.started_time_ms:
            found.append(event)
    return found
