"""What happens to models, as `ModelEvent` records: no I/O, no clock."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from schemas.errors import ContractError, Reason
from scoring.traffic import epoch_ms


class EventKind(StrEnum):
    """What happened; the `kind` of a record of `model.events`."""

    PUBLISHED = "published"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled-back"
    DELETED = "deleted"
    EXPERIMENT_STARTED = "experiment-started"
    EXPERIMENT_CHANGED = "experiment-changed"
    EXPERIMENT_STOPPED = "experiment-stopped"
    EXPERIMENT_DECIDED = "experiment-decided"
    INPUT_DRIFT = "input-drift"
    INPUT_DRIFT_OVER = "input-drift-over"
    SCORE_DRIFT = "score-drift"
    SCORE_DRIFT_OVER = "score-drift-over"
    GUARD_TRIPPED = "guard-tripped"
    EDGE_DISAGREEMENT = "edge-disagreement"
    EDGE_INSTALLED = "edge-installed"
    EDGE_REFUSED = "edge-refused"
    EDGE_ROLLED_BACK = "edge-rolled-back"


class Severity(StrEnum):
    """How much an event asks for a person."""

    INFO = "INFO"
    WARNING = "WARNING"
    CRITICAL = "CRITICAL"


@dataclass(frozen=True, slots=True)
class ModelEvent:
    """Something about a model that people or programs act on.

    Attributes:
        kind: What happened.
        model_name: To which model.
        detail: The same in one sentence.
        by: A person or a component.
        time_ms: Since the epoch.
        model_version: To which version; None: to the model as a whole.
        arm: To which arm of an experiment.
        experiment: Of which experiment.
        severity: How much it asks for a person.
        values: The figures behind it.
    """

    kind: EventKind
    model_name: str
    detail: str
    by: str
    time_ms: int
    model_version: str | None = None
    arm: str | None = None
    experiment: str | None = None
    severity: Severity = Severity.INFO
    values: Mapping[str, float] = field(default_factory=dict)

    @property
    def key(self) -> bytes:
        """Key of its record: the model's name, so that its events keep their order."""
        return self.model_name.encode()

    def to_record(self) -> dict[str, Any]:
        """The `ModelEvent` record."""
        return {
            "time": self.time_ms,
            "kind": self.kind.value,
            "severity": self.severity.value,
            "model_name": self.model_name,
            "model_version": self.model_version,
            "arm": self.arm,
            "experiment": self.experiment,
            "detail": self.detail,
            "values": {name: float(value) for name, value in self.values.items()},
            "by": self.by,
        }

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> "ModelEvent":
        """Read a `ModelEvent` record.

        Raises:
            ContractError: MALFORMED: a kind that this release does not know.
        """
        try:
            kind = EventKind(record["kind"])
        except ValueError as error:
            raise ContractError(Reason.MALFORMED, f"no kind of event: {error}") from error
        return ModelEvent(
            kind=kind,
            model_name=record["model_name"],
            detail=record["detail"],
            by=record["by"],
            time_ms=epoch_ms(record["time"]),
            model_version=record["model_version"],
            arm=record["arm"],
            experiment=record["experiment"],
            severity=Severity(record["severity"]),
            values=dict(record["values"]),
        )
