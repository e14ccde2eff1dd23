"""A member of a consumer group that reads committed records, with our errors.

Hot path: `consume` looks at each message once, for its error flag, and otherwise hands on the
library's list.
"""

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, NewType, Self

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from schemas.errors import TransientError
from transport.kafka.config import Config, consumer_config
from transport.kafka.faults import Kind, kind_of, translate, translated
from transport.settings import KafkaSettings

Partition = tuple[str, int]
"""Topic and partition."""

Offsets = Mapping[Partition, int]

GroupMetadata = NewType("GroupMetadata", object)
"""Who a member is in which generation of its group; fences a member that was put out of it."""

OnPartitions = Callable[[list[Partition]], None]
OnAssign = Callable[[list[Partition]], Offsets]


class LogConsumer:
    """Reads topics as one of a group, from offsets that its caller says.

    Not safe for use from several threads at once, except for `group_metadata` and `commit`.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._consumer: Consumer | None = None

    def start(self) -> None:
        """Make the client. Does not talk to Kafka yet.

        Raises:
            SettingsError: The client refuses its configuration.
        """
        with translated():
            self._consumer = Consumer(self._config)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def client(self) -> Consumer:
        """The library's consumer, for what this class does not do."""
        if self._consumer is None:
            raise TransientError("the consumer was not started, or is closed")
        return self._consumer

    def close(self) -> None:
        """Leave the group and drop the client; may call `on_revoke`. Harmless when repeated."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            with translated():
                consumer.close()

    def subscribe(
        self,
        topics: list[str],
        *,
        on_assign: OnAssign,
        on_revoke: OnPartitions,
        on_lost: OnPartitions,
    ) -> None:
        """Take part in the group (eager protocol: each rebalance takes all and gives all).

        The call-backs run inside `consume` and `close`, on their thread; what they raise comes
        out of there.

        Args:
            topics: What to read.
            on_assign: Given the new partitions; answers the offset to read each from. Those
                that it leaves out start at the committed offset.
            on_revoke: Partitions are about to go to others; their work may still be committed.
            on_lost: Partitions have gone to others; a commit for them fails.
        """

        def assign(_: Consumer, partitions: list[TopicPartition]) -> None:
            offsets = on_assign(_plain(partitions))
            for partition in partitions:
                partition.offset = offsets.get(
                    (partition.topic, partition.partition), partition.offset
                )
            with translated():
                self.client.assign(partitions)

        with translated():
            self.client.subscribe(
                topics,
                on_assign=assign,
                on_revoke=lambda _, partitions: on_revoke(_plain(partitions)),
                on_lost=lambda _, partitions: on_lost(_plain(partitions)),
            )

    def consume(self, messages_max: int, timeout_s: float) -> "list[Message]":
        """The next messages: at most `messages_max`, after at most `timeout_s` fewer or none.

        Order within a partition is that of the log. A partition's offsets may have gaps.

        Raises:
            SettingsError: Kafka refuses this client.
            TransientError, FencedError: As the table says. What was taken before the error in
                the same call is lost to the caller, who must seek to where the work was
                committed. Disconnections are no errors: the client goes on by itself.
        """
        with translated():
            messages = self.client.consume(messages_max, timeout_s)
        if any(map(Message.error, messages)):
            return _without_events(messages)
        return messages

    def seek(self, offsets: Offsets) -> None:
        """Go on at these offsets; the partitions must be assigned."""
        with translated():
            for (topic, partition), offset in offsets.items():
                self.client.seek(TopicPartition(topic, partition, offset))

    def assign(self, offsets: Offsets) -> None:
        """Read these partitions from these offsets, without a group."""
        with translated():
            self.client.assign([TopicPartition(t, p, o) for (t, p), o in offsets.items()])

    def pause(self, partitions: Iterable[Partition]) -> None:
        """Stop delivering these until `resume`; `consume` goes on serving the group."""
        with translated():
            self.client.pause([TopicPartition(t, p) for t, p in partitions])

    def resume(self, partitions: Iterable[Partition]) -> None:
        """Deliver these again."""
        with translated():
            self.client.resume([TopicPartition(t, p) for t, p in partitions])

    def committed(
        self, partitions: Iterable[Partition], timeout_s: float = 30.0
    ) -> dict[Partition, int | None]:
        """The group's committed offsets; None where it has none.

        Waits while a transaction of a former member is still open on them.

        Raises:
            TransientError: No answer in time.
        """
        wanted = [TopicPartition(t, p) for t, p in partitions]
        with translated():
            found = self.client.committed(wanted, timeout=timeout_s)
        for partition in found:
            if partition.error is not None:
                raise translate(partition.error)
        return {
            (each.topic, each.partition): each.offset if each.offset >= 0 else None
            for each in found
        }

    def commit(self, offsets: Offsets, *, wait: bool) -> None:
        """Move the group's offsets; with none to move nothing is called.

        Args:
            offsets: Next offset to read of each partition.
            wait: Until the brokers have them. Otherwise a commit that fails is made good by the
                next one, which covers it.

        Raises:
            TransientError: Waiting, and the member is out of the group, or no answer came.
        """
        if not offsets:
            return
        wanted = [TopicPartition(t, p, offset) for (t, p), offset in offsets.items()]
        with translated():
            if not wait:
                self.client.commit(offsets=wanted, asynchronous=True)
                return
            found = self.client.commit(offsets=wanted, asynchronous=False)
        for partition in found:
            if partition.error is not None:
                raise translate(partition.error)

    def watermarks(self, partition: Partition, timeout_s: float = 30.0) -> tuple[int, int]:
        """First offset, and the one behind the last committed record, of a partition.

        Raises:
            TransientError: No answer in time.
        """
        with translated():
            found = self.client.get_watermark_offsets(TopicPartition(*partition), timeout=timeout_s)
        if found is None:
            raise TransientError(f"Kafka did not tell the offsets of {partition} in time")
        return found

    def known_end(self, partition: Partition) -> int:
        """The end of an assigned partition as last heard with its data; 0 before that."""
        with translated():
            found = self.client.get_watermark_offsets(TopicPartition(*partition), cached=True)
        return max(0, found[1]) if found else 0

    def offsets_at(
        self, times_ms: Mapping[Partition, int], timeout_s: float = 30.0
    ) -> dict[Partition, int | None]:
        """First offset whose record time is at least this; None where there is none yet.

        Raises:
            TransientError: No answer in time.
        """
        wanted = [TopicPartition(t, p, time_ms) for (t, p), time_ms in times_ms.items()]
        with translated():
            found = self.client.offsets_for_times(wanted, timeout=timeout_s)
        for partition in found:
            if partition.error is not None:
                raise translate(partition.error)
        return {
            (each.topic, each.partition): each.offset if each.offset >= 0 else None
            for each in found
        }

    def group_metadata(self) -> GroupMetadata:
        """For `TransactionalProducer.send_offsets`: who this member is right now."""
        with translated():
            return GroupMetadata(self.client.consumer_group_metadata())


def make_consumer(settings: KafkaSettings, group_id: str, **options: Any) -> LogConsumer:
    """A member of the group; `options` are the library's, with `_` for `.`.

    Example:
        >>> consumer = make_consumer(KafkaSettings(), "readers", session_timeout_ms=10_000)
    """
    return LogConsumer(consumer_config(settings, group_id) | dotted(options))


def dotted(options: Mapping[str, Any]) -> Config:
    """Options as keyword arguments to the library's names.

    Example:
        >>> dotted({"fetch_wait_max_ms": 10})
        {'fetch.wait.max.ms': 10}
    """
    return {name.replace("_", "."): value for name, value in options.items()}


def _plain(partitions: list[TopicPartition]) -> list[Partition]:
    return [(each.topic, each.partition) for each in partitions]


# The client reports these while it recovers by itself; the caller has nothing to do.
_EVENTS = frozenset(
    {
        KafkaError._PARTITION_EOF,
        KafkaError._MAX_POLL_EXCEEDED,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TRANSPORT,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT,
    }
)


def _without_events(messages: "list[Message]") -> "list[Message]":
    """The messages proper. Raises for an error that the client does not recover from."""
    good = []
    for message in messages:
        error = message.error()
        if error is None:
            good.append(message)
        elif is_final(error):
            raise translate(error)
    return good


def is_final(error: KafkaError) -> bool:
    """Whether the client does not recover from it by itself."""
    if error.fatal():
        return True
    return error.code() not in _EVENTS and kind_of(error.code()) is not Kind.TRANSIENT
