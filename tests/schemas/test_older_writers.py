"""Telemetry written with the schema of an older release is still accepted."""

import io
import json
from collections.abc import Iterator
from typing import Any

import fastavro
import numpy as np
import pytest
from telemetry_wire import NOW_MS, SCHEMA_ID, Batch, Reading, framed

from schemas import versions as versions_module
from schemas.codec import Framing, decode_telemetry
from schemas.errors import Reason
from schemas.records import confluent_header, fingerprint_of, schema_json
from schemas.versions import released_json, versions, writer

OLD = "0.0.1"
OLD_ID = 3


def old_schema() -> dict[str, Any]:
    """The current schema without its second signal, as if that had been added since."""
    schema: dict[str, Any] = json.loads(schema_json("TelemetryBatch"))
    fields = schema["fields"][-1]["type"]["items"]["fields"]
    assert fields.pop(2)["name"] == "engine_speed"
    return schema


def body(schema: dict[str, Any], *, speed: float = 50.0) -> bytes:
    """A batch of one reading."""
    reading = {"event_time": NOW_MS, "speed": speed}
    record = {
        "vehicle_id": "old",
        "boot_id": 1,
        "seq": 1,
        "oldest_seq": 1,
        "uptime_ms": 0,
        "clock_synced": True,
        "readings": [reading],
    }
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), record)
    return out.getvalue()


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A release whose schema lacks a signal of the current one; gives its text."""
    text = json.dumps(old_schema())

    def forget() -> None:
        writer.cache_clear()
        versions_module.versions_by_fingerprint.cache_clear()

    monkeypatch.setattr(versions_module, "versions", lambda: (OLD, *versions()))
    monkeypatch.setattr(
        versions_module,
        "released_json",
        lambda version, name: text if version == OLD else released_json(version, name),
    )
    forget()
    yield text
    forget()


def test_by_fingerprint(release: str) -> None:
    old = b"\xc3\x01" + fingerprint_of(release) + body(old_schema())
    new = framed(
        Batch(b"new", readings=[Reading(NOW_MS, {1: 2000.0})]).body(), Framing.SINGLE_OBJECT
    )
    columns = decode_telemetry(
        [new, old, new], framing=Framing.SINGLE_OBJECT, signals=["engine_speed", "speed"]
    )
    assert columns.rejected == []
    assert columns.vehicle_ids == [b"new", b"old", b"new"]
    expected = [[2000.0, np.nan], [np.nan, 50.0], [2000.0, np.nan]]
    np.testing.assert_array_equal(columns.values, np.array(expected, np.float32))


def test_by_registry_id(release: str) -> None:
    payload = confluent_header(OLD_ID) + body(old_schema())
    known = decode_telemetry(
        [payload], framing=Framing.CONFLUENT, schema_id=SCHEMA_ID, schema_ids={OLD_ID: OLD}
    )
    assert known.vehicle_ids == [b"old"]
    unknown = decode_telemetry([payload], framing=Framing.CONFLUENT, schema_id=SCHEMA_ID)
    assert [bad.error.reason for bad in unknown.rejected] == [Reason.UNKNOWN_SCHEMA_ID]
    assert fingerprint_of(release)


@pytest.mark.usefixtures("release")
def test_the_rest_of_the_contract_holds_for_old_writers_too() -> None:
    head = b"\xc3\x01" + fingerprint_of(json.dumps(old_schema()))
    payloads = [head + body(old_schema(), speed=999.0), head + body(old_schema())[:-2]]
    columns = decode_telemetry(payloads, framing=Framing.SINGLE_OBJECT)
    assert [bad.error.reason for bad in columns.rejected] == [
        Reason.OUT_OF_RANGE,
        Reason.TRUNCATED,
    ]


def test_every_released_schema_is_known_by_its_fingerprint() -> None:
    known = versions_module.versions_by_fingerprint()
    for version in versions():
        assert fingerprint_of(released_json(version, "TelemetryBatch")) in known


def test_the_current_schema_is_its_own_writer_although_it_is_released() -> None:
    assert (
        versions_module.versions_by_fingerprint()[fingerprint_of(schema_json("TelemetryBatch"))]
        is None
    )
    assert writer(None).current
