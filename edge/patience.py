"""Writing to a disk that may refuse for a while: try again, say so, never go on without."""

import random
import threading
from collections.abc import Callable

from edge.health import Health
from edge.spool import SpoolError
from transport.backoff import backoff_s

WAIT_MIN_S = 0.1
WAIT_MAX_S = 10.0


class GaveUpError(SpoolError):
    """The gateway was stopped while the disk still refused. Nothing was stored."""


class Patience:
    """Repeats a write until the disk takes it.

    Args:
        stop: Ends the waiting.
        health: Told while the disk refuses.
        rng: For jitter.
    """

    def __init__(self, stop: threading.Event, health: Health, rng: random.Random) -> None:
        self._stop = stop
        self._health = health
        self._rng = rng

    def until_done(self, what: str, write: Callable[[], object]) -> None:
        """Call `write` until it does not raise SpoolError.

        Args:
            what: For the log, e.g. 'storing telemetry'.
            write: All or nothing.

        Raises:
            GaveUpError: Stopped meanwhile.
            SpoolDamagedError: No use in trying again.
        """
        attempt = 0
        while True:
            try:
                write()
            except SpoolError as error:
                self._health.spool = str(error)
                self._health.disk_refusals += 1
                self._health.announcer.warn(f"spool {what}", f"{what}: {error}; trying again")
                self._wait(attempt, error)
                attempt += 1
            else:
                if attempt:
                    self._health.spool = "ok"
                return

    def _wait(self, attempt: int, error: SpoolError) -> None:
        wait_s = backoff_s(attempt, minimum_s=WAIT_MIN_S, maximum_s=WAIT_MAX_S, rng=self._rng)
        if self._stop.wait(wait_s):
            raise GaveUpError(str(error)) from error
