import io
import json
import threading
import uuid

import fastavro
import pytest
from cloud_kafka import now_ms, publish_records
from sample_alert import alert

from cloud.event_lines import event_json, event_line
from cloud.gateway_lines import changes, gateway_json, gateway_line, newest
from cloud.watch import (
    AlertFilter,
    EventFilter,
    GatewayFilter,
    watch_alerts,
    watch_events,
    watch_gateways,
)
from deploy.stack import Stack
from schemas.errors import ContractError, Reason
from schemas.records import Record, confluent_header, encode_confluent
from schemas.topics import ALERTS, CLOCKS, GATEWAY_STATUS
from schemas.versions import released_json
from scoring.events import EventKind, ModelEvent
from transport.events import publish_events
from transport.kafka import KafkaSettings, Outgoing, ensure_topics, publish, register_schemas

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


def heartbeat(gateway_id: str, **changes: object) -> Record:
    """A status as a gateway writes it; what is left out has its default."""
    return {
        "gateway_id": gateway_id,
        "time": now_ms(),
        "uptime_s": 1.0,
        "received": 0,
        "duplicates": 0,
        "dead_letters": 0,
        "forwarded": 0,
        "spool_depth": 0,
        "spool_bytes": 0,
        "uplink": "connected",
        "model_version": None,
        "vehicle_drops": 0,
        "spool_oldest_age_s": 0.0,
        "backlog_depth": 0,
        "drops": {},
        "disk_free_bytes": -1,
        "clock_synced": True,
        "rss_bytes": -1,
        "temperature_celsius": None,
        "model_name": None,
        "model_sha256": None,
        "scoring": "ok",
        "spool": "ok",
        "mqtt_connected": True,
        "model_rollback": None,
        **changes,
    }


def earlier_heartbeat(gateway_id: str) -> bytes:
    """The same by a gateway of the version before, in Kafka's frame."""
    schema = fastavro.parse_schema(json.loads(released_json("0.1.0", "GatewayStatus")))
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, heartbeat(gateway_id))
    return confluent_header(1) + out.getvalue()


def test_gateways_of_two_versions_are_seen_with_their_last_heartbeat(kafka: KafkaSettings) -> None:
    since_ms = now_ms()
    group = f"watch-{uuid.uuid4().hex[:8]}"
    names = [f"{group}-{letter}" for letter in "ab"]
    ids = register_schemas(kafka, [GATEWAY_STATUS])
    away = "away since 2026-11-24: no answer"
    statuses = [
        heartbeat(names[1], spool_depth=7),
        heartbeat(names[1], uplink=away, spool_depth=9),
        heartbeat(names[1], uplink=away, spool_depth=10),
    ]
    values = [encode_confluent("GatewayStatus", ids.id_of(GATEWAY_STATUS), s) for s in statuses]
    publish(kafka, [Outgoing(GATEWAY_STATUS.name, v, names[1].encode()) for v in values])
    publish(kafka, [Outgoing(GATEWAY_STATUS.name, earlier_heartbeat(names[0]), names[0].encode())])
    publish(kafka, [Outgoing(GATEWAY_STATUS.name, b"junk", names[0].encode())])
    broken: list[ContractError] = []
    wanted = GatewayFilter(None, since_ms, follow=False)
    found = list(watch_gateways(wanted, kafka, on_broken=broken.append))
    mine = [status for status in found if status["gateway_id"] in names]
    assert [s["spool_depth"] for s in newest(mine)] == [0, 10]
    assert [s["spool_depth"] for s in changes(mine)] == [7, 9, 0]
    assert len(broken) >= 1
    line = gateway_line(newest(mine)[1])
    assert f"{names[1]}: uplink away since 2026-11-24: no answer, 10 wait since 0 s" in line
    assert json.loads(gateway_json(mine[0]))["time"] >= since_ms
    only = GatewayFilter(names[1], since_ms, follow=False)
    assert len(list(watch_gateways(only, kafka))) == 3


def clock(vehicle_id: str, **changes: object) -> Record:
    record: Record = {
        "gateway_id": "gate-1",
        "vehicle_id": vehicle_id,
        "boot_id": 1,
        "zero_time": 1_763_836_200_000,
        "error_ms": 1_000,
        "source": "vehicle",
        "time": 1_763_836_300_000,
        "offset_ms": 1_763_836_200_000,
        "synced_from_seq": 20,
    }
    return record | changes


def test_alerts_of_vehicles_without_the_time_are_shown_with_the_true_one(
    kafka: KafkaSettings,
) -> None:
    name = "watch-clock"
    publish_records(kafka, CLOCKS, [clock(name, offset_ms=0), clock(name, boot_id=2)])
    publish_records(kafka, CLOCKS, [clock(name)])  # a better one
    records = [
        alert(vehicle_id=name, seq=12, since=4_000, event_time=12_345),
        alert(vehicle_id=name, seq=20, state="CLOSED"),  # from here on it knew the time
        alert(vehicle_id=name, seq=12, boot_id=3),  # a boot that nobody told of
    ]
    publish_records(kafka, ALERTS, records)
    wanted = AlertFilter(vehicle_id=name, since_ms=0, follow=False)
    first, second, third = watch_alerts(wanted, kafka)
    assert (first["event_time"], first["true_event_time"]) == (12_345, 1_763_836_212_345)
    assert first["true_since"] == 1_763_836_204_000
    assert "true_event_time" not in second | third
