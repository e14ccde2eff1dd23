"""The catalog as it is followed from a real log."""

import uuid

import numpy as np
import pytest
from catalog_bundles import large_release, poll_until, publish_head, small_release

from deploy.stack import Stack
from schemas.errors import Reason, TransientError
from schemas.records import encode_confluent
from schemas.topics import CHUNKS, RELEASES, TRAFFIC
from scoring.bundle import MODEL_BYTES_MAX
from scoring.scorer import BatchScorer
from scoring.traffic import Traffic
from transport.catalog import CatalogFollower, Limits, write_traffic
from transport.chunks import chunk_key, chunk_records
from transport.kafka import (
    KafkaSettings,
    LogConsumer,
    Message,
    Outgoing,
    ensure_topics,
    latest_offsets,
    publish,
    register_schemas,
)
from transport.release_records import CHUNKS_HEADER, release_key
from transport.releases import newest_release, publish_release

pytestmark = pytest.mark.integration

MB = 1_000_000


@pytest.fixture(scope="module")
def kafka(stack: Stack) -> KafkaSettings:
    settings = KafkaSettings(stack.endpoints.kafka_bootstrap, stack.endpoints.registry_url)
    ensure_topics(settings)
    return settings


@pytest.fixture
def name() -> str:
    return f"m-{uuid.uuid4().hex[:8]}"


def seed_of(name: str) -> int:
    """A model of this test's own, which a failure shows by its name."""
    return int(name[2:], 16)


def promote(kafka: KafkaSettings, name: str, version: str) -> Traffic:
    return write_traffic(
        kafka,
        name,
        lambda catalog, traffic: traffic.promoted(version, champion_now=catalog.champion(name)),
        by="test",
        reason="better",
    )


def test_releases_and_traffic_show_as_they_come(kafka: KafkaSettings, name: str) -> None:
    for version in ("1", "2"):
        publish_release(kafka, small_release(name, version))
    with CatalogFollower(kafka, {name}) as follower:
        first = poll_until(follower, lambda news: news.ready)[-1]
        assert first.changed
        assert first.catalog.versions(name) == ("1", "2")
        assert first.catalog.champion(name) == "2"
        assert follower.poll(0.0).changed is False
        assert promote(kafka, name, "1").generation == 1
        news = poll_until(follower, lambda news: news.changed)[-1]
        assert news.catalog.champion(name) == "1"
        publish_release(kafka, small_release(name, "3"))
        news = poll_until(follower, lambda news: news.changed)[-1]
        assert (news.catalog.champion(name), news.catalog.versions(name)[-1]) == ("1", "3")
        assert first.catalog.versions(name) == ("1", "2")


def test_tombstones_take_versions_and_traffic_away(kafka: KafkaSettings, name: str) -> None:
    for version in ("1", "2", "3"):
        publish_release(kafka, small_release(name, version))
    promote(kafka, name, "1")
    with CatalogFollower(kafka, {name}) as follower:
        poll_until(follower, lambda news: news.catalog.champion(name) == "1")
        publish(kafka, [Outgoing(RELEASES.name, None, release_key(name, "2"), 0)])
        poll_until(follower, lambda news: news.catalog.versions(name) == ("1", "3"))
        publish(kafka, [Outgoing(TRAFFIC.name, None, name.encode(), 0)])
        news = poll_until(follower, lambda news: news.catalog.champion(name) == "3")
        assert not any(each.broken for each in news)
    with CatalogFollower(kafka, {name}) as later:
        news = poll_until(later, lambda news: news.ready)
        assert (news[-1].catalog.versions(name), news[-1].broken) == (("1", "3"), [])


@pytest.mark.parametrize("size_bytes", [2 * MB + 1, MODEL_BYTES_MAX])
def test_a_model_too_large_for_a_record_comes_back_whole(
    kafka: KafkaSettings, name: str, size_bytes: int
) -> None:
    bundle = large_release(name, size_bytes=size_bytes)
    with CatalogFollower(kafka, {name}) as follower:
        poll_until(follower, lambda news: news.ready)
        publish_release(kafka, bundle)
        news = poll_until(follower, lambda news: news.changed)
        assert news[-1].catalog.bundle(name, "1") == bundle
        assert not any(each.broken for each in news)
    rows = np.full((3, len(bundle.manifest.features)), 50.0, np.float32)
    large, small = (BatchScorer(each).score(rows) for each in (bundle, small_release(name)))
    assert np.array_equal(large, small)
    assert newest_release(kafka, name) == bundle


def test_missing_chunks_are_said_once_and_healed_by_their_arrival(
    kafka: KafkaSettings, name: str
) -> None:
    publish_release(kafka, small_release(name, "0"))
    bundle = large_release(name, size_bytes=2 * MB, seed=seed_of(name))
    pieces = list(chunk_records(bundle.model, register_schemas(kafka, [CHUNKS]).id_of(CHUNKS)))
    with CatalogFollower(kafka, {name}) as follower:
        poll_until(follower, lambda news: news.ready)
        publish(kafka, pieces[:-1])
        publish_head(kafka, bundle, b"")
        news = poll_until(follower, lambda news: bool(news.broken))[-1]
        assert [each.error.reason for each in news.broken] == [Reason.MODEL_INVALID]
        assert "2 of 3 are there" in news.broken[0].error.detail
        assert news.catalog.versions(name) == ("0",)
        publish(kafka, pieces[-1:])
        after = poll_until(follower, lambda news: news.catalog.versions(name) == ("0", "1"))
        assert not any(each.broken for each in after)
        assert after[-1].catalog.bundle(name, "1") == bundle


