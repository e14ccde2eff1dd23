"""Settings that change while a gateway runs: whole or not at all."""

import dataclasses
from pathlib import Path

import pytest

from edge.health import Health
from edge.reload import GatewayConfig, LiveSettings, Reloader, plan
from edge.settings import GatewaySettings
from schemas.errors import SettingsError
from transport.limits import live_keys
from transport.settings import KafkaSettings, MetricsSettings, MqttSettings

OLD = GatewayConfig(GatewaySettings(), MqttSettings(), KafkaSettings())


def other(**changes: object) -> GatewayConfig:
    return dataclasses.replace(OLD, gateway=dataclasses.replace(OLD.gateway, **changes))  # type: ignore[arg-type]


class File:
    """What a settings file says at the moment."""

    def __init__(self) -> None:
        self.says: GatewayConfig | SettingsError = OLD
        self.live = LiveSettings.of(OLD.gateway)
        self.health = Health()
        self.reloader = Reloader(self.live, OLD.mqtt, OLD.kafka, load=self.load, health=self.health)

    def load(self) -> GatewayConfig:
        if isinstance(self.says, SettingsError):
            raise self.says
        return self.says


def test_nothing_new_changes_nothing() -> None:
    changes = plan(OLD, OLD)
    assert (dict(changes.live), changes.needs_restart) == ({}, ())


def test_a_plan_parts_what_may_change_from_what_may_not() -> None:
    new = GatewayConfig(
        dataclasses.replace(OLD.gateway, group_commit_ms=0, spool_path=Path("elsewhere")),
        dataclasses.replace(OLD.mqtt, host="other"),
        dataclasses.replace(OLD.kafka, compression="lz4"),
    )
    changes = plan(OLD, new)
    assert changes.live == {"group_commit_ms": 0}
    assert changes.needs_restart == ("gateway.spool_path", "mqtt.host", "kafka.compression")


def test_what_stands_around_a_gateway_waits_for_a_restart() -> None:
    before = dataclasses.replace(OLD, beside=(("metrics", MetricsSettings()),))
    after = dataclasses.replace(OLD, beside=(("metrics", MetricsSettings(port=9_100)),))
    assert plan(before, after).needs_restart == ("metrics.port",)
    assert plan(before, before).needs_restart == ()


def test_what_could_lose_data_or_an_identity_is_never_live() -> None:
    fixed = {"gateway_id", "spool_path", "models_path", "control_path", "shared_group"}
    assert not fixed & live_keys(GatewaySettings)


def test_a_reload_takes_effect_where_the_settings_are_asked() -> None:
    file = File()
    file.says = other(group_commit_ms=0, backlog_rate=1.0, gateway_id="new")
    file.reloader.reload()
    assert (file.live.group_commit_ms, file.live.backlog_rate) == (0, 1.0)
    assert file.live.gateway_id == OLD.gateway.gateway_id
    assert file.reloader.status() == {
        "reloads": 1,
        "refused": None,
        "needs_restart": ["gateway.gateway_id"],
    }
    file.says = OLD
    file.reloader.reload()
    assert file.live.now == OLD.gateway
    assert file.reloader.status()["needs_restart"] == []


@pytest.mark.parametrize(
    "wrong", [SettingsError("motorcade.toml:3: no"), other(group_commit_ms=9_999, backlog_rate=1.0)]
)
def test_a_file_that_is_wrong_is_refused_whole(wrong: GatewayConfig | SettingsError) -> None:
    file = File()
    file.says = wrong
    with pytest.raises(SettingsError):
        file.reloader.reload()
    assert file.live.now == OLD.gateway
    assert file.reloader.status()["refused"]
    assert file.health.announcer.problems()[0].kind == "reload refused"
    file.says = other(backlog_rate=2.0)
    file.reloader.reload()
    assert file.live.backlog_rate == 2.0
    assert file.reloader.status()["refused"] is None


def test_without_a_file_there_is_nothing_to_reload() -> None:
    reloader = Reloader(
        LiveSettings.of(OLD.gateway), OLD.mqtt, OLD.kafka, load=None, health=Health()
    )
    with pytest.raises(SettingsError, match="without a file"):
        reloader.reload()
