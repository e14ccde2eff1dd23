"""The smaller pieces of the gateway, one by one."""

import logging
import random
import threading
from pathlib import Path

import pytest
from edge_parts import batch

from edge.announce import Announcer
from edge.frames import Framer, position_key, telemetry_frames
from edge.health import Health
from edge.intake import Inbound, Intake
from edge.partitions import partition_of
from edge.patience import GaveUpError, Patience
from edge.positions import committed, resumed
from edge.ranges import Ranges
from edge.rows import Kind, Lane, StoredPriority, StoredTelemetry
from edge.settings import GatewaySettings
from edge.spool import SpoolDamagedError, SpoolError
from schemas.errors import SettingsError
from schemas.records import Record, confluent_header, decode_body, encode_confluent
from schemas.topics import TOPICS
from transport.kafka import SchemaIds

IDS = SchemaIds({topic.name: number for number, topic in enumerate(TOPICS, 1)})


def message(size: int = 1) -> Inbound:
    return Inbound("t", bytes(size), (), 0, 0)


def taken(intake: Intake, most: int = 100) -> int:
    return len(intake.take(group_max=most, group_s=0.0, timeout_s=0.0))


@pytest.mark.parametrize(("messages_max", "bytes_max"), [(2, 1_000), (1_000, 11)])
def test_a_full_queue_blocks_until_there_is_room(messages_max: int, bytes_max: int) -> None:
    intake = Intake(messages_max=messages_max, bytes_max=bytes_max)
    assert intake.put(message(6)) and intake.put(message(6))
    third = threading.Thread(target=intake.put, args=(message(6),))
    third.start()
    third.join(0.05)
    assert third.is_alive()
    assert taken(intake, 1) == 1
    third.join(10.0)
    assert not third.is_alive()
    assert intake.waits == 1
    assert taken(intake) == 2


def test_a_closed_queue_gives_what_it_has_and_takes_nothing() -> None:
    intake = Intake(messages_max=1, bytes_max=10)
    intake.put(message())
    results: list[bool] = []
    blocked = threading.Thread(target=lambda: results.append(intake.put(message())))
    blocked.start()
    intake.close()
    blocked.join(10.0)
    assert results == [False]
    assert taken(intake) == 1
    assert taken(intake) == 0


def test_a_group_ends_when_it_is_full_without_waiting() -> None:
    intake = Intake(messages_max=10, bytes_max=100)
    for _ in range(3):
        intake.put(message())
    assert len(intake.take(group_max=2, group_s=3_600.0, timeout_s=0.0)) == 2


def position(lane: Lane, at: int, *, gateway: str = "gw", spool: str = "s") -> tuple[bytes, bytes]:
    record: Record = {
        "gateway_id": gateway,
        "spool_id": spool,
        "lane": lane.value,
        "position": at,
        "committed_time": 0,
        "ranges": [{"first": at + 3, "last": at + 4}],
    }
    return position_key(gateway, lane), encode_confluent("GatewayPosition", 1, record)


def earlier(at: int) -> tuple[bytes, bytes]:
    """As a gateway of 0.1.0 wrote it: without ranges, which is one byte at the end."""
    key, value = position(Lane.TELEMETRY, at)
    record = decode_body("GatewayPosition", value[5:]) | {"ranges": []}
    return key, encode_confluent("GatewayPosition", 1, record)[:-1]


def test_positions_are_those_of_this_spool_whatever_the_gateway_was_called() -> None:
    log = [
        position(Lane.TELEMETRY, 900, spool="older"),
        position(Lane.TELEMETRY, 5),
        position(Lane.PRIORITY, 2),
        position(Lane.TELEMETRY, 99, gateway="another", spool="another"),
        position(Lane.TELEMETRY, 7, gateway="renamed"),
        (position_key("gw", Lane.TELEMETRY), b"rubbish"),
        (b"", b""),
    ]
    found = committed(log, gateway_ids=("gw", "renamed"), spool_id="s")
    assert found.positions == {
        Lane.TELEMETRY: Ranges(7, [(10, 11)]),
        Lane.PRIORITY: Ranges(2, [(5, 6)]),
    }
    assert found.successor("gw", "s") is found.successor("renamed", "s") is None
    log.append(position(Lane.TELEMETRY, 1, spool="newer"))
    found = committed(log, gateway_ids=("gw",), spool_id="s")
    assert found.successor("gw", "s") == "newer"
    assert found.positions[Lane.TELEMETRY] == Ranges(7, [(10, 11)])


def test_positions_of_the_version_before_are_read() -> None:
    found = committed([earlier(12)], gateway_ids=("gw",), spool_id="s")
    assert found.positions[Lane.TELEMETRY] == Ranges(12)


