"""How an experiment does: the figures that decide, and what was told of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cloud.monitoring.report import ExperimentReport, experiment_report
from cloud.monitoring.settings import MonitorSettings
from cloud.monitoring.sources import LogTail
from schemas.errors import ContractError, MotorcadeError
from schemas.records import Record
from schemas.topics import MODEL_EVENTS
from scoring.events import ModelEvent
from scoring.traffic import Experiment
from transport.kafka import register_schemas
from transport.settings import KafkaSettings

EVENTS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class ExperimentStatus:
    """A running experiment.

    Attributes:
        report: Its arms and their figures.
        events: The newest that were told of it, oldest first.
    """

    report: ExperimentReport
    events: tuple[ModelEvent, ...]

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return self.report.to_json() | {"events": [event.to_record() for event in self.events]}


def experiment_status(
    kafka: KafkaSettings, model: str, settings: MonitorSettings
) -> ExperimentStatus:
    """Read what is known of a model's running experiment.

    Args:
        kafka: Where Kafka and the registry are.
        model: Its name.
        settings: How far back, and when labels settle.

    Raises:
        MotorcadeError: No experiment runs.
        SettingsError: A topic is missing.
        TransientError: Kafka or the registry did not answer.
    """
    report = experiment_report(kafka, model, settings)
    if report is None:
        raise MotorcadeError(f"model {model} has no running experiment")
    return ExperimentStatus(report, _events(kafka, model, report.experiment))


def _events(kafka: KafkaSettings, model: str, experiment: Experiment) -> tuple[ModelEvent, ...]:
    ids = register_schemas(kafka, [MODEL_EVENTS])
    found: list[ModelEvent] = []
    since_ms = experiment.started_time_ms
    with LogTail(kafka, [MODEL_EVENTS], ids, since_ms=since_ms) as tail:
        for records in tail.history():
            found += _of(model, experiment, records.get(MODEL_EVENTS.name, ()))
            del found[:-EVENTS_SHOWN]
    return tuple(found)


def _of(model: str, experiment: Experiment, records: Iterable[Record]) -> list[ModelEvent]:
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
