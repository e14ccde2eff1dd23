from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from catalog_bundles import poll_until

from deploy.stack import Stack
from schemas.errors import ContractError, Reason, SettingsError
from schemas.records import encode_confluent
from schemas.topics import RELEASES
from scoring.bundle import Bundle
from transport.catalog import CatalogFollower
from transport.kafka import KafkaSettings, Outgoing, ensure_topics, publish, register_schemas
from transport.releases import (
    BrokenRelease,
    newest_release,
    publish_release,
    release_key,
)

pytestmark = pytest.mark.integration

SMALL = Path(__file__).parent.parent / "scoring" / "data" / "small.motorcade"


@pytest.fixture(scope="module")
def kafka(stack: Stack) -> KafkaSettings:
    settings = KafkaSettings(
        bootstrap_servers=stack.endpoints.kafka_bootstrap,
        registry_url=stack.endpoints.registry_url,
    )
    ensure_topics(settings)
    return settings


def named(name: str, version: str = "1") -> Bundle:
    bundle = Bundle.load(SMALL)
    return Bundle(replace(bundle.manifest, name=name, version=version), bundle.model)


def publish_raw(kafka: KafkaSettings, bundle: Bundle, change: Callable[[bytes], bytes]) -> None:
    """A release that `publish_release` would not let out."""
    value = encode_confluent(
        RELEASES.record,
        register_schemas(kafka, [RELEASES]).id_of(RELEASES),
        bundle.to_record(),
    )
    key = release_key(bundle.manifest.name, bundle.manifest.version)
    publish(kafka, [Outgoing(RELEASES.name, change(value), key, 0, headers=(("who", b"test"),))])


def test_a_release_is_read_back_as_it_was(kafka: KafkaSettings) -> None:
    publish_release(kafka, named("read-back"))
    assert newest_release(kafka, "read-back") == named("read-back")
    assert newest_release(kafka, "never-published") is None


def test_the_newest_is_the_one_that_was_published_last(kafka: KafkaSettings) -> None:
    for version in ("1", "2", "3", "2"):
        publish_release(kafka, named("newest", version))
    publish_release(kafka, named("other", "9"))
    assert newest_release(kafka, "newest") == named("newest", "2")


def test_broken_releases_come_with_what_a_dead_letter_needs(kafka: KafkaSettings) -> None:
    good = named("broken", "1")
    publish_raw(kafka, named("broken", "0"), lambda value: value[:40])
    publish_release(kafka, good)
    tampered = named("broken", "2")
    publish_raw(kafka, Bundle(tampered.manifest, good.model[:-1] + b"?"), bytes)
    with CatalogFollower(kafka, {"broken"}) as follower:
        # The broken one before the newest sound one is history.
        [refused] = poll_until(follower, lambda news: news.ready)[-1].broken
        assert refused.error.reason is Reason.MODEL_HASH
        assert (refused.key, refused.headers) == (b"broken/2", (("who", b"test"),))
        publish_raw(kafka, named("broken", "3"), lambda value: b"\x00\xff\xff\xff\xff" + value[5:])
        publish_raw(kafka, named("broken", "4"), lambda value: b"junk")
        found: list[BrokenRelease] = []
        while len(found) < 2:
            found += poll_until(follower, lambda news: bool(news.broken))[-1].broken
        reasons = [each.error.reason for each in found]
        assert reasons == [Reason.UNKNOWN_SCHEMA_ID, Reason.NOT_AVRO]
        assert found[-1].payload == b"junk"
    assert newest_release(kafka, "broken") == good


def test_a_broken_bundle_is_not_published(kafka: KafkaSettings) -> None:
    bundle = named("unsound")
    with pytest.raises(ContractError) as refused:
        publish_release(kafka, Bundle(bundle.manifest, bundle.model + b"!"))
    assert refused.value.reason is Reason.MODEL_HASH
    assert newest_release(kafka, "unsound") is None


def test_a_refusal_by_kafka_is_no_silence() -> None:
    bad = KafkaSettings(registry_url="no address")
    with CatalogFollower(bad) as follower, pytest.raises(SettingsError, match="registry"):
        follower.poll(0.05)
