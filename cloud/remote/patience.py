"""Asks a model server until it has answered: retries, jitter, circuit breaker, several at once.

What stands in the way for now (no answer, overload, a model that is not loaded yet) is waited for
without end: the `Hold` keeps the scorer in its group, says what is waited for, and ends the wait
when it has no use any more. What the server refuses, or answers wrongly, is asked again for
`refused_s`, for a server may be in the middle of an update; then it is a SettingsError, which
ends the scorer without moving an offset. So a request that a server can never answer neither
loops for ever nor is left out.
"""

import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TypeVar

from cloud.remote.asking import Answer, Ask, Asker
from cloud.remote.breaker import Breaker
from cloud.remote.hold import Hold
from cloud.remote.meter import ANSWERED, asked
from schemas.errors import ContractError, SettingsError, TransientError
from transport import metrics, tracing
from transport.backoff import full_jitter_s

SLICE_S = 0.1
"""Longest time without a look at whether the scorer is to stop."""

T = TypeVar("T")

Check = Callable[[Ask, Answer], None]
"""Raises ContractError where an answer does not fit its question."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How a server is asked again.

    Attributes:
        backoff_min_s: Span of the first pause.
        backoff_max_s: Greatest pause.
        refused_s: How long a refusal, or a wrong answer, is asked again before it is final.
    """

    backoff_min_s: float = 0.05
    backoff_max_s: float = 2.0
    refused_s: float = 60.0


@dataclass(slots=True)
class _Work:
    """Questions, and how far they are."""

    asks: Sequence[Ask]
    check: Check
    waiting: deque[int]
    flying: "dict[Future[Answer], int]" = field(default_factory=dict)
    answers: dict[int, Answer] = field(default_factory=dict)
    again_s: float = 0.0
    refused_s: dict[int, float] = field(default_factory=dict)
    trouble: str = "no answer yet"

    @property
    def is_open(self) -> bool:
        return len(self.answers) < len(self.asks)


class PatientAsker:
    """Asks one server. Not for use by two threads at once.

    Args:
        asker: The connection; started and closed here.
        hold: Told while the server is waited for.
        patience: How it is asked again.
        breaker: Of this server.
        rng: Source of the jitter.
    """

    def __init__(
        self,
        asker: Asker,
        hold: Hold,
        patience: Patience | None = None,
        *,
        breaker: Breaker | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.asker = asker
        self._hold = hold
        self._patience = patience or Patience()
        self._breaker = breaker or Breaker()
        self._rng = rng or random.Random()
        self._threads: ThreadPoolExecutor | None = None

    def start(self) -> None:
        """Get ready. Raises SettingsError."""
        self.asker.start()
        self._threads = ThreadPoolExecutor(self.asker.in_flight, "ask-model-server")

    def close(self) -> None:
        """Drop the connection. A request that cannot be called back ends with its time-out."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False, cancel_futures=True)
            self.asker.close()

    def ask_all(self, asks: Sequence[Ask], check: Check) -> list[Answer]:
        """The answers, in the order of the questions; waits for as long as it takes.

        Raises:
            GivenUpError: The hold says that nobody waits any more.
            SettingsError: The server refused one of them, or answered it wrongly, for too long.
        """
        work = _Work(asks, check, deque(range(len(asks))))
        try:
            while work.is_open:
                self._send(work)
                self._receive(work)
        finally:
            for future in work.flying:
                future.cancel()
            self._hold.over()
        return [work.answers[i] for i in range(len(asks))]

    def once(self, call: Callable[[], T]) -> T:
        """Does one thing on another thread, without trying again; the hold is pumped meanwhile.

        Raises:
            GivenUpError: As `ask_all`. Whatever the call raises.
        """
        future = self._pool.submit(call)
        try:
            while not future.done():
                wait([future], SLICE_S)
                self._hold.pump(0, f"model server {self.asker.address}: no answer yet")
        finally:
            future.cancel()
            self._hold.over()
        return future.result()

    @property
    def _pool(self) -> ThreadPoolExecutor:
        if self._threads is None:
            raise TransientError(f"the connection to {self.asker.address} is closed")
        return self._threads

    def _send(self, work: _Work) -> None:
        now_s = time.monotonic()
        if now_s < work.again_s:
            return
        room = self._breaker.in_flight(now_s, self.asker.in_flight) - len(work.flying)
        for _ in range(min(room, len(work.waiting))):
            index = work.waiting.popleft()
            future = self._pool.submit(self._ask, work.asks[index], tracing.current())
            work.flying[future] = index

    def _ask(self, ask: Ask, above: str | None) -> Answer:
        """Asks once, on a thread of the pool; below the span of whoever wants the scores."""
        began_s = time.monotonic()
        with tracing.below("scorer ask", above, server=self.asker.address, rows=len(ask.rows)):
            answer = self.asker.ask(ask)
        metrics.REMOTE_SECONDS.observe(time.monotonic() - began_s, target=self.asker.address)
        return answer

    def _receive(self, work: _Work) -> None:
        why = f"model server {self.asker.address}: {work.trouble}"
        if not work.flying:
            now_s = time.monotonic()
            pause_s = max(work.again_s - now_s, self._breaker.wait_s(now_s))
            self._hold.pump(min(SLICE_S, max(0.0, pause_s)), why)
            return
        done, _ = wait(work.flying, SLICE_S, FIRST_COMPLETED)
        for future in done:
            self._take(work, future, work.flying.pop(future))
        if not done:
            self._hold.pump(0, why)

    def _take(self, work: _Work, future: "Future[Answer]", index: int) -> None:
        try:
            answer = future.result()
            work.check(work.asks[index], answer)
        except TransientError as error:
            self._again(work, index, error)
            asked(self.asker.address, "failed", self._breaker)
        except ContractError as error:
            self._again(work, index, error)
            asked(self.asker.address, "refused", self._breaker)
            self._count_refusal(work, index, error)
        else:
            self._breaker.answered()
            asked(self.asker.address, ANSWERED, self._breaker)
            work.answers[index] = answer

    def _again(self, work: _Work, index: int, error: TransientError | ContractError) -> None:
        now_s = time.monotonic()
        self._breaker.failed(now_s)
        work.waiting.append(index)
        work.trouble = str(error)
        work.again_s = now_s + full_jitter_s(
            self._breaker.failures - 1,
            minimum_s=self._patience.backoff_min_s,
            maximum_s=self._patience.backoff_max_s,
            rng=self._rng,
        )

    def _count_refusal(self, work: _Work, index: int, error: ContractError) -> None:
        """Gives a request up that has been refused for too long. Raises SettingsError."""
        now_s = time.monotonic()
        if now_s - work.refused_s.setdefault(index, now_s) >= self._patience.refused_s:
            raise SettingsError(
                f"model server {self.asker.address} has refused rows that the model takes for "
                f"{self._patience.refused_s:g} s: {error.detail}; no offset was moved. Mend the "
                "server, or score with another --model"
            ) from error
