"""What the scorer tells of itself: counts and times as metrics, and the way of traced messages."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from scorer_fleet import Ground, Models, drive, small_bundle, wait_until

from cloud.poll_trace import NO_TRACE, TRACED_MAX, PollTrace
from cloud.scorer import ScorerParts, ScorerSettings, ScorerStats, run_with
from deploy.stack import Stack
from transport import metrics, otel, tracing
from transport.kafka import KafkaSettings, Message, Outgoing, read_to_end
from transport.metric_kinds import record
from transport.settings import TracingSettings

pytestmark = pytest.mark.integration

LABELS = ("small", "1", "champion", "embedded")


@pytest.fixture
def ground(stack: Stack) -> Ground:
    ends = stack.endpoints
    return Ground.new(KafkaSettings(ends.kafka_bootstrap, ends.registry_url))


@pytest.fixture
def recording() -> Iterator[None]:
    record()
    yield
    record(False)
    for metric in metrics.declared():
        metric.clear()


@contextmanager
def traces(path: Path) -> Iterator[None]:
    with otel.exported(TracingSettings(exporter="file", file=path, sample_share=0.0), "scorer"):
        yield


def scored(ground: Ground, messages: int) -> ScorerStats:
    """Score until so many messages are answered."""
    stop, told = threading.Event(), [ScorerStats()]
    settings = ScorerSettings(
        group_id=f"scorer-{ground.mark}",
        transactional_id=f"one-{ground.mark}",
        model="embedded:small",
        poll_messages=500,
        session_timeout_s=6.0,
        stats_interval_s=0.0,
        max_vehicles=1000,
    )
    parts = ScorerParts(ground.ids, Models(small_bundle()), ground.topics)
    thread = threading.Thread(
        target=run_with,
        args=(settings, ground.kafka, parts),
        kwargs={"stop": stop, "on_stats": told.append},
    )
    thread.start()
    try:
        wait_until(lambda: told[-1].messages >= messages, lambda: told[-1])
    finally:
        stop.set()
        thread.join()
    return told[-1]


def traceparent(number: int) -> str:
    return f"00-{number + 1:032x}-{number + 1:016x}-01"


def traced(records: list[Outgoing]) -> list[Outgoing]:
    """Each with a trace of its own, told by its number."""
    return [
        Outgoing(
            out.topic,
            out.value,
            out.key,
            out.partition,
            (("seq", b"1"), ("traceparent", traceparent(number).encode())),
            out.timestamp_ms,
        )
        for number, out in enumerate(records)
    ]


def spans(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def alert_headers(ground: Ground) -> list[dict[str, bytes]]:
    return [
        dict(message.headers() or [])  # type: ignore[arg-type]
        for messages in read_to_end(ground.kafka, ground.topics.alerts.name)
        for message in messages
    ]


def test_what_was_scored_is_counted_by_model_and_timed(ground: Ground, recording: None) -> None:
    records = drive(ground, vehicles=3, batches=80, readings=2)
    broken = Outgoing(ground.topics.telemetry.name, b"rubbish", b"car", 0)
    ground.write([*records, broken])
    stats = scored(ground, len(records) + 1)
    assert dict(metrics.SCORE_MESSAGES.series()) == {LABELS: len(records)}
    assert dict(metrics.SCORE_READINGS.series()) == {LABELS: 2 * len(records)}
    assert dict(metrics.SCORE_ALERTS.series()) == {
        (*LABELS, "opened"): stats.opened,
        (*LABELS, "closed"): stats.closed,
    }
    assert dict(metrics.DEAD_LETTERS.series()) == {("scorer", "not-avro"): 1}
    assert dict(metrics.SCORER_BATCHES.series()) == {(): stats.batches}
    [(model, value)] = metrics.SCORE_MODEL.series()
    assert (model[:4], value) == (("scorer", *LABELS[:3]), 1)
    for histogram, expected in (
        (metrics.SCORE_QUEUE, len(records)),
        (metrics.SCORE_AGE, len(records)),
        (metrics.SCORE_COMPUTE, stats.batches),
    ):
        [(labels, bins)] = histogram.series()
        assert (labels, bins.counts.sum()) == (LABELS, expected), histogram.name
    assert {partition for (_, partition), _ in metrics.SCORER_LAG.series()} == {"0", "1", "2"}


def test_traced_messages_are_followed_and_their_alerts_say_where_they_stand(
    ground: Ground, tmp_path: Path
) -> None:
    records = drive(ground, vehicles=3, batches=80)
    ground.write(traced(records))
    path = tmp_path / "traces.jsonl"
    with traces(path):
        stats = scored(ground, len(records))
    assert stats.opened == stats.closed == 1
    by_id = {span["context"]["span_id"]: span for span in spans(path)}
    consumed = [span for span in by_id.values() if span["name"] == "scorer consume"]
    assert {span["parent_id"] for span in consumed} <= {
        f"0x{number + 1:016x}" for number in range(len(records))
    }
    assert 0 < len(consumed) <= TRACED_MAX * stats.batches
    for name in ("scorer score", "scorer produce"):
        below = [by_id[s["parent_id"]]["name"] for s in by_id.values() if s["name"] == name]
        assert below == ["scorer consume"] * len(consumed)
    for headers in alert_headers(ground):
        if "traceparent" in headers:
            _, trace_id, span_id, _ = headers["traceparent"].decode().split("-")
            assert by_id[f"0x{span_id}"]["name"] == "scorer score"
            assert by_id[f"0x{span_id}"]["context"]["trace_id"] == f"0x{trace_id}"


def test_an_alert_carries_the_trace_of_the_message_that_decided(
    ground: Ground, tmp_path: Path
) -> None:
    records = drive(ground, vehicles=3, batches=80)
    ground.write(records)
    scored(ground, len(records))
    alerts = [record for _, _, record in ground.records(ground.topics.alerts) if record]
    deciding = {(alert["input_partition"], alert["input_offset"]) for alert in alerts}
    again = Ground.new(ground.kafka)
    repeated = drive(again, vehicles=3, batches=80)
    wanted = [
        number
        for number, out in enumerate(repeated)
        if (out.partition, sum(each.partition == out.partition for each in repeated[:number]))
        in deciding
    ]
    marked = traced(repeated)
    again.write([marked[i] if i in wanted else out for i, out in enumerate(repeated)])
    with traces(tmp_path / "traces.jsonl"):
        scored(again, len(repeated))
    told = [headers["traceparent"].decode().split("-")[1] for headers in alert_headers(again)]
    assert sorted(told) == sorted(traceparent(number).split("-")[1] for number in wanted)


def test_without_tracing_no_header_is_read() -> None:
    class Unread(Message):
        def headers(self) -> None:
            raise AssertionError("headers are dear")

    assert not tracing.is_on()
    assert PollTrace.of([Unread()]) is NO_TRACE
