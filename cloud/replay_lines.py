"""What a replay found, in lines for people. Pure."""

from collections.abc import Callable, Iterator

from cloud.model_lines import created
from cloud.replay_report import Alarm, ReplayReport, Side

ALARMS_LISTED = 10
_LABEL_WIDTH = 26


def replay_lines(report: ReplayReport) -> Iterator[str]:
    """A table of both models, then the alerts that would come and go."""
    hours = report.hours
    yield (
        f"{report.model}: {report.old.readings} readings of {hours.vehicles} vehicles in "
        f"{hours.messages} messages, {hours.vehicle_hours:.1f} vehicle-hours"
    )
    if hours.rejected:
        yield f"{hours.rejected} messages could not be read"
    yield _row("", lambda side: side.version, report)
    yield _row("threshold", lambda side: f"{side.threshold:g}", report)
    yield _row("readings without a score", lambda side: str(side.unscored), report)
    yield _row("scores above threshold", lambda side: str(side.exceeding), report)
    for name in report.old.quantiles:
        ratios = (f"{side.quantiles.get(name, 0):.3f}" for side in (report.old, report.new))
        yield _cells(f"score/threshold {name}", *ratios)
    yield _row("alerts", lambda side: str(side.opened), report)
    yield _row("alerts a vehicle-hour", lambda side: _rate(report.rate(side)), report)
    if report.events:
        yield from _verdicts(report)
    found = report.overlap
    yield (
        f"alerts: {len(found.common)} common, {len(found.only_old)} would go, "
        f"{len(found.only_new)} would come"
    )
    yield from _listed("-", found.only_old)
    yield from _listed("+", found.only_new)


def _verdicts(report: ReplayReport) -> Iterator[str]:
    old, new = report.old_verdict, report.new_verdict
    for text, pair in (
        (f"of {report.events} events found", (old.found, new.found)),
        ("events missed", (old.missed, new.missed)),
        ("alerts without an event", (old.false_alerts, new.false_alerts)),
    ):
        yield _cells(text, *map(str, pair))


def _row(text: str, cell: Callable[[Side], str], report: ReplayReport) -> str:
    return _cells(text, cell(report.old), cell(report.new))


def _cells(text: str, old: str, new: str) -> str:
    return f"{text:<{_LABEL_WIDTH}} {old:>20} {new:>20}"


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.4f}"


def _listed(sign: str, alarms: tuple[Alarm, ...]) -> Iterator[str]:
    for alarm in alarms[:ALARMS_LISTED]:
        yield f"{sign} {created(alarm.opened_ms)}  {alarm.vehicle_id}  {alarm.signal}"
    if len(alarms) > ALARMS_LISTED:
        yield f"{sign} and {len(alarms) - ALARMS_LISTED} more"
