"""Settings that change while a gateway runs: taken whole or refused whole, and never eating data.

Which keys may change is declared at each key (`transport.limits.LIVE`). What needs a restart stays
as it was and is named, in the log and in the status, until the restart comes or it is put back.
"""

import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from edge.health import Health
from edge.settings import GatewaySettings
from schemas.errors import MotorcadeError, SettingsError
from transport.limits import live_keys
from transport.settings import KafkaSettings, MqttSettings


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """All that a settings file says of a gateway.

    Attributes:
        gateway: `[gateway]`.
        mqtt: `[mqtt]`.
        kafka: `[kafka]`.
        beside: Section and settings of what stands around a gateway, such as its metrics.
    """

    gateway: GatewaySettings
    mqtt: MqttSettings
    kafka: KafkaSettings
    beside: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Changes:
    """What is other in a new file.

    Attributes:
        live: Key of `[gateway]` to its new value, to take effect now.
        needs_restart: `section.key` of what stays as it was until a restart.
    """

    live: Mapping[str, Any] = field(default_factory=dict)
    needs_restart: tuple[str, ...] = ()


def plan(old: GatewayConfig, new: GatewayConfig) -> Changes:
    """What a new file changes now, and what only a restart can change. Pure."""
    live = live_keys(GatewaySettings)
    changed = dict(_differences(old.gateway, new.gateway))
    restart = [f"gateway.{key}" for key in changed if key not in live]
    restart += [f"mqtt.{key}" for key, _ in _differences(old.mqtt, new.mqtt)]
    restart += [f"kafka.{key}" for key, _ in _differences(old.kafka, new.kafka)]
    for (section, before), (_, after) in zip(old.beside, new.beside, strict=True):
        restart += [f"{section}.{key}" for key, _ in _differences(before, after)]
    return Changes({key: value for key, value in changed.items() if key in live}, tuple(restart))


def _differences(old: Any, new: Any) -> Iterator[tuple[str, Any]]:
    for key in dataclasses.fields(old):
        value = getattr(new, key.name)
        if value != getattr(old, key.name):
            yield key.name, value


class LiveSettings(GatewaySettings):
    """Settings of a gateway that runs. Loops ask for a key each time they need it.

    A key changes as a whole, but two keys may be seen with one of them still old; whoever needs
    several at once takes `now`.
    """

    __slots__ = ()

    @classmethod
    def of(cls, settings: GatewaySettings) -> Self:
        """A copy that can change."""
        return cls(**_values(settings))

    @property
    def now(self) -> GatewaySettings:
        """As they are at this moment; these stay."""
        return GatewaySettings(**_values(self))

    def take(self, changes: Mapping[str, Any]) -> None:
        """Change keys; only a Reloader does."""
        for key, value in changes.items():
            object.__setattr__(self, key, value)


def _values(settings: GatewaySettings) -> dict[str, Any]:
    return {key.name: getattr(settings, key.name) for key in dataclasses.fields(GatewaySettings)}


class Reloader:
    """Reads the settings again and lets them take effect. Safe for several threads.

    Args:
        settings: Of the gateway; changed here and nowhere else.
        mqtt: As the gateway was started.
        kafka: As the gateway was started.
        load: Reads file, environment and flags again; None: there is nothing to read.
        health: For the log.
        beside: What stood around the gateway when it was started.
        on_change: Told after a change, for what does not ask for a setting each time.
    """

    def __init__(
        self,
        settings: LiveSettings,
        mqtt: MqttSettings,
        kafka: KafkaSettings,
        *,
        load: Callable[[], GatewayConfig] | None,
        health: Health,
        beside: tuple[tuple[str, Any], ...] = (),
        on_change: Callable[[], object] = lambda: None,
    ) -> None:
        self._settings = settings
        self._beside = beside
        self._on_change = on_change
        self._mqtt = mqtt
        self._kafka = kafka
        self._load = load
        self._health = health
        self._lock = threading.Lock()
        self._refused: str | None = None
        self._needs_restart: tuple[str, ...] = ()
        self._reloads = 0

    def reload(self) -> Changes:
        """Take the file as it is now.

        Raises:
            SettingsError: It is refused, and the settings of before stay in force.
        """
        with self._lock:
            try:
                changes = self._plan()
            except MotorcadeError as error:
                self._refused = str(error)
                self._health.announcer.warn("reload refused", f"settings stay as they are: {error}")
                raise
            self._settings.take(changes.live)
            self._refused, self._needs_restart = None, changes.needs_restart
            self._reloads += 1
            if changes.live:
                self._on_change()
        self._tell(changes)
        return changes

    def status(self) -> dict[str, Any]:
        """How the last reload went."""
        return {
            "reloads": self._reloads,
            "refused": self._refused,
            "needs_restart": list(self._needs_restart),
        }

    def _plan(self) -> Changes:
        if self._load is None:
            raise SettingsError("this gateway was started without a file to read again")
        new = self._load()
        new.gateway.validate()
        old = GatewayConfig(self._settings.now, self._mqtt, self._kafka, self._beside)
        return plan(old, new)

    def _tell(self, changes: Changes) -> None:
        changed = ", ".join(f"{key} = {value}" for key, value in changes.live.items())
        self._health.announcer.info("reload", f"settings read again: {changed or 'none is new'}")
        if changes.needs_restart:
            waiting = ", ".join(changes.needs_restart)
            self._health.announcer.warn("restart needed", f"waiting for a restart: {waiting}")
