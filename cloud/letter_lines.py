"""How dead letters read: lines for people, JSON objects for programs. Pure."""

import json
import math
from collections.abc import Iterator
from typing import Any

from cloud.alert_lines import clock_time
from cloud.redrive import TOPIC_BY_NAME, Letter
from schemas.errors import ContractError
from schemas.records import (
    CONFLUENT_HEADER_BYTES,
    CONFLUENT_MAGIC,
    NAMES,
    SINGLE_OBJECT_HEADER_BYTES,
    SINGLE_OBJECT_MAGIC,
    Record,
    decode_body,
    single_object_header,
)

HEX_BYTES_SHOWN = 512
_HEX_LINE_BYTES = 32
_ERROR_SHOWN = 100


def letter_line(letter: Letter) -> str:
    """One line: id, when, who, why, where from, the error."""
    record = letter.record
    error = record["error"]
    return "  ".join(
        (
            f"{letter.id!s:>8}",
            clock_time(record["failed_time"]),
            f"{record['component']} {record['component_id']}",
            record["reason"],
            _source(record),
            error if len(error) <= _ERROR_SHOWN else error[:_ERROR_SHOWN] + "…",
        )
    )


def _source(record: Record) -> str:
    if record["offset"] < 0:
        return str(record["topic"])
    return f"{record['topic']}[{record['partition']}]@{record['offset']}"


def letter_json(letter: Letter, *, decoded: bool = False) -> str:
    """One JSON object on one line: the record with its id, bytes in hex.

    Args:
        letter: Which.
        decoded: Whether to add what the payload says, `null` where it cannot be read.
    """
    shown = {"id": str(letter.id), **letter.record, "redrives": letter.redrives}
    if decoded:
        found = payload_record(letter)
        shown["decoded"] = None if isinstance(found, str) else found
    return json.dumps(_jsonable(shown), ensure_ascii=False)


def letter_lines(letter: Letter) -> Iterator[str]:
    """All of a letter, for people: facts, key, headers, and the payload in words and in hex."""
    record = letter.record
    yield f"letter     {letter.id}"
    yield f"failed     {clock_time(record['failed_time'])}"
    yield f"component  {record['component']} {record['component_id']}"
    yield f"reason     {record['reason']}: {record['error']}"
    yield f"source     {_source(record)}"
    if record["model_version"] is not None:
        yield f"model      {record['model_version']}"
    yield f"key        {_text(record['key'])}"
    for header in record["headers"]:
        yield f"header     {header['name']}: {_text(header['value'])}"
    if letter.redrives:
        yield f"redriven   {letter.redrives} times before"
    yield from _payload_lines(letter)


def _payload_lines(letter: Letter) -> Iterator[str]:
    payload = letter.record["payload"]
    size = letter.record["payload_bytes"]
    if payload is None:
        yield "payload    none: a tombstone"
        return
    cut = f", cut to {len(payload)}" if len(payload) != size else ""
    yield f"payload    {size} bytes{cut}"
    found = payload_record(letter)
    yield (
        f"decoded    not readable: {found}"
        if isinstance(found, str)
        else f"decoded    {json.dumps(_jsonable(found), ensure_ascii=False)}"
    )
    for start in range(0, min(len(payload), HEX_BYTES_SHOWN), _HEX_LINE_BYTES):
        yield f"{start:08x}   {payload[start : start + _HEX_LINE_BYTES].hex(' ', 4)}"
    if len(payload) > HEX_BYTES_SHOWN:
        yield f"           … {len(payload) - HEX_BYTES_SHOWN} bytes more"


def payload_record(letter: Letter) -> Record | str:
    """What the payload says, or why it cannot be read.

    A payload with Kafka's frame is read as a record of its topic, whatever schema id stands
    before it: where the id is what was wrong with it, the body may still tell.
    """
    payload = letter.record["payload"] or b""
    try:
        if payload.startswith(SINGLE_OBJECT_MAGIC):
            header = payload[:SINGLE_OBJECT_HEADER_BYTES]
            name = next((name for name in NAMES if single_object_header(name) == header), None)
            if name is None:
                return f"no schema has the fingerprint {header[2:].hex()}"
            return decode_body(name, payload[SINGLE_OBJECT_HEADER_BYTES:])
        topic = TOPIC_BY_NAME.get(letter.topic)
        if topic is None or payload[:1] != CONFLUENT_MAGIC:
            return "it has no frame of ours"
        return decode_body(topic.record, payload[CONFLUENT_HEADER_BYTES:])
    except ContractError as error:
        return str(error)


def _text(value: bytes | None) -> str:
    """Bytes as text where they are, else in hex."""
    if value is None:
        return "none"
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return value.hex()
    return text if text.isprintable() else value.hex()


def _jsonable(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_jsonable(item) for item in value]
    return value if isinstance(value, str | int | float | None) else str(value)
