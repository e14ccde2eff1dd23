"""The benchmark of the Kafka door, in small: it accounts for every request by itself."""

import pytest
from serving_models import release

from cloud.bench_requests import RequestsBench, bench_requests
from deploy.stack import Stack
from transport.kafka import KafkaSettings

pytestmark = pytest.mark.integration


def test_it_measures_the_door_beside_a_bare_loop(stack: Stack) -> None:
    kafka = KafkaSettings(stack.endpoints.kafka_bootstrap, stack.endpoints.registry_url)
    how = RequestsBench(0.2, 1.0, rate=50, warm_up_s=0.1, deliveries=(False,))
    said: list[str] = []
    found = bench_requests(kafka, how, bundle=release("1"), on_progress=said.append)
    assert [row["loop"] for row in found] == ["bare", "door"]
    assert said == ["bare, at least once", "door, at least once"]
    for row in found:
        assert row["requests_per_s"] > 0 < row["cpu_us_per_request"]
        times = row["latency_ms"]
        assert 0 < times["p50"] <= times["p90"] <= times["p99"] <= times["p999"] <= times["max"]
