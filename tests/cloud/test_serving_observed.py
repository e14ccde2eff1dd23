"""What the model server tells of itself: counts by door, times, and where in a trace it stands."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from door_ground import NAME, Ground
from door_ground import running as running_door
from mosquitto_broker import free_port
from serving_models import catalog_of, release, rows
from serving_server import RunningServer, body_of, running

from cloud.remote.asking import OURS, Ask
from cloud.remote.breaker import Breaker
from cloud.remote.grpc_v2 import GrpcV2Asker
from cloud.remote.hold import GivenUpError, StopHold
from cloud.remote.patience import PatientAsker
from cloud.remote.rest_v2 import RestV2Asker
from deploy.stack import Stack
from transport import metrics, otel, tracing
from transport.kafka import KafkaSettings
from transport.kafka_models import KafkaModelClient, ModelClientSettings
from transport.metric_kinds import Counter, Histogram, record
from transport.settings import TracingSettings

TRACE = "0af7651916cd43dd8448eb211c80319c"
OPEN = 1
ABOVE = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.fixture
def recording() -> Iterator[None]:
    record()
    yield
    record(False)
    for metric in metrics.declared():
        metric.clear()


@pytest.fixture
def traces(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "traces.jsonl"
    settings = TracingSettings(exporter="file", file=path, sample_share=0.0)
    with otel.exported(settings, "tests"):
        yield path


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running(catalog_of(release("1"))) as server:
        yield server


@pytest.fixture
def ground(stack: Stack) -> Ground:
    ends = stack.endpoints
    return Ground.new(KafkaSettings(ends.kafka_bootstrap, ends.registry_url))


def counts(counter: Counter) -> dict[tuple[str, ...], float]:
    return dict(counter.series())


def observed(histogram: Histogram) -> dict[tuple[str, ...], int]:
    return {labels: int(bins.counts.sum()) for labels, bins in histogram.series()}


def spans(path: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert {span["context"]["trace_id"] for span in found} == {f"0x{TRACE}"}
    return found


def parent_names(found: list[dict[str, Any]], name: str) -> list[str]:
    names = {span["context"]["span_id"]: span["name"] for span in found}
    return [names.get(span["parent_id"], "") for span in found if span["name"] == name]


def test_answers_and_refusals_are_counted_by_door(server: RunningServer, recording: None) -> None:
    assert server.infer(body_of(rows(7))).status == 200
    assert server.infer(body_of(rows(7)), path="/v2/models/other/infer").status == 404
    labels = ("anomaly", "1", "champion", "rpc")
    assert counts(metrics.SERVER_REQUESTS) == {("rest", "200"): 1, ("rest", "404"): 1}
    assert counts(metrics.SCORE_READINGS) == {labels: 7}
    assert counts(metrics.SCORE_MESSAGES) == {labels: 1}
    assert counts(metrics.SCORE_ERRORS) == {("rpc", "unknown-model"): 1}
    assert observed(metrics.SERVER_SECONDS) == {("rest",): 2}
    assert observed(metrics.SERVER_BATCH_ROWS) == {("rpc",): 1}
    assert observed(metrics.SCORE_QUEUE) == observed(metrics.SCORE_COMPUTE) == {labels: 1}


@pytest.mark.parametrize("door", ["grpc", "rest"])
def test_a_server_goes_on_from_the_span_of_who_asks(
    server: RunningServer, recording: None, traces: Path, door: str
) -> None:
    asker = (
        GrpcV2Asker(f"127.0.0.1:{server.grpc_port}", timeout_s=60.0)
        if door == "grpc"
        else RestV2Asker(f"http://127.0.0.1:{server.port}", timeout_s=60.0)
    )
    patient = PatientAsker(asker, StopHold(threading.Event()))
    patient.start()
    with tracing.span("scorer score", ABOVE):
        patient.ask_all([Ask("anomaly", "", OURS.input, rows(5))], lambda _ask, _answer: None)
    patient.close()
    found = spans(traces)
    assert parent_names(found, "scorer ask") == ["scorer score"]
    assert parent_names(found, f"{door} infer") == ["scorer ask"]
    assert counts(metrics.REMOTE_REQUESTS) == {(asker.address, "ok"): 1}
    assert observed(metrics.REMOTE_SECONDS) == {(asker.address,): 1}
    assert dict(metrics.REMOTE_BREAKER.series()) == {(asker.address,): 0}
    status = "0" if door == "grpc" else "200"
    assert counts(metrics.SERVER_REQUESTS) == {(door, status): 1}


def test_a_server_that_is_away_shows_in_the_breaker(recording: None) -> None:
    class UntilOpen:
        """Waits until the breaker has opened."""

        def pump(self, wait_s: float, why: str) -> None:
            if dict(metrics.REMOTE_BREAKER.series()).get((asker.address,)) == OPEN:
                raise GivenUpError(why)
            threading.Event().wait(wait_s)

        def over(self) -> None:
            """Nothing was begun."""

    asker = GrpcV2Asker(f"127.0.0.1:{free_port()}", timeout_s=60.0)
    patient = PatientAsker(asker, UntilOpen())
    patient.start()
    with pytest.raises(GivenUpError):
        patient.ask_all([Ask("anomaly", "", OURS.input, rows(5))], lambda _ask, _answer: None)
    patient.close()
    failed = counts(metrics.REMOTE_REQUESTS)[asker.address, "failed"]
    assert failed == Breaker().failures_max
    assert counts(metrics.REMOTE_RETRIES) == {(asker.address,): failed}
    assert not observed(metrics.REMOTE_SECONDS)


@pytest.mark.integration
def test_the_kafka_door_counts_and_follows(ground: Ground, recording: None, traces: Path) -> None:
    with (
        running_door(ground),
        KafkaModelClient(ground.kafka, ModelClientSettings(ground.reply_topics)) as client,
        tracing.span("asking", ABOVE),
    ):
        client.score(rows(9), model=NAME, deadline_s=60.0)
    assert set(parent_names(spans(traces), "kafka answer")) == {"asking"}
    assert counts(metrics.SERVER_REQUESTS)["kafka", "ok"] >= 1
    labels = (NAME, "1", "champion", "kafka")
    assert counts(metrics.SCORE_READINGS)[labels] >= 9