def test_where_to_resume() -> None:
    ahead = Ranges(7, [(9, 9), (12, 20)])
    assert resumed(ahead, known=3, last_at_open=30) == ahead
    assert resumed(Ranges(), known=3, last_at_open=10) == Ranges(3)  # Kafka lost its topic
    # The disk lost what Kafka has: its positions are given again, to other rows.
    assert resumed(Ranges(50), known=3, last_at_open=10) == Ranges(10)
    assert resumed(ahead, known=3, last_at_open=13) == Ranges(7, [(9, 9), (12, 13)])
    # What this process has told Kafka counts, though the disk held less when it was opened.
    assert resumed(Ranges(50), known=3, last_at_open=None) == Ranges(50)


@pytest.mark.parametrize(
    ("key", "partition"),
    # From Java: Utils.toPositive(Utils.murmur2(key)) % 1000, the keys of Kafka's own UtilsTest.
    [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536)],
)
def test_partitions_are_those_of_java(key: bytes, partition: int) -> None:
    assert partition_of(key, 1_000) == (partition & 0x7FFFFFFF) % 1_000


def test_the_body_on_kafka_is_that_of_mqtt() -> None:
    payload = batch("car", 4, boot=2)
    row = StoredTelemetry(1, "car", 2, 4, 1_234, payload)
    (out,) = Framer("gw", IDS, 4).telemetry([row])
    assert out.value == confluent_header(1) + payload[10:]
    assert (out.key, out.timestamp_ms) == (b"car", 1_234)
    assert dict(out.headers) == {
        "boot_id": b"2",
        "seq": b"4",
        "gateway_id": b"gw",
        "received_ms": b"1234",
    }
    (late,) = Framer("gw", IDS, 4).telemetry([row], late=True)
    assert late == out._replace(headers=[*out.headers, ("late", b"1")])


def test_a_trace_becomes_a_header_of_telemetry_and_of_alerts() -> None:
    traced = f"00-{'a' * 32}-{'b' * 16}-01"
    framer = Framer("gw", IDS, 4)
    (out,) = framer.telemetry([StoredTelemetry(1, "car", 2, 4, 1_234, batch("car", 4), traced)])
    assert dict(out.headers)["traceparent"] == traced.encode()
    (letter,) = framer.priority(StoredPriority(1, Kind.LABEL, "car", 1, bytes(20), traced))
    assert dict(letter.headers) == {"gateway_id": b"gw", "traceparent": traced.encode()}


def test_a_schema_that_the_registry_lacks_is_said_and_not_guessed() -> None:
    row = StoredTelemetry(1, "car", 2, 4, 0, b"\xc3\x01" + b"x" * 8 + b"body")
    with pytest.raises(SettingsError, match=b"x".hex() * 8):
        Framer("gw", IDS, 4).telemetry([row])
    assert list(telemetry_frames(IDS).values())[-1] == confluent_header(1)


def test_patience_repeats_until_the_disk_takes_it() -> None:
    health = Health()
    stop = threading.Event()
    patience = Patience(stop, health, random.Random(1))
    answers: list[Exception | None] = [SpoolError("full"), None]

    def write() -> None:
        answer = answers.pop(0)
        if answer is not None:
            raise answer

    patience.until_done("writing", write)
    assert (answers, health.spool) == ([], "ok")
    answers += [SpoolDamagedError("broken")]
    with pytest.raises(SpoolDamagedError):
        patience.until_done("writing", write)
    stop.set()
    answers += [SpoolError("full")]
    with pytest.raises(GaveUpError):
        patience.until_done("writing", write)
    assert health.spool == "full"


def test_the_log_cannot_be_filled(caplog: pytest.LogCaptureFixture) -> None:
    now_s = [0.0]
    announcer = Announcer(lambda: now_s[0])
    with caplog.at_level(logging.INFO):
        for _ in range(100):
            announcer.warn("uplink", "away")
        announcer.info("model", "new")
        now_s[0] = 61.0
        announcer.warn("uplink", "still away")
    assert [r.getMessage() for r in caplog.records] == [
        "away",
        "new",
        "still away (99 more like it)",
    ]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"gateway_id": ""}, "gateway_id"),
        ({"group_commit_ms": 501}, "group_commit_ms is 501; it may be 0 to 500 ms"),
        ({"queue_messages_max": 0}, "queue_messages_max"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict[str, object], text: str) -> None:
    wanted: dict[str, object] = {
        "gateway_id": "gw",
        "spool_path": Path("s"),
        "models_path": Path("m"),
        **change,
    }
    with pytest.raises(SettingsError, match=text):
        GatewaySettings(**wanted).validate()  # type: ignore[arg-type]


def test_a_group_ends_where_its_bytes_are_enough() -> None:
    intake = Intake(messages_max=10, bytes_max=1_000)
    for size in (40, 70, 1, 1):
        intake.put(Inbound("t", bytes(size), (), 0, 0))
    taken = [
        len(intake.take(group_max=9, group_s=0.0, timeout_s=0.0, group_bytes_max=100))
        for _ in range(3)
    ]
    assert taken == [2, 2, 0]
