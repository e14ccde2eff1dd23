"""Models on `model.releases`: publish one, read the newest.

The topic has one partition, so the log orders the releases; the newest one of a name is its
champion where nobody named another. The key is `name/version`: compaction keeps every version,
and of a version that was published twice the later record. A model too large for a record lies
on `model.chunks`, see `transport.chunks`.
"""

from schemas.errors import ContractError, Reason, TransientError
from schemas.records import encode_confluent
from schemas.topics import CHUNKS, RELEASES
from scoring.bundle import Bundle
from transport.catalog import CatalogFollower
from transport.chunks import chunk_records, chunks_end, read_chunks
from transport.kafka import Outgoing, SchemaIds, publish, register_schemas
from transport.kafka.config import MESSAGE_BYTES_MAX
from transport.release_records import (
    BYTES_HEADER,
    CHUNKS_HEADER,
    PARTITION,
    SHA256_HEADER,
    BrokenRelease,
    Header,
    Release,
    release_key,
)
from transport.settings import KafkaSettings

__all__ = [
    "PARTITION",
    "BrokenRelease",
    "Release",
    "newest_release",
    "publish_release",
    "release_key",
]

CATCH_UP_TIMEOUT_S = 30.0
"""Longest wait for the log so far."""
UPLOADS_MAX = 3
"""Times that the chunks of a release are written before it is given up."""
_FRAME_BYTES_MAX = 1_000
"""What key and headers take of a record, at most."""


def publish_release(settings: KafkaSettings, bundle: Bundle) -> None:
    """Publish a verified bundle; returns when all replicas that must have it do.

    A model too large for a record is written as chunks first. They are read back at the end,
    because whoever deletes another version with the same bytes may delete them meanwhile.

    Raises:
        ContractError: The bundle does not verify, or its manifest is too large for a record.
        TransientError: Kafka or the registry did not answer in time; the release may still be
            published, and publishing it again does no harm.
        SettingsError: They refuse this client.
    """
    bundle.verify()
    ids = register_schemas(settings, [RELEASES, CHUNKS])
    whole = _head(bundle, ids, bundle.model, ())
    if len(whole.value or b"") + _FRAME_BYTES_MAX <= MESSAGE_BYTES_MAX:
        publish(settings, [whole])
    else:
        _publish_in_chunks(settings, bundle, ids)


def _publish_in_chunks(settings: KafkaSettings, bundle: Bundle, ids: SchemaIds) -> None:
    sha256 = bundle.manifest.model_sha256
    for _ in range(UPLOADS_MAX):
        start = chunks_end(settings)
        publish(settings, chunk_records(bundle.model, ids.id_of(CHUNKS)))
        facts = (
            (BYTES_HEADER, b"%d" % len(bundle.model)),
            (CHUNKS_HEADER, b"%d" % start),
        )
        publish(settings, [_head(bundle, ids, b"", facts)])
        try:
            read_chunks(settings, ids, sha256, start)
            return
        except ContractError as error:
            lost = error
    raise TransientError(f"chunks were deleted while they were written: {lost}")


def _head(bundle: Bundle, ids: SchemaIds, model: bytes, facts: tuple[Header, ...]) -> Outgoing:
    """The record of a release, with the model or, where its bytes are elsewhere, without.

    Raises:
        ContractError: OVERSIZED: the manifest alone does not fit.
    """
    manifest = bundle.manifest
    record = {**bundle.to_record(), "model": model}
    value = encode_confluent(RELEASES.record, ids.id_of(RELEASES), record)
    if len(value) - len(model) + _FRAME_BYTES_MAX > MESSAGE_BYTES_MAX:
        raise ContractError(Reason.OVERSIZED, f"a manifest that makes {len(value)} bytes")
    return Outgoing(
        RELEASES.name,
        value,
        release_key(manifest.name, manifest.version),
        PARTITION,
        headers=((SHA256_HEADER, manifest.model_sha256.encode()), *facts),
    )


def newest_release(settings: KafkaSettings, name: str) -> Bundle | None:
    """The newest sound release of a name now; None where nothing sound was published.

    Raises:
        TransientError: Kafka or the registry did not answer in time, or there is no topic
            `model.releases`.
        SettingsError: They refuse this client.
    """
    with CatalogFollower(settings, {name}) as follower:
        catalog = follower.read_to_end(CATCH_UP_TIMEOUT_S)
    versions = catalog.versions(name)
    return catalog.bundle(name, versions[-1]) if versions else None
