"""Log lines that an outage overnight cannot multiply."""

import logging
import threading
import time
from collections.abc import Callable

QUIET_S = 60.0
TOPICS_MAX = 256

LOGGER = logging.getLogger("motorcade.edge")


class Announcer:
    """Says each kind of thing at once, and then at most once in QUIET_S with a count.

    Safe for several threads. Kinds are few and fixed; beyond TOPICS_MAX the oldest is forgotten.

    Args:
        monotonic_s: Source of elapsed time.
    """

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._lock = threading.Lock()
        self._said: dict[str, tuple[float, int]] = {}

    def warn(self, kind: str, text: str) -> None:
        """Something is in the way."""
        self._say(logging.WARNING, kind, text)

    def info(self, kind: str, text: str) -> None:
        """Something is worth knowing."""
        self._say(logging.INFO, kind, text)

    def _say(self, level: int, kind: str, text: str) -> None:
        with self._lock:
            last_s, unsaid = self._said.get(kind, (-QUIET_S, 0))
            now_s = self._monotonic_s()
            if now_s - last_s < QUIET_S:
                self._said[kind] = (last_s, unsaid + 1)
                return
            self._said[kind] = (now_s, 0)
            if len(self._said) > TOPICS_MAX:
                del self._said[next(iter(self._said))]
        LOGGER.log(level, "%s%s", text, f" ({unsaid} more like it)" if unsaid else "")
