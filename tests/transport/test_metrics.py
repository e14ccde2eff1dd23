"""Metrics: what is recorded, what is bounded, and what Prometheus's own parser reads of it."""

import re
import socket
import urllib.request
from collections.abc import Iterator

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from schemas.errors import SettingsError
from transport import metric_kinds, metrics
from transport.exporter import exported
from transport.metric_kinds import Counter, Gauge, Histogram, at_scrape

LABELS = {"model": "anomaly", "version": "7", "arm": "champion", "deployment": "embedded"}


@pytest.fixture
def recording() -> Iterator[None]:
    metric_kinds.record()
    yield
    metric_kinds.record(False)
    for metric in metrics.declared():
        metric.clear()


def scrape(port: int) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Name and sorted labels of every sample, and its value."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_nothing_is_kept_until_somebody_exports() -> None:
    counter, gauge = Counter("c", "doc"), Gauge("g", "doc")
    histogram = Histogram("h", "doc", edges=[1.0])
    counter.add()
    counter.hold(3)
    gauge.set(1)
    histogram.observe([1.0])
    assert not counter.series()
    assert not gauge.series()
    assert not histogram.series()


def test_a_histogram_counts_arrays_and_binned_counts_alike(recording: None) -> None:
    values = np.array([0.5, 1.0, 1.5, 2.0, 99.0, np.nan, np.inf])
    by_values = Histogram("a", "doc", ["x"], edges=[1.0, 2.0])
    by_counts = Histogram("b", "doc", ["x"], edges=[1.0, 2.0])
    by_values.observe(values, x="1")
    by_values.observe(0.5, times=3, x="1")
    by_counts.add_binned(np.array([5, 2, 1]), 105.5, x="1")
    [(key, one)], [(_, other)] = by_values.series(), by_counts.series()
    assert key == ("1",)
    assert one.counts.tolist() == other.counts.tolist() == [5, 2, 1]
    assert one.total == other.total == 105.5


def test_what_was_handed_out_stays_as_it_was(recording: None) -> None:
    histogram = Histogram("h", "doc", edges=[1.0])
    histogram.observe(0.5)
    [(_, before)] = histogram.series()
    histogram.observe(0.5)
    assert before.counts.tolist() == [1, 0]


def test_wrong_labels_are_a_fault_of_the_program(recording: None) -> None:
    counter = Counter("c", "doc", ["x"])
    with pytest.raises(TypeError, match="labels"):
        counter.add()
    with pytest.raises(KeyError):
        counter.add(y="1")


def test_series_are_bounded_and_the_longest_unwritten_goes(
    recording: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metric_kinds, "SERIES_MAX", 2)
    counter = Counter("c", "doc", ["x"])
    for x in ("old", "kept", "old", "new"):
        counter.add(x=x)
    assert counter.series() == [(("old",), 2.0), (("new",), 1.0)]


def test_the_model_in_use_replaces_the_one_before_in_its_arm(recording: None) -> None:
    for version, arm in (("1", "champion"), ("2", "canary"), ("3", "champion")):
        metrics.model_in_use("scorer", model="m", version=version, arm=arm, sha256="s")
    assert sorted(key for key, _ in metrics.SCORE_MODEL.series()) == [
        ("scorer", "m", "2", "canary", "s"),
        ("scorer", "m", "3", "champion", "s"),
    ]


def test_prometheus_reads_what_was_recorded(recording: None) -> None:
    with exported("127.0.0.1", 0) as port:
        metrics.SCORE_READINGS.add(20, **LABELS)
        metrics.SCORE_QUEUE.observe([0.00015, 0.3, 99.0], times=1, **LABELS)
        metrics.SCORER_LAG.set(5, topic="t", partition="0")
        with at_scrape(lambda: metrics.GATEWAY_RECEIVED.hold(7)):
            found = scrape(port)
        metrics.GATEWAY_RECEIVED.clear()
        assert ("motorcade_gateway_received_total", ()) not in scrape(port)
    labels = tuple(sorted(LABELS.items()))
    assert found["motorcade_score_readings_total", labels] == 20
    assert found["motorcade_scorer_lag_messages", (("partition", "0"), ("topic", "t"))] == 5
    assert found["motorcade_gateway_received_total", ()] == 7
    buckets = {
        dict(key)["le"]: value
        for (name, key), value in found.items()
        if name == "motorcade_score_queue_seconds_bucket"
    }
    assert buckets["0.0001"] == 0
    assert buckets["0.0002"] == 1
    assert buckets["0.5"] == 2
    assert buckets["30.0"] == 2
    assert buckets["+Inf"] == 3
    assert found["motorcade_score_queue_seconds_count", labels] == 3
    assert found["motorcade_score_queue_seconds_sum", labels] == pytest.approx(99.30015)
    assert any(name == "process_resident_memory_bytes" for name, _ in found)


def test_the_exporter_stops_recording_and_gives_its_port_back() -> None:
    with exported("127.0.0.1", 0) as port:
        assert metric_kinds.is_recording()
    assert not metric_kinds.is_recording()
    with exported("127.0.0.1", port) as again:
        assert again == port


def test_a_port_that_is_taken_is_said(recording: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=str(port)), exported("127.0.0.1", port):
            pass


def test_every_metric_is_named_as_prometheus_wants_it() -> None:
    every = metrics.declared()
    assert len({metric.name for metric in every}) == len(every)
    for metric in every:
        assert re.fullmatch(r"motorcade_[a-z]+_[a-z_]+", metric.name), metric.name
        assert metric.name.endswith("_total") == isinstance(metric, Counter), metric.name
        assert metric.doc.endswith("."), metric.name
        if isinstance(metric, Histogram):
            assert (np.diff(metric.edges) > 0).all(), metric.name
