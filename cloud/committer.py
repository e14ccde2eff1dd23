"""Transactions one at a time, each finished on a thread of its own.

With a producer without transactions the same holds of its flushes; what is aborted may then be
written a second time.

While a transaction waits for the brokers, which lets go of the interpreter, the caller takes and
scores the next poll. There is never a second transaction before the first is through.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from threading import Thread
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from cloud.poll_trace import PollTrace
from transport.kafka import (
    AtLeastOnceProducer,
    GroupMetadata,
    Outgoing,
    Partition,
    ProducerLostError,
    TransactionalProducer,
)

COMMIT_TIMEOUT_S = 30.0

HUNG_AFTER_S = 75.0
"""Offsets and commit have 30 s each. The library's call can outlast its own time-out, so beyond
both, with a margin, its thread is left behind and the producer with it."""


class RecordBatch(Protocol):
    """Records for one topic, ready for `TransactionalProducer.produce_batch`."""

    @property
    def topic(self) -> str:
        """Where to."""

    @property
    def partition(self) -> int:
        """-1: by key."""

    @property
    def messages(self) -> list[dict[str, Any]]:
        """With `value`, and `key` where wanted."""


class Writable(Protocol):
    """What one poll leads to; written in one transaction, or not at all."""

    @property
    def scores(self) -> Sequence[RecordBatch]:
        """Records without headers, written first."""

    @property
    def others(self) -> Sequence[Outgoing]:
        """All others, in order."""

    @property
    def offsets(self) -> Mapping[Partition, int]:
        """Where to read on."""

    @property
    def trace(self) -> PollTrace:
        """Spans of the poll, which end with the commit."""


W = TypeVar("W", bound=Writable)


class Committer(Generic[W]):
    """Writes outcomes, each in a transaction with the offsets that it answers.

    Args:
        producer: Not started yet.
        on_committed: Told of each outcome that counts, on the caller's thread.
        commit_timeout_s: Longest wait for one commit; then the outcome is not known, and the
            producer lost.
    """

    def __init__(
        self,
        producer: TransactionalProducer | AtLeastOnceProducer,
        *,
        on_committed: Callable[[W], None],
        commit_timeout_s: float = COMMIT_TIMEOUT_S,
    ) -> None:
        self._producer = producer
        self._on_committed = on_committed
        self._timeout_s = commit_timeout_s
        self._pending: tuple[W, Future[None]] | None = None

    def __enter__(self) -> Self:
        """Take over the transactional id. Raises TransientError, SettingsError."""
        self._producer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Waits for what is under way; what is open then is left to the next start to abort."""
        if self._pending is not None:
            wait([self._pending[1]], HUNG_AFTER_S)
        self._producer.close()

    def submit(self, outcome: W, group: GroupMetadata) -> None:
        """Write an outcome once the one before is through.

        Args:
            outcome: What to write.
            group: The member at the time when the poll was taken.

        Raises:
            AbortNeededError: The one before, or this one, did not count; `abort`, and rebuild.
            ProducerLostError, FencedError: As of the producer.
        """
        self.settle()
        self._producer.begin()
        for records in outcome.scores:
            self._producer.produce_batch(
                records.topic, records.messages, partition=records.partition
            )
        for out in outcome.others:
            self._producer.produce(out)
        future: Future[None] = Future()
        self._pending = (outcome, future)
        Thread(
            target=self._finish, args=(outcome, group, future), name="scorer-commit", daemon=True
        ).start()

    @property
    def is_busy(self) -> bool:
        """Whether a transaction is under way."""
        return self._pending is not None and not self._pending[1].done()

    def settle(self) -> None:
        """Wait until nothing is under way. Raises as `submit`."""
        if self._pending is None:
            return
        outcome, future = self._pending
        self._pending = None
        try:
            future.result(HUNG_AFTER_S)
        except TimeoutError as error:
            raise ProducerLostError(f"no answer to a commit for {HUNG_AFTER_S:g} s") from error
        self._on_committed(outcome)

    def abort(self) -> None:
        """Make the transaction that failed never to have been. Raises ProducerLostError."""
        self._pending = None
        self._producer.abort()

    def write(self, records: Sequence[Outgoing]) -> None:
        """Write a few records in a transaction of their own. Raises as `submit`."""
        self.settle()
        with self._producer.transaction():
            for out in records:
                self._producer.produce(out)

    def _finish(self, outcome: W, group: GroupMetadata, future: Future[None]) -> None:
        try:
            with outcome.trace.producing():
                self._producer.send_offsets(outcome.offsets, group, timeout_s=self._timeout_s)
                self._producer.commit(self._timeout_s)
        except BaseException as error:  # noqa: BLE001 - raised again by `settle`
            future.set_exception(error)
        else:
            future.set_result(None)
