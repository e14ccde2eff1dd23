"""How what scoring comes to reaches the disk: together with how far it has come.

An alert is written at once. What can wait, such as the sample of scores, is held for HELD_S, and
as long as any of it is held the scored position does not move on disk, be it by hint: a crash then
scores the same rows again and comes to the same records. So each is written once, and costs no
commit of its own.
"""

import time
from collections.abc import Callable, Sequence

from edge.marks import Mark
from edge.patience import Patience
from edge.rows import AlertState, Priority
from edge.spool import Spool

HELD_S = 5.0
HELD_MAX = 500
"""Records held at most; then they are written."""


class Settling:
    """Writes alerts, other records and the scored position. Belongs to the scoring thread.

    Args:
        spool: Where to.
        patience: Waits for a disk that refuses.
        monotonic_s: Source of elapsed time.
    """

    def __init__(
        self,
        spool: Spool,
        patience: Patience,
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spool = spool
        self._patience = patience
        self._monotonic_s = monotonic_s
        self._position = spool.marks[Mark.SCORED]
        self._held: list[Priority] = []
        self._due_s = 0.0

    def settle(
        self,
        position: int,
        letters: Sequence[Priority],
        *,
        alerts: Sequence[Priority] = (),
        states: Sequence[AlertState] = (),
    ) -> None:
        """All up to `position` is scored.

        Args:
            position: Of the last row of telemetry that was scored.
            letters: Records that may wait.
            alerts: Records that may not.
            states: The newest state of each of those alerts.

        Raises:
            GaveUpError: Stopped while the disk refused.
            SpoolDamagedError: The spool is broken.
        """
        if letters and not self._held:
            self._due_s = self._monotonic_s() + HELD_S
        self._held += letters
        self._position = position
        if alerts or len(self._held) >= HELD_MAX:
            self._write(alerts, states)
        elif not self._held:
            self._spool.marks.note(Mark.SCORED, position)
        else:
            self.tick()

    def tick(self) -> None:
        """Write what has been held for long enough. Raises as `settle`."""
        if self._held and self._monotonic_s() >= self._due_s:
            self.flush()

    def flush(self) -> None:
        """Write what is held. Raises as `settle`."""
        if self._held:
            self._write((), ())

    def _write(self, alerts: Sequence[Priority], states: Sequence[AlertState]) -> None:
        self._patience.until_done(
            "storing alerts and scores",
            lambda: self._spool.store_alerts([*alerts, *self._held], states, scored=self._position),
        )
        self._held.clear()
