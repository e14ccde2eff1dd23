"""Gathers requests on the event loop and has them scored together.

What arrived in one turn of the loop is scored in the next: no request waits for company unless
`delay_s` says so. A batch of many rows goes to the back room, a thread with scorers of its own, so
that the loop stays free for the others.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from cloud.serving.asks import RPC, Ask, Outcome, answer_all
from cloud.serving.backroom import BackRoom, fault
from cloud.serving.observer import ServingObserver
from cloud.serving.refusals import OverloadError
from cloud.serving.repository import RepositoryView
from schemas.errors import MotorcadeError

INLINE_ROWS = 1024
"""Rows that the loop scores by itself: about a tenth of a millisecond."""

Done = Callable[[Outcome], None]


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Bounds of the queue.

    Attributes:
        requests_max: Waiting requests; one more is refused.
        rows_max: Waiting rows; a request beyond it is refused, unless it would wait alone.
        delay_s: Longest wait of a request for others to be scored with; 0: none is added.
    """

    requests_max: int = 1024
    rows_max: int = 65_536
    delay_s: float = 0.0


class Batcher:
    """For the event loop's thread alone.

    Args:
        loop: The running loop.
        view: Of the loop's thread.
        back_room: Scores large batches.
        observer: Told what was scored.
        limits: Of the queue.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        view: RepositoryView,
        back_room: BackRoom,
        observer: ServingObserver,
        limits: BatchLimits,
    ) -> None:
        self._loop = loop
        self._view = view
        self._back_room = back_room
        self._observer = observer
        self._limits = limits
        self._waiting: list[tuple[Ask, Done]] = []
        self._rows = 0

    @property
    def waiting_rows(self) -> int:
        """Rows that wait for the next turn."""
        return self._rows

    def submit(self, ask: Ask, done: Done) -> None:
        """Have an ask answered; `done` is called on the loop, soon, never before this returns.

        Raises:
            OverloadError: Too many wait.
        """
        rows = len(ask.features)
        limits = self._limits
        waiting = self._waiting
        if waiting and (len(waiting) >= limits.requests_max or self._rows + rows > limits.rows_max):
            overload = OverloadError(f"{len(waiting)} requests with {self._rows} rows are waiting")
            self._observer.failed(ask.model, overload, deployment=RPC)
            raise overload
        ask.received_ns = ask.received_ns or time.monotonic_ns()
        if not waiting:
            self._schedule()
        waiting.append((ask, done))
        self._rows += rows

    async def answer(self, ask: Ask) -> Outcome:
        """As `submit`, for a coroutine. Raises OverloadError."""
        future: asyncio.Future[Outcome] = self._loop.create_future()

        def settle(outcome: Outcome) -> None:
            if not future.done():  # Else whoever waited went away.
                future.set_result(outcome)

        self.submit(ask, settle)
        return await future

    def _schedule(self) -> None:
        if self._limits.delay_s > 0:
            self._loop.call_later(self._limits.delay_s, self._flush)
        else:
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        rows, self._rows = self._rows, 0
        asks = [ask for ask, _ in waiting]
        if rows > INLINE_ROWS:
            self._send_back(asks, waiting)
            return
        try:
            outcomes: list[Outcome] | MotorcadeError = answer_all(self._view, asks, self._observer)
        except Exception as error:  # noqa: BLE001 - whoever asked must hear of it
            outcomes = fault(error)
        _hand_out(waiting, outcomes)

    def _send_back(self, asks: list[Ask], waiting: list[tuple[Ask, Done]]) -> None:
        try:
            self._back_room.submit(
                lambda view: answer_all(view, asks, self._observer), partial(_hand_out, waiting)
            )
        except OverloadError as overload:
            for ask in asks:
                self._observer.failed(ask.model, overload, deployment=RPC)
            _hand_out(waiting, overload)


def _hand_out(waiting: list[tuple[Ask, Done]], outcomes: list[Outcome] | MotorcadeError) -> None:
    """To each its own; one error is everybody's."""
    if isinstance(outcomes, MotorcadeError):
        outcomes = [outcomes] * len(waiting)
    for (_, done), outcome in zip(waiting, outcomes, strict=True):
        done(outcome)
