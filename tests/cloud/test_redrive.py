"""What may be sent back, and as what. Without Kafka."""

import math
from typing import Any

import pytest
from sample_letter import letter

from cloud.letter_lines import letter_json, letter_line, letter_lines, payload_record
from cloud.redrive import (
    REDRIVEN_HEADER,
    REDRIVES_MAX,
    LetterId,
    NotRedrivenError,
    redriven,
)
from schemas.records import encode_body, encode_confluent, encode_single_object
from schemas.topics import GATEWAY_POSITIONS
from transport.kafka import Outgoing

IDS = {GATEWAY_POSITIONS.name: 7}


def test_a_message_goes_back_as_it_was_with_one_header_more() -> None:
    out = redriven(
        letter(topic="t", partition=2, key=b"k", payload=b"p", headers=[("h", b"1"), ("n", None)]),
        to=None,
        schema_ids={},
    )
    headers = (("h", b"1"), ("n", None), (REDRIVEN_HEADER, b"0:17"))
    assert out == Outgoing("t", b"p", b"k", 2, headers=headers)


def test_a_tombstone_goes_back_as_one() -> None:
    assert redriven(letter(payload=None), to=None, schema_ids={}).value is None


def test_another_topic_takes_it_by_its_key() -> None:
    out = redriven(letter(topic="v1/f/car/telemetry", partition=-1), to="t", schema_ids={})
    assert (out.topic, out.partition) == ("t", -1)


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"payload": b"abc", "payload_bytes": 400_000}, "cut from 400000 to 3 bytes"),
        ({"topic": "v1/f/car/telemetry", "partition": -1}, "came from MQTT"),
        ({"headers": [(REDRIVEN_HEADER, b"x")] * REDRIVES_MAX}, "came back 3 times already"),
        ({"payload": b"\xc3\x01" + bytes(8), "topic": "mine"}, "none of Motorcade's topics"),
        (
            {"payload": b"\xc3\x01" + bytes(8), "topic": GATEWAY_POSITIONS.name},
            "unknown-fingerprint",
        ),
    ],
)
def test_what_is_not_sent_back(facts: dict[str, Any], why: str) -> None:
    with pytest.raises(NotRedrivenError, match=why):
        redriven(letter(**facts), to=None, schema_ids=IDS)


def test_what_was_framed_for_mqtt_gets_kafkas_frame_and_keeps_its_body() -> None:
    record = {
        "gateway_id": "g",
        "spool_id": "s",
        "lane": "telemetry",
        "position": 3,
        "committed_time": 0,
        "ranges": [],
    }
    name = GATEWAY_POSITIONS.record
    out = redriven(
        letter(topic="v1/x/y/z", payload=encode_single_object(name, record)),
        to=GATEWAY_POSITIONS.name,
        schema_ids=IDS,
    )
    assert out.value == encode_confluent(name, 7, record)


@pytest.mark.parametrize(("text", "found"), [("17", LetterId(0, 17)), ("2:0", LetterId(2, 0))])
def test_an_id_is_an_offset_or_a_partition_and_one(text: str, found: LetterId) -> None:
    assert LetterId.parse(text) == found
    assert str(found) == text


@pytest.mark.parametrize("text", ["", "a", "1:", ":1", "-1", "1:-1", "1:2:3"])
def test_what_is_no_id(text: str) -> None:
    with pytest.raises(ValueError):
        LetterId.parse(text)


def test_a_letter_reads_as_a_line_and_in_full() -> None:
    shown = letter(
        payload=b"\x00\x00\x00\x00\x09" + encode_body("ModelEvent", _event()),
        topic="model.events",
        key=b"car",
        headers=[("boot_id", b"1"), ("odd", b"\xff"), ("none", None), (REDRIVEN_HEADER, b"0:3")],
    )
    line = letter_line(shown)
    assert "scorer one  unknown-schema-id  model.events[0]@5  it is 9" in line
    full = "\n".join(letter_lines(shown))
    assert "key        car" in full
    assert "header     odd: ff" in full
    assert "redriven   1 times before" in full
    assert '"detail": "as asked"' in full
    assert "00000000   00000000 09" in full
    as_json = letter_json(shown, decoded=True)
    assert '"decoded": {' in as_json
    assert '"share": null' in as_json


def test_a_payload_that_cannot_be_read_is_shown_all_the_same() -> None:
    assert "no frame of ours" in str(payload_record(letter(payload=b"junk")))
    assert "no schema has" in str(payload_record(letter(payload=b"\xc3\x01" + bytes(8))))
    cut = letter(payload=bytes(600), payload_bytes=900_001)
    full = "\n".join(letter_lines(cut))
    assert "900001 bytes, cut to 600" in full
    assert "88 bytes more" in full
    assert "tombstone" in "\n".join(letter_lines(letter(payload=None)))


def _event() -> dict[str, Any]:
    return {
        "time": 0,
        "kind": "deleted",
        "severity": "INFO",
        "model_name": "m",
        "model_version": None,
        "arm": None,
        "experiment": None,
        "detail": "as asked",
        "values": {"share": math.nan},
        "by": "test",
    }
