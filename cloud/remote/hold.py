"""What the rest of a scorer does while a model server is waited for."""

import threading
from typing import Protocol

from schemas.errors import MotorcadeError


class GivenUpError(MotorcadeError):
    """Nobody waits for the scores any more: the scorer is to stop, or the rows went to others."""


class Hold(Protocol):
    """Keeps a scorer alive while it waits."""

    def pump(self, wait_s: float, why: str) -> None:
        """Do what must go on, for about `wait_s`, and come back early if something happened.

        Args:
            wait_s: 0: only look.
            why: What is waited for, for people.

        Raises:
            GivenUpError: The scores are of no use any more.
        """

    def over(self) -> None:
        """The waiting has come to an end, one way or the other; harmless when repeated."""


class StopHold:
    """Waits until told to stop; for those who have nothing to keep alive."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def pump(self, wait_s: float, why: str) -> None:
        """As of `Hold`."""
        if self._stop.wait(wait_s):
            raise GivenUpError(f"told to stop while waiting: {why}")

    def over(self) -> None:
        """Nothing was begun."""
