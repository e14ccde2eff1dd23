"""Records of `model.releases` and `model.traffic` as values, or what is wrong with them.

A release whose record would be too large has an empty `model`: its bytes lie on `model.chunks`
(`transport.chunks`). Such a head says in its headers how large they are and at which offset the
search for them begins.
"""

import struct
from dataclasses import dataclass

from schemas.errors import ContractError, Reason
from schemas.records import (
    CONFLUENT_HEADER_BYTES,
    CONFLUENT_MAGIC,
    Record,
    decode_confluent,
)
from schemas.topics import RELEASES, TRAFFIC, Topic
from scoring.bundle import MODEL_BYTES_MAX, Bundle
from scoring.manifest import Manifest
from scoring.traffic import Traffic
from transport.kafka import Message, SchemaIds

PARTITION = 0
"""The only one of `model.releases`, `model.chunks` and `model.traffic`: the log orders them."""

SHA256_HEADER = "sha256"
BYTES_HEADER = "model-bytes"
CHUNKS_HEADER = "chunks-from"

Header = tuple[str, bytes | None]


@dataclass(frozen=True, slots=True)
class BrokenRelease:
    """A record that cannot be used, with what a dead letter needs.

    Attributes:
        error: Why.
        offset: Where it is on its topic, partition 0.
        key: Of the record.
        headers: Of the record.
        payload: Its value.
        topic: `model.releases`, or `model.traffic` where what is broken is no release.
    """

    error: ContractError
    offset: int
    key: bytes | None
    headers: tuple[Header, ...]
    payload: bytes
    topic: str = RELEASES.name


Release = Bundle | BrokenRelease


@dataclass(frozen=True, slots=True)
class Head:
    """A release whose bytes lie on `model.chunks`.

    Attributes:
        manifest: All about it but the bytes.
        record: The `ModelRelease` record, its `model` empty.
        model_bytes: Size of its model as the publisher says; 0: not said.
        chunks_from: Offset on `model.chunks` before which no chunk of it needs to be searched
            first.
    """

    manifest: Manifest
    record: Record
    model_bytes: int
    chunks_from: int

    def with_model(self, model: bytes) -> Bundle:
        """The whole release.

        Raises:
            ContractError: MODEL_HASH or MODEL_INVALID.
        """
        return Bundle.from_record({**self.record, "model": model})


def release_key(name: str, version: str) -> bytes:
    """Key of a release's record."""
    return f"{name}/{version}".encode()


def name_in_key(key: bytes | None) -> str | None:
    """Model that the key of a release is of; None where it is no such key."""
    name, slash, _ = (key or b"").rpartition(b"/")
    return name.decode(errors="replace") if slash else None


def read_head(message: Message, ids: SchemaIds) -> Bundle | Head:
    """The release in a record, or its head.

    Raises:
        ContractError: It is none, or its key is another release's.
    """
    record = decode_record(message.value() or b"", RELEASES, ids)
    bundle: Bundle | Head
    if record["model"]:
        bundle = Bundle.from_record(record)
    else:
        bundle = _head(record, dict(headers_of(message)))
    manifest = bundle.manifest
    if message.key() != release_key(manifest.name, manifest.version):
        raise ContractError(
            Reason.IDENTITY,
            f"key {message.key()!r} of a record of {manifest.name}/{manifest.version}",
        )
    return bundle


def read_traffic(message: Message, ids: SchemaIds) -> Traffic:
    """What a record of `model.traffic` says.

    Raises:
        ContractError: It cannot be read, or its key is another model's.
    """
    traffic = Traffic.from_record(decode_record(message.value() or b"", TRAFFIC, ids))
    if message.key() != traffic.name.encode():
        raise ContractError(
            Reason.IDENTITY, f"key {message.key()!r} of a record of model {traffic.name}"
        )
    return traffic


def broken(message: Message, error: ContractError) -> BrokenRelease:
    """What to report of a record that cannot be used."""
    return BrokenRelease(
        error=error,
        offset=offset_of(message),
        key=message.key(),
        headers=headers_of(message),
        payload=message.value() or b"",
        topic=message.topic() or RELEASES.name,
    )


def headers_of(message: Message) -> tuple[Header, ...]:
    """As (name, bytes); the library's types also allow a mapping and text."""
    headers = message.headers() or ()
    pairs = headers.items() if isinstance(headers, dict) else headers
    return tuple((n, v.encode() if isinstance(v, str) else v) for n, v in pairs)


def offset_of(message: Message) -> int:
    """Where a record is; the library's types also allow that it is nowhere."""
    offset = message.offset()
    return -1 if offset is None else offset


def _head(record: Record, headers: dict[str, bytes | None]) -> Head:
    return Head(
        manifest=Manifest.from_json(record["manifest"]),
        record=record,
        model_bytes=min(_number(headers.get(BYTES_HEADER)), MODEL_BYTES_MAX),
        chunks_from=_number(headers.get(CHUNKS_HEADER)),
    )


def _number(text: bytes | None) -> int:
    """A count in a header; 0 where there is none: it only spares work."""
    return int(text) if text is not None and len(text) < 20 and text.isdigit() else 0


def decode_record(payload: bytes, topic: Topic, ids: SchemaIds) -> Record:
    """The record of a topic in a payload, whichever version of the schema stands before it.

    Raises:
        ContractError: It is none.
    """
    schema_id = ids.id_of(topic)
    if len(payload) >= CONFLUENT_HEADER_BYTES and payload[:1] == CONFLUENT_MAGIC:
        found = struct.unpack(">I", payload[1:CONFLUENT_HEADER_BYTES])[0]
        if not ids.is_known(topic, found):
            raise ContractError(
                Reason.UNKNOWN_SCHEMA_ID, f"schema id {found} is none of {topic.name}'s"
            )
        schema_id = found
    return decode_confluent(topic.record, schema_id, payload)
