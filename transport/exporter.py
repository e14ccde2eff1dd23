"""Metrics over HTTP, for Prometheus to scrape; the only module that imports prometheus-client."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from schemas.errors import SettingsError
from transport.metric_kinds import Counter, Histogram, Metric, fill_all, record
from transport.metrics import declared


@contextmanager
def exported(host: str, port: int) -> Iterator[int]:
    """Record, and answer `http://host:port/metrics`, until the block ends.

    Args:
        host: Address to listen on.
        port: 0: any free one.

    Yields:
        The port.

    Raises:
        SettingsError: The address cannot be had.
    """
    registry = CollectorRegistry()
    registry.register(_Declared())
    ProcessCollector(registry=registry)
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise SettingsError(f"metrics: cannot listen on {host}:{port}: {error}") from error
    record()
    try:
        yield server.server_port
    finally:
        record(False)
        server.shutdown()
        server.server_close()
        thread.join()


class _Declared(Collector):
    """What prometheus-client asks at each scrape."""

    def describe(self) -> Iterable[Family]:
        """Nothing, so that registering asks for no values."""
        return ()

    def collect(self) -> Iterator[Family]:
        """Every declared metric, with the values that it has."""
        fill_all()
        for metric in declared():
            if metric.series():
                yield _family(metric)


def _family(metric: Metric[Any]) -> Family:
    if isinstance(metric, Histogram):
        return _histogram(metric)
    kind = CounterMetricFamily if isinstance(metric, Counter) else GaugeMetricFamily
    family = kind(metric.name, metric.doc, labels=metric.labels)
    for values, value in metric.series():
        family.add_metric(values, value)
    return family


def _histogram(metric: Histogram) -> Family:
    """Prometheus counts upwards: each bucket holds those below it as well."""
    family = HistogramMetricFamily(metric.name, metric.doc, labels=metric.labels)
    edges = [*map(str, metric.edges.tolist()), "+Inf"]
    for values, bins in metric.series():
        buckets = list(zip(edges, np.cumsum(bins.counts).tolist(), strict=True))
        family.add_metric(values, buckets, bins.total)
    return family
