"""One trace from the vehicle to the score and the model server that gave it.

Kafka is away meanwhile, and the gateway is killed.
"""

import json
import signal
import time
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mosquitto_broker import free_port
from prometheus_client.parser import text_string_to_metric_families

from deploy.stack import Stack
from motorcade.demo_children import Child, Crew, settings_text
from scoring.bundle import Bundle
from simulator.ledger import Ledger
from transport.kafka import ensure_topics, register_schemas
from transport.releases import publish_release
from transport.settings import KafkaSettings

SMALL = Path(__file__).resolve().parents[1] / "scoring" / "data" / "small.motorcade"
PATIENCE_S = 120.0
CHAIN = (
    ("motorcade-simulate", "vehicle publish"),
    ("motorcade-gateway", "gateway store"),
    ("motorcade-gateway", "gateway forward"),
    ("motorcade-score", "scorer consume"),
    ("motorcade-score", "scorer produce"),
)
BESIDE = {
    "gateway score": "gateway store",
    "scorer score": "scorer consume",
    "scorer ask": "scorer score",
    "grpc infer": "scorer ask",
}
"""What else is there, and below what; a poll asks the server once, for all that it holds."""

Span = dict[str, Any]
Samples = dict[str, float]

pytestmark = pytest.mark.integration


def wait_until(what: str, condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"not in {PATIENCE_S:.0f} s: {what}"
        time.sleep(0.1)


def spans(path: Path) -> list[Span]:
    """All spans that any process has written so far, whole lines only."""
    if not path.exists():
        return []
    return [
        json.loads(line)
        for line in path.read_text("utf-8").splitlines(keepends=True)
        if line.endswith("\n")
    ]


def chains(found: list[Span]) -> dict[str, list[Span]]:
    """By trace, the spans from a transaction that was committed up to the root."""
    by_id = {span["context"]["span_id"]: span for span in found}
    traces = {}
    for span in found:
        if span["name"] == CHAIN[-1][1] and span["status"]["status_code"] != "ERROR":
            chain = [span]
            while chain[0]["parent_id"] is not None:
                chain.insert(0, by_id[chain[0]["parent_id"]])
            traces[span["context"]["trace_id"]] = chain
    return traces


def described(chain: list[Span]) -> tuple[tuple[str, str], ...]:
    return tuple((s["resource"]["attributes"]["service.name"], s["name"]) for s in chain)


def scraped(port: int) -> Samples:
    """Samples by name, added up over their labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    totals: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            totals[sample.name] = totals.get(sample.name, 0.0) + sample.value
    return totals


def said(child: Child, key: str) -> bool:
    return any(line.get(key) for line in child.progress())


def settings_file(stack: Stack, directory: Path, grpc_port: int) -> Path:
    ends = stack.endpoints
    sections: dict[str, dict[str, object]] = {
        "kafka": {"bootstrap_servers": ends.kafka_bootstrap, "registry_url": ends.registry_url},
        "mqtt": {"host": ends.mqtt_host, "port": ends.mqtt_port, "backoff_max_s": 1.0},
        "gateway": {
            "spool_path": directory / "gateway" / "spool",
            "models_path": directory / "gateway" / "models",
            "control_path": directory / "gateway" / "c",
        },
        "scorer": {
            "model": f"rpc://127.0.0.1:{grpc_port}/anomaly",
            "backoff_max_s": 1.0,
            "session_timeout_s": 6.0,
        },
        "server": {"port": 0, "grpc_port": grpc_port},
        "simulator": {
            "vehicles": 3,
            "rate_hz": 5.0,
            "duration_s": 2.0,
            "ledger": directory / "ledger.json",
        },
        "tracing": {"exporter": "file", "file": directory / "traces.jsonl", "sample_share": 1.0},
    }
    path = directory / "motorcade.toml"
    path.write_text(settings_text(sections), "utf-8")
    return path


def test_a_trace_survives_a_kafka_that_is_away_and_a_gateway_that_is_killed(
    fresh_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    stack = fresh_stack()
    kafka = KafkaSettings(stack.endpoints.kafka_bootstrap, stack.endpoints.registry_url)
    ensure_topics(kafka)
    register_schemas(kafka)
    small = Bundle.load(SMALL)
    publish_release(kafka, Bundle(replace(small.manifest, name="anomaly"), small.model))
    settings = settings_file(stack, tmp_path, free_port())
    ports = {"gateway": free_port(), "scorer": free_port(), "server": free_port()}

    def start(name: str, *arguments: str) -> Child:
        return crew.start(name, ["--config", str(settings), *arguments])

    with Crew(tmp_path) as crew:
        start("server", "serve", "--metrics-port", str(ports["server"]))
        gateway = start(
            "gateway", "gateway", "run", "--progress", "--metrics-port", str(ports["gateway"])
        )
        scorer = start("scorer", "score", "--progress", "--metrics-port", str(ports["scorer"]))
        wait_until("the gateway forwards", lambda: said_uplink(gateway))
        wait_until("the scorer has a model", lambda: said(scorer, "model_version"))
        stack.kill_part("kafka")
        simulator = start("simulator", "simulate")
        assert simulator.wait(PATIENCE_S), simulator.tail()
        assert simulator.status == 0, simulator.tail()
        stored = scraped(ports["gateway"])
        gateway.signal(signal.SIGKILL)
        gateway.wait(PATIENCE_S)
        crew.restart("gateway")
        stack.start_part("kafka")
        batches = len(published(spans(tmp_path / "traces.jsonl")))
        wait_until(
            f"{batches} traces reach the scores",
            lambda: len(chains(spans(tmp_path / "traces.jsonl"))) == batches or broken(crew),
        )
        wait_until(
            "the counters follow",
            lambda: "motorcade_score_readings_total" in scraped(ports["scorer"]),
        )
        gateway_counts, scorer_counts = scraped(ports["gateway"]), scraped(ports["scorer"])
        server_counts = scraped(ports["server"])
        crew.stop()
    assert_chained(spans(tmp_path / "traces.jsonl"))
    measured = Ledger.load(tmp_path / "ledger.json").measured
    assert batches == measured > 0
    assert stored["motorcade_gateway_stored_total"] == measured
    assert stored["motorcade_gateway_spool_rows"] >= measured
    assert stored["motorcade_gateway_oldest_unsent_seconds"] > 0
    assert gateway_counts["motorcade_gateway_forwarded_total"] >= measured
    assert gateway_counts["motorcade_gateway_connected"] == 2
    assert scorer_counts["motorcade_score_readings_total"] == measured
    assert scorer_counts["motorcade_score_age_seconds_count"] == measured
    assert scorer_counts["motorcade_score_queue_seconds_count"] == measured
    assert scorer_counts["motorcade_score_model_info"] == 1
    assert scorer_counts["motorcade_remote_requests_total"] > 0
    assert server_counts["motorcade_score_readings_total"] >= measured
    assert server_counts["motorcade_server_request_seconds_count"] > 0


def said_uplink(gateway: Child) -> bool:
    return any(
        line["uplink"] == "connected" and line["model_version"] for line in gateway.progress()
    )


def broken(crew: Crew) -> bool:
    """Nobody but the simulator may have ended."""
    ended = [c for name, c in crew.children.items() if name != "simulator" and not c.running]
    assert not ended, [child.tail() for child in ended]
    return False


def published(found: list[Span]) -> list[Span]:
    return [span for span in found if span["name"] == CHAIN[0][1]]


def assert_chained(found: list[Span]) -> None:
    by_id = {span["context"]["span_id"]: span for span in found}
    for chain in chains(found).values():
        assert described(chain) == CHAIN
        # The vehicle's own begin is finer than the millisecond of the receipt, so it is left out.
        begins = [span["start_time"] for span in chain[1:]]
        assert begins == sorted(begins)
        vehicles = {s["attributes"]["vehicle_id"] for s in chain if "vehicle_id" in s["attributes"]}
        assert len(vehicles) == 1
    # Requests that try the model out before it is used belong to no reading.
    beside = [span for span in found if span["name"] in BESIDE and span["parent_id"] is not None]
    for span in beside:
        assert by_id[span["parent_id"]]["name"] == BESIDE[span["name"]]
    assert {span["name"] for span in beside} == BESIDE.keys()
