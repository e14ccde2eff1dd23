"""How experiments read for people. Pure."""

from collections.abc import Iterator

from cloud.experiment_desk import described
from cloud.experiment_status import ArmSum, ExperimentStatus
from cloud.model_lines import created
from scoring.traffic import Traffic

_HEADER = (
    "ARM",
    "VERSION",
    "WEIGHT",
    "VEHICLES",
    "READINGS",
    "ALERTS",
    "HELD",
    "ALERTS/VEH-H",
    "SCORE P50",
    "P99",
    "COMPUTE P99",
)
_UNCOUNTED = ("-",) * (len(_HEADER) - 3)


def listed(traffic: Traffic) -> str:
    """A line of `experiments list`."""
    experiment = traffic.experiment
    if experiment is None:
        return f"{traffic.name}  no experiment"
    return (
        f"{traffic.name}  {experiment.id}  since {created(experiment.started_time_ms)}  "
        f"{described(experiment)}"
    )


def status_lines(status: ExperimentStatus) -> Iterator[str]:
    """Everything about an experiment."""
    experiment = status.experiment
    promotes = "promoted by itself" if experiment.auto_promote else "promoted by people"
    yield (
        f"experiment {experiment.id} of {status.model}, {experiment.mode.value.lower()}, since "
        f"{created(experiment.started_time_ms)}; alpha {experiment.alpha:g}, {promotes}"
    )
    yield "guards " + ", ".join(f"{k}={v:g}" for k, v in experiment.guards.to_map().items())
    rows = [_HEADER, *(_row(status, arm.name) for arm in experiment.arms)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()
    for event in status.events:
        yield f"{created(event.time_ms)}  {event.kind.value}  {event.detail}  ({event.by})"


def _row(status: ExperimentStatus, name: str) -> tuple[str, ...]:
    arm = next(arm for arm in status.experiment.arms if arm.name == name)
    counted = status.sums.get(name)
    head = (arm.name, arm.version, f"{100 * arm.weight:g}%")
    return head + (_UNCOUNTED if counted is None else _counted(counted))


def _counted(counted: ArmSum) -> tuple[str, ...]:
    facts = counted.to_json()
    return (
        str(facts["vehicles"]),
        str(facts["readings"]),
        str(facts["alerts_opened"]),
        str(facts["alerts_held"]),
        _number(facts["alerts_per_vehicle_hour"]),
        _number(facts["score_over_threshold_p50"]),
        _number(facts["score_over_threshold_p99"]),
        _number(facts["compute_s_p99"], " s"),
    )


def _number(value: float | None, unit: str = "") -> str:
    return "-" if value is None else f"{value:.3g}{unit}"
