"""Log lines that an outage overnight cannot multiply, and a memory of what was the matter.

Each kind of thing is said at once, then after QUIET_MIN_S, and the longer it goes on the more
seldom, up to QUIET_MAX_S; whoever was quiet for as long as that is heard at once again. Over all
kinds a bucket of BURST lines fills by LINES_AN_HOUR, and a line has LINE_CHARACTERS_MAX. So what a
gateway can write is bounded, whatever happens to it: see `lines_at_most`.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

QUIET_MIN_S = 60.0
QUIET_MAX_S = 3_600.0
KINDS_MAX = 256
BURST = 200
LINES_AN_HOUR = 60
LINE_CHARACTERS_MAX = 1_000
PROBLEMS_KEPT = 20

LOGGER = logging.getLogger("motorcade.edge")


def lines_at_most(hours: float) -> float:
    """Lines that can be written in a time, whatever happens."""
    return BURST + LINES_AN_HOUR * hours


@dataclass(frozen=True, slots=True)
class Problem:
    """What was the matter.

    Attributes:
        kind: Of which there are few.
        text: As last told.
        time_ms: Wall time of the last one.
        count: How many there were since the gateway began.
    """

    kind: str
    text: str
    time_ms: int
    count: int


@dataclass(slots=True)
class _Spoken:
    """How often a kind may be heard: pure, given the time."""

    said_s: float = float("-inf")
    happened_s: float = float("-inf")
    quiet_s: float = 0.0
    unsaid: int = 0

    def may_speak(self, now_s: float) -> bool:
        """It happened once more; whether that is to be said."""
        if now_s - self.happened_s > max(self.quiet_s, QUIET_MIN_S):
            self.quiet_s = 0.0
        self.happened_s = now_s
        return now_s - self.said_s >= self.quiet_s

    def spoke(self, now_s: float) -> int:
        """It is said; how many were not said before."""
        unsaid, self.unsaid = self.unsaid, 0
        self.said_s = now_s
        self.quiet_s = min(max(2 * self.quiet_s, QUIET_MIN_S), QUIET_MAX_S)
        return unsaid


class Announcer:
    """Says each kind of thing at once, and then ever more seldom with a count.

    Safe for several threads. Kinds are few and fixed; beyond KINDS_MAX the oldest is forgotten.

    Args:
        monotonic_s: Source of elapsed time.
        wall_ms: Wall time, for the memory of problems.
    """

    def __init__(
        self,
        monotonic_s: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._monotonic_s = monotonic_s
        self._wall_ms = wall_ms
        self._lock = threading.Lock()
        self._spoken: dict[str, _Spoken] = {}
        self._problems: dict[str, Problem] = {}
        self._left = float(BURST)
        self._filled_s = monotonic_s()

    def warn(self, kind: str, text: str) -> None:
        """Something is in the way."""
        self._remember(kind, text)
        self._say(logging.WARNING, kind, text)

    def info(self, kind: str, text: str) -> None:
        """Something is worth knowing."""
        self._say(logging.INFO, kind, text)

    def problems(self) -> list[Problem]:
        """The last kinds of warnings, the newest first; PROBLEMS_KEPT at most."""
        with self._lock:
            return list(reversed(self._problems.values()))

    def take(self, kind: str) -> int | None:
        """Whether a line of this kind may be written now, by whomever.

        Returns:
            How many of its like were left out before; None where this one is to be left out.
        """
        with self._lock:
            now_s = self._monotonic_s()
            spoken = self._spoken.setdefault(kind, _Spoken())
            if len(self._spoken) > KINDS_MAX:
                del self._spoken[next(iter(self._spoken))]
            if spoken.may_speak(now_s) and self._has_room(now_s):
                return spoken.spoke(now_s)
            spoken.unsaid += 1
            return None

    def _has_room(self, now_s: float) -> bool:
        """Take one line out of the bucket, if there is one."""
        filled = self._left + (now_s - self._filled_s) * LINES_AN_HOUR / 3_600.0
        self._left, self._filled_s = min(float(BURST), filled), now_s
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def _remember(self, kind: str, text: str) -> None:
        with self._lock:
            before = self._problems.pop(kind, None)
            count = 1 if before is None else before.count + 1
            text = text[:LINE_CHARACTERS_MAX]
            self._problems[kind] = Problem(kind, text, self._wall_ms(), count)
            if len(self._problems) > PROBLEMS_KEPT:
                del self._problems[next(iter(self._problems))]

    def _say(self, level: int, kind: str, text: str) -> None:
        unsaid = self.take(kind)
        if unsaid is None:
            return
        more = f" ({unsaid} more like it)" if unsaid else ""
        LOGGER.log(level, "%s%s", text[:LINE_CHARACTERS_MAX], more)


class Bounded(logging.Filter):
    """Lets lines of other modules and of libraries through as an Announcer would.

    Put it on a handler. What they say is of one kind where logger and form of the message are one.

    Args:
        announcer: Whose bucket they draw on.
    """

    def __init__(self, announcer: Announcer) -> None:
        super().__init__()
        self._announcer = announcer

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is written; cuts it."""
        if record.name == LOGGER.name:
            return True
        unsaid = self._announcer.take(f"{record.name}: {str(record.msg)[:100]}")
        if unsaid is None:
            return False
        more = f" ({unsaid} more like it)" if unsaid else ""
        record.msg, record.args = record.getMessage()[:LINE_CHARACTERS_MAX] + more, None
        return True
