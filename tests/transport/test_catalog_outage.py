"""The follower of the catalog while topics are missing and Kafka goes and comes."""

from collections.abc import Callable

import pytest
from catalog_bundles import poll_until, small_release

from deploy.stack import Stack
from schemas.errors import SettingsError
from schemas.topics import CHUNKS, MODEL_EVENTS, RELEASES, TRAFFIC
from transport.catalog import CatalogFollower, write_traffic
from transport.kafka import KafkaSettings, ensure_topics
from transport.releases import publish_release

pytestmark = pytest.mark.integration


def promote(kafka: KafkaSettings, version: str) -> None:
    write_traffic(
        kafka,
        "m",
        lambda _, traffic: traffic.promoted(version, champion_now=None),
        by="test",
        reason="",
    )


def test_topics_come_late_and_kafka_goes_and_comes(fresh_stack: Callable[..., Stack]) -> None:
    stack = fresh_stack()
    kafka = KafkaSettings(stack.endpoints.kafka_bootstrap, stack.endpoints.registry_url)
    with CatalogFollower(kafka) as follower:
        assert not follower.poll(0.0).ready
        assert "no topic model.releases" in str(follower.last_error)

        ensure_topics(kafka, [RELEASES])
        publish_release(kafka, small_release("m", "1"))
        news = poll_until(follower, lambda news: news.ready)[-1]
        assert news.catalog.champion("m") == "1"
        with pytest.raises(SettingsError, match=r"no topic model.traffic, model.events"):
            promote(kafka, "1")

        ensure_topics(kafka, [TRAFFIC, CHUNKS, MODEL_EVENTS])
        publish_release(kafka, small_release("m", "2"))
        promote(kafka, "1")
        news = poll_until(follower, lambda news: news.catalog.traffic("m").champion == "1")[-1]
        assert news.catalog.versions("m") == ("1", "2")

        stack.kill_part("kafka")
        down = poll_until(follower, lambda _: follower.last_error is not None)
        assert all(each.catalog == news.catalog and each.ready for each in down)

        stack.start_part("kafka")
        publish_release(kafka, small_release("m", "3"))
        promote(kafka, "3")
        news = poll_until(follower, lambda news: news.catalog.champion("m") == "3")[-1]
        assert news.catalog.versions("m") == ("1", "2", "3")
        poll_until(follower, lambda _: follower.last_error is None)


def test_without_kafka_there_is_an_empty_catalog_and_a_reason() -> None:
    nowhere = KafkaSettings(bootstrap_servers="127.0.0.1:1", registry_url="http://127.0.0.1:1")
    with CatalogFollower(nowhere) as follower:
        for _ in range(2):
            news = follower.poll(0.05)
            assert not news.ready
            assert not news.changed
            assert news.catalog.names() == ()
        assert follower.last_error is not None
