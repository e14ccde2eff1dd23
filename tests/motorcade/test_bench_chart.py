"""The table and the chart of the deployments' figures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud.bench_live import Arrival, LiveResult, percentiles_ms
from motorcade.bench_chart import ROWS, draw, table
from schemas.errors import SettingsError


def figures(factor: float) -> dict[str, Any]:
    return {
        "records_per_s": round(100_000 * factor),
        "at_least_once_records_per_s": round(110_000 * factor),
        "eos_cost": 0.09,
        "latency_ms": {"p50": 20 * factor, "p99": 40 * factor, "p999": 80 * factor},
        "memory_mb": round(120 * factor),
        "memory_parts_mb": {"scorer": round(120 * factor)},
        "outage": {"lost": 0, "repeated": 0, "delayed_s": 12.5},
        "swap": {"lost": 0, "repeated": 0, "p99_ms": 41.0},
    }


RESULT = {
    "deployments": {"embedded": figures(1.0), "rpc": figures(0.5), "kafka": figures(0.25)},
    "plan": {"messages": 1, "rate": 1, "cores": 2, "outage_s": 10.0},
}


def test_the_table_has_every_figure_of_every_deployment() -> None:
    lines = table(RESULT).splitlines()
    assert lines[0] == "| | embedded | rpc | kafka |"
    assert len(lines) == 2 + len(ROWS)
    assert "| records/s, exactly once | 100,000 | 50,000 | 25,000 |" in lines
    assert "| new version: p99, ms | 41 | 41 | 41 |" in lines


def test_the_chart_is_drawn_the_same_each_time(tmp_path: Path) -> None:
    draw(RESULT, tmp_path / "one.svg")
    draw(RESULT, tmp_path / "two.svg")
    text = (tmp_path / "one.svg").read_text("utf-8")
    assert text.lstrip().startswith("<?xml")
    assert text == (tmp_path / "two.svg").read_text("utf-8")
    draw(RESULT, tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")


def test_an_ending_that_is_no_picture_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="\\.svg or \\.png"):
        draw(RESULT, tmp_path / "chart.nonsense")


def test_what_did_not_come_is_lost_and_what_is_slow_shows() -> None:
    arrivals = [Arrival(float(i), i + 0.010, "1") for i in range(99)]
    result = LiveResult(sent=101, arrivals=[*arrivals, Arrival(99.0, 100.0, "2")])
    assert result.lost == 1
    delays = result.delays_ms()
    assert percentiles_ms(delays)["p50"] == pytest.approx(10.0)
    assert percentiles_ms(delays)["p999"] > 900
    assert len(result.delays_ms(since_s=90.0, until_s=95.0)) == 5
    assert np.isnan(percentiles_ms(np.empty(0))["p99"])
