"""How a gateway is operated while it runs: asked, told, watched over.

    systemd ◄─ notify, watchdog ─┐
    control socket ◄─────────────┼─ Operations ◄─ pulse of the loops
    SIGHUP ─► reload ────────────┘

Belongs to the thread that keeps house, which calls `tick` some times a second.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edge.announce import Announcer
from edge.control import ControlServer, Handler
from edge.health import CONNECTED, Health
from edge.health_board import HealthBoard
from edge.notify import Notifier
from edge.reload import GatewayConfig, Reloader
from edge.settings import GatewaySettings
from schemas.errors import MotorcadeError

CONTROL_AGAIN_S = 10.0
STATUS_S = 10.0
FEED_S = 1.0
"""A watchdog that asks for less is fed as often as a third of what it waits."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the process around a gateway gives it.

    Attributes:
        load: Reads the settings again; None: there is nothing to read them from.
        beside: Section and settings of what it set up around the gateway, which only a restart
            can change.
        reload_asked: Set, by SIGHUP, when they are to be read again.
        notifier: Tells systemd.
        announcer: For lines in the log.
    """

    load: Callable[[], GatewayConfig] | None = None
    beside: tuple[tuple[str, Any], ...] = ()
    reload_asked: threading.Event = field(default_factory=threading.Event)
    notifier: Notifier = field(default_factory=Notifier)
    announcer: Announcer = field(default_factory=Announcer)


class Operations:
    """What is beside the way of the data.

    Args:
        settings: Of the gateway.
        around: The process.
        commands: What the control socket answers to beside `reload`.
        health: States, and the pulse of the loops.
        board: Shows health on MQTT.
        reloader: Takes new settings.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        around: Surroundings,
        commands: Mapping[str, Handler],
        *,
        health: Health,
        board: HealthBoard,
        reloader: Reloader,
    ) -> None:
        self._around = around
        self._notifier = around.notifier
        self._health = health
        self._board = board
        self._reloader = reloader
        self._control = ControlServer(
            settings.control_path,
            {**commands, "reload": lambda _: self._reload()},
            announcer=health.announcer,
        )
        self._listening = False
        self._control_due_s = 0.0
        self._feed_due_s = 0.0
        self._status_due_s = 0.0
        self._feed_s = min(FEED_S, (around.notifier.watchdog_s or FEED_S) / 3.0)

    def start(self) -> None:
        """Begin to listen; a disk that has no room for the socket is asked again later.

        Raises:
            SettingsError: The path of the socket cannot be used.
        """
        self._listen()

    def ready(self) -> None:
        """The gateway works; whether its brokers are there is another matter."""
        self._notify(self._notifier.ready)

    def tick(self) -> None:
        """What is due; quick."""
        now_s = time.monotonic()
        if not self._listening and now_s >= self._control_due_s:
            self._listen()
        if self._around.reload_asked.is_set():
            self._around.reload_asked.clear()
            self._reload_by_signal()
        if now_s >= self._feed_due_s:
            self._feed_due_s = now_s + self._feed_s
            self._feed()
        if now_s >= self._status_due_s:
            self._status_due_s = now_s + STATUS_S
            self._notify(lambda: self._notifier.status(summary(self._health)))
        self._board.tick()

    def leave(self) -> None:
        """The end has begun: answer no more, and say goodbye."""
        self._notify(self._notifier.stopping)
        self._control.close()
        self._board.leave()

    def close(self) -> None:
        """All is done."""
        self._notifier.close()

    def _listen(self) -> None:
        self._control_due_s = time.monotonic() + CONTROL_AGAIN_S
        try:
            self._control.start()
        except OSError as error:
            self._health.announcer.warn("control", f"no control socket for now: {error}")
        else:
            self._listening = True

    def _feed(self) -> None:
        """Feed the watchdog, unless a loop hangs."""
        hanging = self._health.pulse.hanging()
        if hanging:
            names = ", ".join(hanging)
            self._health.announcer.warn("hangs", f"hangs, so the watchdog is not fed: {names}")
            return
        self._notify(self._notifier.alive)

    def _reload_by_signal(self) -> None:
        try:
            self._reload()
        except MotorcadeError:
            return  # the reloader has told the log, and keeps it for the status

    def _reload(self) -> dict[str, Any]:
        self._notify(self._notifier.reloading)
        try:
            changes = self._reloader.reload()
        finally:
            self._notify(self._notifier.ready)
        live = {key: str(value) for key, value in changes.live.items()}
        return {"changed": live, "needs_restart": list(changes.needs_restart)}

    def _notify(self, tell: Callable[[], object]) -> None:
        try:
            tell()
        except OSError as error:
            self._health.announcer.warn("notify", f"systemd does not hear: {error}")


def summary(health: Health) -> str:
    """How it stands, in one line.

    Example:
        >>> summary(Health(uplink="connected", scoring="ok", model_version="7", received=12))
        'received 12, forwarded 0; uplink connected; model 7, scoring ok; spool ok'
    """
    uplink = "connected" if health.uplink == CONNECTED else f"away ({health.uplink})"
    return (
        f"received {health.received}, forwarded {health.forwarded}; uplink {uplink}; "
        f"model {health.model_version or 'none'}, scoring {health.scoring}; spool {health.spool}"
    )
