"""The figures of `motorcade bench deployments` for people: a table, and a chart."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from schemas.errors import SettingsError

ROWS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("records/s, exactly once", ("records_per_s",)),
    ("records/s, at least once", ("at_least_once_records_per_s",)),
    ("cost of exactly-once, share", ("eos_cost",)),
    ("latency p50, ms", ("latency_ms", "p50")),
    ("latency p99, ms", ("latency_ms", "p99")),
    ("latency p99.9, ms", ("latency_ms", "p999")),
    ("memory, MB", ("memory_mb",)),
    ("server killed: lost", ("outage", "lost")),
    ("server killed: repeated", ("outage", "repeated")),
    ("server killed: longest delay, s", ("outage", "delayed_s")),
    ("new version: lost", ("swap", "lost")),
    ("new version: repeated", ("swap", "repeated")),
    ("new version: p99, ms", ("swap", "p99_ms")),
)
"""What the table shows, and where it stands in a deployment's figures."""

_COLOURS = {"embedded": "#2a6f97", "rpc": "#e09f3e", "kafka": "#5a8f5a"}


def value_at(figures: Mapping[str, Any], path: tuple[str, ...]) -> float:
    """A figure by its path."""
    found: Any = figures
    for key in path:
        found = found[key]
    return float(found)


def table(result: Mapping[str, Any]) -> str:
    """A Markdown table: a row a figure, a column a deployment."""
    deployments = result["deployments"]
    lines = [f"| | {' | '.join(deployments)} |", "| --- |" + " ---: |" * len(deployments)]
    for title, path in ROWS:
        cells = [f"{value_at(figures, path):,.6g}" for figures in deployments.values()]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Write the chart as SVG or PNG, by the ending of the path.

    Raises:
        SettingsError: matplotlib is not installed, or knows no such ending.
        OSError: The file cannot be written.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SettingsError("drawing needs matplotlib: install motorcade[bench]") from error
    deployments = result["deployments"]
    with mpl.rc_context({"svg.hashsalt": "motorcade", "font.size": 9}):
        figure = Figure(figsize=(10, 6), layout="constrained")
        axes = figure.subplots(2, 2).flat
        _throughput(next(axes), deployments)
        _latency(next(axes), deployments)
        _bars(next(axes), deployments, ("outage", "delayed_s"), "longest delay, server killed (s)")
        _bars(next(axes), deployments, ("memory_mb",), "resident memory (MB)")
        try:
            # Without a date the same figures give the same file.
            metadata = {"Date": None} if path.suffix == ".svg" else None
            figure.savefig(path, metadata=metadata)
        except ValueError as error:
            raise SettingsError(f"chart {path}: {error}; it may end in .svg or .png") from error


def _throughput(axes: Any, deployments: Mapping[str, Any]) -> None:
    names = list(deployments)
    for shift, key, label in (
        (-0.2, "records_per_s", "exactly once"),
        (0.2, "at_least_once_records_per_s", "at least once"),
    ):
        values = [deployments[name][key] for name in names]
        places = [i + shift for i in range(len(names))]
        alpha = 1.0 if shift < 0 else 0.5
        colours = [_COLOURS[name] for name in names]
        axes.bar_label(
            axes.bar(places, values, 0.38, color=colours, alpha=alpha, label=label),
            fmt="{:,.0f}",
            fontsize=7,
        )
    axes.set_xticks(range(len(names)), names)
    axes.set_title("records/s: exactly once, and at least once (pale)")


def _latency(axes: Any, deployments: Mapping[str, Any]) -> None:
    quantiles = ("p50", "p99", "p999")
    width = 0.8 / len(deployments)
    for number, (name, figures) in enumerate(deployments.items()):
        places = [i + (number - (len(deployments) - 1) / 2) * width for i in range(len(quantiles))]
        values = [figures["latency_ms"][q] for q in quantiles]
        bars = axes.bar(places, values, width, color=_COLOURS[name], label=name)
        axes.bar_label(bars, fmt="{:,.0f}", fontsize=7)
    axes.set_xticks(range(len(quantiles)), ["p50", "p99", "p99.9"])
    axes.set_title("reading to committed score (ms)")
    axes.legend(frameon=False)


def _bars(axes: Any, deployments: Mapping[str, Any], path: tuple[str, ...], title: str) -> None:
    names = list(deployments)
    values = [value_at(deployments[name], path) for name in names]
    bars = axes.bar(names, values, 0.6, color=[_COLOURS[name] for name in names])
    axes.bar_label(bars, fmt="{:,.1f}", fontsize=7)
    axes.set_title(title)
