"""Releases for the tests of the catalog, small and large, and a way to wait for one to show."""

import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from schemas.records import encode_confluent
from schemas.topics import RELEASES
from scoring.bundle import Bundle, sha256_hex
from transport.catalog import CatalogFollower, CatalogNews
from transport.kafka import KafkaSettings, Outgoing, publish, register_schemas
from transport.release_records import release_key

SMALL = Path(__file__).parent.parent / "scoring" / "data" / "small.motorcade"
WAIT_S = 60.0


def small_release(name: str, version: str = "1") -> Bundle:
    bundle = Bundle.load(SMALL)
    return Bundle(replace(bundle.manifest, name=name, version=version), bundle.model)


def large_release(name: str, version: str = "1", *, size_bytes: int, seed: int = 1) -> Bundle:
    """A sound model of that size: what stands behind a flatbuffer is nobody's, and is allowed."""
    small = small_release(name, version)
    padding = random.Random(seed).randbytes(size_bytes - len(small.model))
    return with_model(small, small.model + padding)


def with_model(bundle: Bundle, model: bytes) -> Bundle:
    return Bundle(replace(bundle.manifest, model_sha256=sha256_hex(model)), model)


def publish_head(
    kafka: KafkaSettings,
    bundle: Bundle,
    model: bytes,
    *,
    headers: tuple[tuple[str, bytes | None], ...] = (),
    change: Callable[[bytes], bytes] = bytes,
) -> None:
    """A record of a release that `publish_release` would not write like this."""
    schema_id = register_schemas(kafka, [RELEASES]).id_of(RELEASES)
    value = encode_confluent(RELEASES.record, schema_id, {**bundle.to_record(), "model": model})
    key = release_key(bundle.manifest.name, bundle.manifest.version)
    publish(kafka, [Outgoing(RELEASES.name, change(value), key, 0, headers=headers)])


def poll_until(
    follower: CatalogFollower, enough: Callable[[CatalogNews], bool]
) -> list[CatalogNews]:
    """Polls up to the first news that is enough."""
    until_s = time.monotonic() + WAIT_S
    found: list[CatalogNews] = []
    while not found or not enough(found[-1]):
        assert time.monotonic() < until_s, (found[-1:], follower.last_error)
        found.append(follower.poll(0.1))
    return found