def test_damaged_chunks_break_a_release_until_it_is_published_again(
    kafka: KafkaSettings, name: str
) -> None:
    bundle = large_release(name, size_bytes=2 * MB, seed=seed_of(name))
    other = large_release(name, size_bytes=2 * MB, seed=seed_of(name) + 1)
    chunk_id = register_schemas(kafka, [CHUNKS]).id_of(CHUNKS)
    pieces = list(chunk_records(bundle.model, chunk_id))
    foreign = list(chunk_records(other.model, chunk_id))[1]
    key = chunk_key(bundle.manifest.model_sha256, 1)
    publish(kafka, [pieces[0], Outgoing(CHUNKS.name, foreign.value, key, 0), pieces[2]])
    publish_head(kafka, bundle, b"")
    with CatalogFollower(kafka, {name}) as follower:
        news = poll_until(follower, lambda news: news.ready)[-1]
        assert "2 of 3 are there, 1 damaged" in news.broken[0].error.detail
        publish(kafka, [Outgoing(CHUNKS.name, b"junk", key, 0)])
        publish_release(kafka, bundle)
        after = poll_until(follower, lambda news: news.catalog.versions(name) == ("1",))
        assert not any(each.broken for each in after)


def test_chunks_are_found_although_the_head_points_behind_them(
    kafka: KafkaSettings, name: str
) -> None:
    bundle = large_release(name, size_bytes=2 * MB, seed=seed_of(name))
    publish(kafka, chunk_records(bundle.model, register_schemas(kafka, [CHUNKS]).id_of(CHUNKS)))
    end = latest_offsets(kafka, CHUNKS.name)[0]
    publish_head(kafka, bundle, b"", headers=((CHUNKS_HEADER, b"%d" % (end - 1)),))
    assert newest_release(kafka, name) == bundle


def test_a_broken_record_is_told_once_and_the_rest_goes_on(kafka: KafkaSettings, name: str) -> None:
    publish_release(kafka, small_release(name, "1"))
    with CatalogFollower(kafka, {name}) as follower:
        poll_until(follower, lambda news: news.ready)
        publish_head(kafka, small_release(name, "1"), b"", change=lambda value: value[:40])
        publish(kafka, [Outgoing(TRAFFIC.name, b"junk", name.encode(), 0)])
        publish_release(kafka, small_release(name, "2"))
        news = poll_until(follower, lambda news: news.catalog.versions(name) == ("1", "2"))
        news += poll_until(follower, lambda _: True)
        told = [each for one in news for each in one.broken]
        assert {each.topic: each.error.reason for each in told} == {
            RELEASES.name: Reason.TRUNCATED,
            TRAFFIC.name: Reason.NOT_AVRO,
        }
        assert len(told) == 2
        publish_head(kafka, small_release(name, "3"), b"", change=lambda value: value[:40])
        poll_until(follower, lambda news: bool(news.broken))
        follower.close()
        assert follower.poll(0.0).broken == []
        assert follower.last_error is None


def test_what_an_error_of_the_client_took_with_it_is_read_again(
    kafka: KafkaSettings, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_release(kafka, small_release(name, "1"))
    with CatalogFollower(kafka, {name}) as follower:
        poll_until(follower, lambda news: news.ready)
        consume = LogConsumer.consume
        lost: list[Message] = []

        def failing(consumer: LogConsumer, messages_max: int, timeout_s: float) -> list[Message]:
            found = consume(consumer, messages_max, timeout_s)
            if found and not lost:
                lost.extend(found)
                raise TransientError("the client went through something")
            return found

        monkeypatch.setattr(LogConsumer, "consume", failing)
        publish_release(kafka, small_release(name, "2"))
        poll_until(follower, lambda news: news.catalog.versions(name) == ("1", "2"))
        assert lost


def test_a_key_of_another_release_is_refused(kafka: KafkaSettings, name: str) -> None:
    with CatalogFollower(kafka, {name}) as follower:
        poll_until(follower, lambda news: news.ready)
        publish_release(kafka, small_release(name, "1"))
        schema_id = register_schemas(kafka, [RELEASES]).id_of(RELEASES)
        value = encode_confluent(RELEASES.record, schema_id, small_release(name, "2").to_record())
        publish(kafka, [Outgoing(RELEASES.name, value, release_key(name, "3"), 0)])
        news = poll_until(follower, lambda news: bool(news.broken))[-1]
        assert news.broken[0].error.reason is Reason.IDENTITY
        assert news.catalog.versions(name) == ("1",)


def test_what_fell_out_comes_back_when_traffic_names_it(kafka: KafkaSettings, name: str) -> None:
    for version in ("1", "2", "3", "4", "5"):
        publish_release(kafka, small_release(name, version))
    with CatalogFollower(kafka, {name}, limits=Limits(versions_max=2)) as follower:
        news = poll_until(follower, lambda news: news.ready)[-1]
        assert news.catalog.versions(name) == ("4", "5")
        assert follower.holds(name, "1")
        promote(kafka, name, "1")
        news = poll_until(follower, lambda news: news.changed)[-1]
        assert news.catalog.champion(name) == "1"
        assert news.catalog.versions(name) == ("1", "5")
        promote(kafka, name, "5")
        news = poll_until(follower, lambda news: news.changed)[-1]
        assert news.catalog.versions(name) == ("4", "5")
