"""A writer without transactions: each record at least once, and sooner.

It has the shape of `TransactionalProducer`, so that the same loop writes with either. Offsets move
once every record before them is stored; whoever dies between the two leaves records that are
written again.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from schemas.errors import TransientError
from transport.kafka.config import producer_config
from transport.kafka.consumer import GroupMetadata, Partition, dotted
from transport.kafka.faults import AbortNeededError, translate, translated
from transport.kafka.producer import RecordWriter
from transport.settings import KafkaSettings


class AtLeastOnceProducer(RecordWriter):
    """Writes records, then moves the group's offsets.

    Args:
        settings: Where Kafka is.
        commit_offsets: Moves them and waits; by `LogConsumer.commit` of the member that read.
        options: The library's, with `_` for `.`.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        commit_offsets: Callable[[Mapping[Partition, int]], None],
        **options: Any,
    ) -> None:
        config = producer_config(settings) | {
            "on_delivery": self._on_delivery,
            "delivery.report.only.error": True,
            **dotted(options),
        }
        super().__init__(config)
        self._commit_offsets = commit_offsets
        self._offsets: dict[Partition, int] = {}
        self._failed: KafkaError | None = None

    def start(self, timeout_s: float = 30.0) -> None:
        """Make the client. Does not talk to Kafka yet."""
        self.close()
        with translated():
            self._producer = Producer(self._config)

    def begin(self) -> None:
        """What follows belongs together, up to `commit`."""
        self._offsets = {}

    def send_offsets(
        self, offsets: Mapping[Partition, int], group: GroupMetadata, *, timeout_s: float = 30.0
    ) -> None:
        """Offsets that move with the next `commit`."""
        self._offsets.update(offsets)

    def commit(self, timeout_s: float = 30.0) -> None:
        """Wait until every record is stored, then move the offsets.

        Raises:
            AbortNeededError: A record or the offsets were not stored: do the work again, which
                may write some records a second time.
            SettingsError, ContractError: As the table of errors says.
        """
        with translated():
            left = self.client.flush(timeout_s)
        failed, self._failed = self._failed, None
        if failed is not None:
            raise _again(translate(failed))
        if left:
            raise AbortNeededError(f"{left} records not stored in {timeout_s:g} s")
        try:
            self._commit_offsets(self._offsets)
        except TransientError as error:
            raise AbortNeededError(str(error)) from error

    def abort(self, timeout_s: float = 30.0) -> None:
        """Forget what is queued; what was stored stays."""
        with translated():
            self.client.purge()
            self.client.flush(timeout_s)
        self._failed = None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A block whose records are stored if it ends well. Raises as `commit`."""
        self.begin()
        yield
        self.commit()

    def _on_delivery(self, error: KafkaError | None, _: Message) -> None:
        if error is not None and self._failed is None:
            self._failed = error


def _again(error: Exception) -> Exception:
    """Transient errors as a call to do the work again."""
    return AbortNeededError(str(error)) if isinstance(error, TransientError) else error
