"""The thread that follows the catalog, where it cannot."""

import time

import pytest

from cloud.catalog_watch import CatalogWatch
from schemas.errors import SettingsError
from transport.settings import KafkaSettings


def test_what_cannot_work_comes_out_of_the_next_look() -> None:
    with CatalogWatch(KafkaSettings("127.0.0.1:1", "no address"), ["anomaly"]) as watch:
        with pytest.raises(SettingsError, match="registry_url"):
            watch.poll(30)
        with pytest.raises(SettingsError):
            watch.poll(0)


def test_what_is_away_is_waited_for_without_holding_anybody_up() -> None:
    with CatalogWatch(KafkaSettings("127.0.0.1:1", "http://127.0.0.1:1"), ["anomaly"]) as watch:
        news = watch.poll(0.05)
        assert (news.changed, news.broken, news.ready) == (False, [], False)
        began_s = time.monotonic()
        for _ in range(1000):
            watch.poll(0)
        assert time.monotonic() - began_s < 30
