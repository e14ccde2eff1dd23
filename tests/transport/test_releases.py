from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.stack import Stack
from schemas.errors import ContractError, Reason, SettingsError
from schemas.records import encode_confluent
from schemas.topics import RELEASES
from scoring.bundle import Bundle
from transport.kafka import KafkaSettings, Outgoing, ensure_topics, publish, register_schemas
from transport.releases import (
    BrokenRelease,
    Release,
    ReleaseFollower,
    newest_release,
    publish_release,
    release_key,
)

pytestmark = pytest.mark.integration

SMALL = Path(__file__).parent.parent / "scoring" / "data" / "small.motorcade"
POLLS_MAX = 200


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


def polled(follower: ReleaseFollower) -> Iterator[Release]:
    """What comes out, one by one, for a bounded number of polls."""
    for _ in range(POLLS_MAX):
        yield from follower.poll(0.1)


def test_a_release_is_read_back_as_it_was(kafka: KafkaSettings) -> None:
    publish_release(kafka, named("read-back"))
    assert newest_release(kafka, "read-back") == named("read-back")
    assert newest_release(kafka, "never-published") is None


def test_a_follower_begins_with_the_newest_and_goes_on(kafka: KafkaSettings) -> None:
    for version in ("1", "2", "3"):
        publish_release(kafka, named("follow", version))
    publish_release(kafka, named("other", "9"))
    with ReleaseFollower(kafka, "follow") as follower:
        found = polled(follower)
        assert next(found) == named("follow", "3")
        publish_release(kafka, named("other", "10"))
        publish_release(kafka, named("follow", "4"))
        assert next(found) == named("follow", "4")
        publish_release(kafka, named("follow", "2"))
        assert next(found) == named("follow", "2")


def test_a_follower_waits_for_the_first_release(kafka: KafkaSettings) -> None:
    with ReleaseFollower(kafka, "later") as follower:
        assert follower.poll(0.1) == []
        publish_release(kafka, named("later"))
        assert next(polled(follower)) == named("later")


def test_broken_releases_come_with_what_a_dead_letter_needs(kafka: KafkaSettings) -> None:
    good = named("broken", "1")
    publish_raw(kafka, named("broken", "0"), lambda value: value[:40])
    publish_release(kafka, good)
    tampered = named("broken", "2")
    publish_raw(kafka, Bundle(tampered.manifest, good.model[:-1] + b"?"), bytes)
    with ReleaseFollower(kafka, "broken") as follower:
        found = polled(follower)
        refused = next(found)
        assert isinstance(refused, BrokenRelease)
        assert refused.error.reason is Reason.MODEL_HASH
        assert (refused.key, refused.headers) == (b"broken/2", (("who", b"test"),))
        # The broken one before the newest sound one is history.
        assert next(found) == good
        publish_raw(kafka, named("broken", "3"), lambda value: b"\x00\xff\xff\xff\xff" + value[5:])
        publish_raw(kafka, named("broken", "4"), lambda value: b"junk")
        reasons = []
        for _ in range(2):
            refused = next(found)
            assert isinstance(refused, BrokenRelease)
            reasons.append(refused.error.reason)
        assert reasons == [Reason.UNKNOWN_SCHEMA_ID, Reason.NOT_AVRO]
        assert refused.payload == b"junk"


def test_a_broken_bundle_is_not_published(kafka: KafkaSettings) -> None:
    bundle = named("unsound")
    with pytest.raises(ContractError) as refused:
        publish_release(kafka, Bundle(bundle.manifest, bundle.model + b"!"))
    assert refused.value.reason is Reason.MODEL_HASH
    assert newest_release(kafka, "unsound") is None


def test_without_kafka_a_follower_gives_nothing_and_says_why() -> None:
    nowhere = KafkaSettings(bootstrap_servers="127.0.0.1:1", registry_url="http://127.0.0.1:1")
    with ReleaseFollower(nowhere, "any") as follower:
        assert follower.poll(0.05) == []
        assert follower.last_error is not None
        assert follower.poll(0.05) == []


def test_a_refusal_by_kafka_is_no_silence() -> None:
    bad = KafkaSettings(registry_url="no address")
    with ReleaseFollower(bad, "any") as follower, pytest.raises(SettingsError, match="registry"):
        follower.poll(0.05)
