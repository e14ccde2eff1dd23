"""How a gateway is operated while it runs: whoever may ask it, asks here."""

from collections.abc import Mapping
from pathlib import Path
from time import monotonic

from edge.control import ControlServer, Handler
from edge.health import Health

AGAIN_S = 10.0


class Operations:
    """Belongs to the thread that keeps house, which calls `tick`.

    Args:
        control_path: Where the control socket is made.
        commands: What it answers to.
        health: For the log.
    """

    def __init__(self, control_path: Path, commands: Mapping[str, Handler], health: Health) -> None:
        self._health = health
        self._control = ControlServer(control_path, commands, announcer=health.announcer)
        self._listening = False
        self._again_s = 0.0

    def start(self) -> None:
        """Begin to listen; a disk that has no room for the socket is asked again later.

        Raises:
            SettingsError: The path of the socket cannot be used.
        """
        self._listen()

    def tick(self) -> None:
        """What is due; quick."""
        if not self._listening and monotonic() >= self._again_s:
            self._listen()

    def close(self) -> None:
        """Answer no more."""
        self._control.close()

    def _listen(self) -> None:
        self._again_s = monotonic() + AGAIN_S
        try:
            self._control.start()
        except OSError as error:
            self._health.announcer.warn("control", f"no control socket for now: {error}")
        else:
            self._listening = True
