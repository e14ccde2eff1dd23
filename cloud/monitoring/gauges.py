"""What the monitor shows to Prometheus."""

from collections.abc import Iterable

from cloud.monitoring.agreement import Agreement
from cloud.monitoring.joining import Quality
from cloud.monitoring.roster import ArmRef
from cloud.monitoring.state import MonitorState
from scoring.events import ModelEvent
from transport.metric_kinds import is_recording
from transport.metrics import (
    MONITOR_AGREEMENT,
    MONITOR_BROKEN,
    MONITOR_DRIFTING,
    MONITOR_EVENTS,
    MONITOR_KS,
    MONITOR_P_VALUE,
    MONITOR_PRECISION,
    MONITOR_PSI,
    MONITOR_RECALL,
)


def show(state: MonitorState, now_ms: int) -> None:
    """Set the gauges to what is known now; nothing where nobody reads them."""
    if not is_recording():
        return
    MONITOR_BROKEN.hold(state.taken.broken)
    _show_drift(state)
    for arm, quality in state.quality(now_ms).items():
        _show_quality(arm, quality)
    for trial in state.trials.running():
        for name, test in trial.tests.items():
            MONITOR_P_VALUE.set(
                test.p_value, model=trial.model, experiment=trial.experiment.id, arm=name
            )


def show_agreement(agreement: Agreement) -> None:
    """The same of how gateways and the cloud agree."""
    if not is_recording():
        return
    for source, counts in agreement.counts.items():
        for outcome, number in counts.items():
            MONITOR_AGREEMENT.hold(
                number,
                model=source.model,
                version=source.version,
                gateway=source.gateway_id,
                outcome=outcome.value,
            )


def count(events: Iterable[ModelEvent]) -> None:
    """Count events that were written."""
    for event in events:
        MONITOR_EVENTS.add(model=event.model_name, kind=event.kind.value)


def _show_drift(state: MonitorState) -> None:
    for gauge in (MONITOR_PSI, MONITOR_KS, MONITOR_DRIFTING):
        gauge.clear()
    for (model, version), distances in state.drift.latest.items():
        drifting = state.drift.open_signals((model, version))
        for signal, distance in distances.items():
            labels = {"model": model, "version": version, "signal": signal}
            MONITOR_PSI.set(distance.psi, **labels)
            MONITOR_KS.set(distance.ks, **labels)
            MONITOR_DRIFTING.set(float(signal in drifting), **labels)


def _show_quality(arm: ArmRef, quality: Quality) -> None:
    for gauge, value in (
        (MONITOR_PRECISION, quality.precision),
        (MONITOR_RECALL, quality.recall),
    ):
        if value is not None:
            gauge.set(value, model=arm.model, version=arm.version, arm=arm.arm)
