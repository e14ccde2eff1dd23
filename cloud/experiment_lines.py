"""How experiments read for people. Pure."""

from collections.abc import Callable, Iterator

from cloud.experiment_desk import described
from cloud.experiment_status import ExperimentStatus
from cloud.model_lines import created
from cloud.monitoring.report import ArmReport
from scoring.traffic import Traffic

_COLUMNS: tuple[tuple[str, Callable[[ArmReport], str]], ...] = (
    ("ARM", lambda arm: arm.arm),
    ("VERSION", lambda arm: arm.version or "-"),
    ("WEIGHT", lambda arm: "-" if arm.weight is None else f"{100 * arm.weight:g}%"),
    ("VEHICLES", lambda arm: str(arm.vehicles)),
    ("READINGS", lambda arm: str(arm.readings)),
    ("ALERTS", lambda arm: str(arm.alerts_opened)),
    ("HELD", lambda arm: str(arm.alerts_held)),
    ("PER VEH-H", lambda arm: _number(arm.alerts_per_vehicle_hour)),
    ("SCORE P50", lambda arm: _number(arm.score_p50)),
    ("P99", lambda arm: _number(arm.score_p99)),
    ("POLL P99", lambda arm: _number(arm.compute_p99_ms, " ms")),
    ("PRECISION", lambda arm: _number(arm.precision)),
    ("RECALL", lambda arm: _number(arm.recall)),
    ("P VALUE", lambda arm: _number(arm.p_value)),
    ("DECIDED", lambda arm: arm.decided or "-"),
)


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
    """Everything about an experiment: its rules, a line an arm, and what was told."""
    report = status.report
    experiment = report.experiment
    promotes = "promotes the winner by itself" if experiment.auto_promote else "promotes nobody"
    yield (
        f"experiment {experiment.id} of {report.model}, {experiment.mode.value.lower()}, since "
        f"{created(experiment.started_time_ms)}; alpha {experiment.alpha:g}, {promotes}"
    )
    yield "guards " + ", ".join(f"{k}={v:g}" for k, v in experiment.guards.to_map().items())
    rows = [tuple(title for title, _ in _COLUMNS), *map(_cells, report.arms)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()
    for event in status.events:
        yield f"{created(event.time_ms)}  {event.kind.value}  {event.detail}  ({event.by})"


def _cells(arm: ArmReport) -> tuple[str, ...]:
    return tuple(cell(arm) for _, cell in _COLUMNS)


def _number(value: float | None, unit: str = "") -> str:
    return "-" if value is None else f"{value:.3g}{unit}"
