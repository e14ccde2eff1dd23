"""The reference of metrics, from their declarations."""

from itertools import groupby

from transport.metric_kinds import Histogram, Metric
from transport.metrics import declared

_HEADER = """# Metrics

Made by `python -m motorcade.docs write` from the code; do not edit.

What `/metrics` serves where `metrics.port` is set ([observability](observability.md)), and beside
it the process's own CPU, memory and open files (`process_…`). A metric shows once it has a value.
Units stand at the end of the names. `model`, `version` and `arm` are those of the release and of
the traffic; `deployment` is embedded, rpc, kafka, or edge.
"""

_PARTS = {
    "score": "Whatever scores: the scorer, the model server, a gateway",
    "dead": "Whatever refuses",
    "scorer": "`motorcade score`",
    "remote": "Whatever asks a model server",
    "server": "`motorcade serve`",
    "gateway": "`motorcade gateway run`",
    "monitor": "`motorcade monitor`",
}


def metrics_page() -> str:
    """docs/metrics.md."""
    tables = [_table(part, list(metrics)) for part, metrics in groupby(declared(), _part)]
    return "\n".join([_HEADER, *tables])


def _part(metric: "Metric[object]") -> str:
    return metric.name.split("_")[1]


def _table(part: str, metrics: "list[Metric[object]]") -> str:
    head = "| metric | type | labels | meaning |\n| --- | --- | --- | --- |"
    rows = "\n".join(map(_row, metrics))
    return f"## {_PARTS[part]}\n\n{head}\n{rows}\n"


def _row(metric: "Metric[object]") -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.doc}{_edges(metric)} |"


def _edges(metric: "Metric[object]") -> str:
    if not isinstance(metric, Histogram):
        return ""
    return f" Up to {', '.join(f'{edge:,g}' for edge in metric.edges.tolist())}."
