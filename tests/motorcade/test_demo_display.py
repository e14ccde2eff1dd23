"""What the demo shows, on a terminal and elsewhere."""

import io

from rich.console import Console

from motorcade.demo_display import STAGES, Display, Rate, Scene, panel, plain_line
from motorcade.demo_plan import Phase


def scene() -> Scene:
    made = Scene(90.0, phase=Phase.OUTAGE, elapsed_s=50.0, uplink="no connection")
    for at_s in range(10):
        for stage in STAGES:
            made.count(float(at_s), stage, 200 * at_s)
    made.edge_model = "v1"
    made.spool_depth = 1234
    return made


def test_a_rate_is_that_of_the_last_seconds() -> None:
    rate = Rate()
    assert rate.per_s == 0
    for at_s in range(20):
        rate.update(float(at_s), 100 * min(at_s, 10))
    assert rate.per_s == 0
    rate.update(20.0, 1100)
    assert rate.per_s == 20


def test_the_panel_shows_all_there_is_to_know() -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    made = scene()
    made.alerts.append("car-00001 coolant_temperature")
    console.print(panel(made))
    text = console.export_text()
    for word in (*STAGES, "Kafka is down", "no connection", "1,234", "v1", "car-00001", "200"):
        assert word in text


def test_without_a_terminal_there_are_lines_at_times_and_at_each_new_phase() -> None:
    out = io.StringIO()
    made, now_s = scene(), 0.0
    display = Display(Console(file=out, width=80), made, lambda: now_s)
    with display:
        display.update()
        now_s = 1.0
        display.update()
        made.phase = Phase.RECOVERED
        display.update()
        now_s = 7.0
        display.update()
        display.alert("[edge] an alert")
    lines = out.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[0] == plain_line(made).replace(Phase.RECOVERED, Phase.OUTAGE)
    assert lines[-1].strip() == "[edge] an alert"
