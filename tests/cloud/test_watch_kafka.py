import json
import threading

import pytest
from cloud_kafka import now_ms, publish_records
from sample_alert import alert

from cloud.event_lines import event_json, event_line
from cloud.watch import AlertFilter, EventFilter, watch_alerts, watch_events
from deploy.stack import Stack
from schemas.errors import ContractError, Reason
from schemas.topics import ALERTS
from scoring.events import EventKind, ModelEvent
from transport.events import publish_events
from transport.kafka import KafkaSettings, Outgoing, ensure_topics, publish

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def kafka(stack: Stack) -> KafkaSettings:
    settings = KafkaSettings(
        bootstrap_servers=stack.endpoints.kafka_bootstrap,
        registry_url=stack.endpoints.registry_url,
    )
    ensure_topics(settings)
    return settings


def test_alerts_of_a_vehicle_since_a_time(kafka: KafkaSettings) -> None:
    publish_records(kafka, ALERTS, [alert(vehicle_id="watch-1", alert_id="before")])
    since_ms = now_ms() + 1
    while now_ms() <= since_ms:
        pass
    records = [
        alert(vehicle_id="watch-1", alert_id="1"),
        alert(vehicle_id="watch-2", alert_id="2"),
        alert(vehicle_id="watch-1", alert_id="1", state="CLOSED"),
    ]
    publish_records(kafka, ALERTS, records)
    wanted = AlertFilter("watch-1", since_ms, follow=False)
    found = [(a["alert_id"], a["state"]) for a in watch_alerts(wanted, kafka)]
    assert found == [("1", "OPEN"), ("1", "CLOSED")]
    everyone = AlertFilter(None, since_ms, follow=False)
    assert len(list(watch_alerts(everyone, kafka))) == 3


def test_following_goes_on_with_what_comes_and_stops(kafka: KafkaSettings) -> None:
    stop = threading.Event()
    since_ms = now_ms()
    publish_records(kafka, ALERTS, [alert(vehicle_id="watch-3", alert_id="1")])
    alerts = watch_alerts(AlertFilter("watch-3", since_ms), kafka, stop=stop)
    assert next(alerts)["alert_id"] == "1"
    publish_records(kafka, ALERTS, [alert(vehicle_id="watch-3", alert_id="2")])
    assert next(alerts)["alert_id"] == "2"
    stop.set()
    assert list(alerts) == []


def test_from_now_on_shows_nothing_older(kafka: KafkaSettings) -> None:
    publish_records(kafka, ALERTS, [alert(vehicle_id="watch-4")])
    assert list(watch_alerts(AlertFilter("watch-4", follow=False), kafka)) == []


def test_what_is_no_alert_is_told_and_passed_over(kafka: KafkaSettings) -> None:
    since_ms = now_ms()
    publish(kafka, [Outgoing(ALERTS.name, b"junk", b"watch-5")])
    publish_records(kafka, ALERTS, [alert(vehicle_id="watch-5")])
    broken: list[ContractError] = []
    wanted = AlertFilter("watch-5", since_ms, follow=False)
    assert len(list(watch_alerts(wanted, kafka, on_broken=broken.append))) == 1
    assert [error.reason for error in broken] == [Reason.NOT_AVRO]


def test_events_of_a_model_since_a_time(kafka: KafkaSettings) -> None:
    since_ms = now_ms()
    mine, other = f"watch-{since_ms}", f"other-{since_ms}"
    publish_events(
        kafka,
        [
            ModelEvent(EventKind.INPUT_DRIFT, name, "speed drifts", "monitor", since_ms)
            for name in (mine, other)
        ],
    )
    wanted = EventFilter(mine, since_ms, follow=False)
    [found] = watch_events(wanted, kafka)
    assert event_line(found).endswith(f" INFO     input-drift {mine}: speed drifts (monitor)")
    assert json.loads(event_json(found))["time"] == since_ms
    everything = [e["model_name"] for e in watch_events(EventFilter(None, since_ms, False), kafka)]
    assert {mine, other} <= set(everything)
