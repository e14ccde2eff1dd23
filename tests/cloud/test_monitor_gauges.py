"""What the monitor knows, as metrics."""

from collections.abc import Iterator

import numpy as np
import pytest
from monitor_parts import NAME, NOW_MS, catalog_of, fleet_rows, record, referenced, window

from cloud.monitoring import gauges
from cloud.monitoring.drift import SCORE
from cloud.monitoring.settings import MonitorSettings
from cloud.monitoring.state import MonitorState
from transport import metrics
from transport.metric_kinds import record as begin_to_record

SETTINGS = MonitorSettings(drift_window_s=60, drift_open_windows=1)
SIGNAL = "coolant_temperature"


@pytest.fixture
def recording() -> Iterator[None]:
    begin_to_record()
    yield
    begin_to_record(False)
    for metric in metrics.declared():
        metric.clear()


def test_distances_and_drift_show_for_each_signal_of_the_last_window(recording: None) -> None:
    bundle = referenced("1")
    state = MonitorState(SETTINGS, since_ms=NOW_MS)
    state.take_catalog(catalog_of(bundle))
    rows = fleet_rows(np.random.default_rng(1), 100, 30, {SIGNAL: 5.0})
    sound = record(window(bundle, rows, end_ms=NOW_MS + 1_000, vehicles=100))
    state.take_stats([sound, sound | {"readings": -1}])
    events = [event for each in state.decide(NOW_MS + 130_000) for event in each.events]
    gauges.count(events)
    gauges.show(state, NOW_MS + 130_000)
    distances = state.drift.latest[NAME, "1"]
    assert {SIGNAL, SCORE} < distances.keys()
    assert dict(metrics.MONITOR_PSI.series()) == {
        (NAME, "1", signal): distance.psi for signal, distance in distances.items()
    }
    assert dict(metrics.MONITOR_KS.series()) == {
        (NAME, "1", signal): distance.ks for signal, distance in distances.items()
    }
    assert ((NAME, "1", SIGNAL), 1.0) in metrics.MONITOR_DRIFTING.series()
    assert sum(count for _, count in metrics.MONITOR_EVENTS.series()) == len(events) > 0
    assert dict(metrics.MONITOR_BROKEN.series()) == {(): 1}
