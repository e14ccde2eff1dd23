"""Fingerprints and frames are those of the Avro specification, and of another implementation."""

import struct

import avro.schema
import pytest

from schemas.records import (
    NAMES,
    decode_body,
    encode_single_object,
    fingerprint,
    fingerprint_of,
    schema_json,
    single_object_header,
)

EMPTY = 0xC15D213AA4D7A795


def rabin(data: bytes) -> int:
    """CRC-64-AVRO as the specification's pseudocode has it."""
    table = []
    for number in range(256):
        value = number
        for _ in range(8):
            value = (value >> 1) ^ (EMPTY if value & 1 else 0)
        table.append(value)
    value = EMPTY
    for byte in data:
        value = (value >> 8) ^ table[(value ^ byte) & 0xFF]
    return value


def test_the_fingerprint_of_int_is_the_published_one() -> None:
    assert fingerprint_of('"int"') == struct.pack("<Q", 0x7275D51A3F395C8F)


@pytest.mark.parametrize("name", NAMES)
def test_fingerprints_are_little_endian_rabin_of_the_canonical_form(name: str) -> None:
    canonical = avro.schema.parse(schema_json(name)).canonical_form
    # The specification, Java and fastavro reduce a long with a logical type to "long"; the avro
    # package strips the logical type and leaves the object around it.
    canonical = canonical.replace('{"type":"long"}', '"long"')
    assert fingerprint(name) == struct.pack("<Q", rabin(canonical.encode()))


def test_another_implementation_gives_the_same_bytes() -> None:
    assert fingerprint("Ack") == avro.schema.parse(schema_json("Ack")).fingerprint("CRC-64-AVRO")


def test_fingerprints_differ() -> None:
    assert len({fingerprint(name) for name in NAMES}) == len(NAMES)


def test_a_single_object_is_marker_fingerprint_and_body() -> None:
    record = {"gateway_id": "g", "boot_id": 1, "seq": 2, "ranges": []}
    payload = encode_single_object("Ack", record)
    assert payload[:10] == b"\xc3\x01" + fingerprint("Ack") == single_object_header("Ack")
    assert decode_body("Ack", payload[10:]) == record
