"""What one poll of telemetry brought, as arrays. Pure.

Hot path: two passes of C calls over the messages for offsets and partitions, one for values.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from transport.kafka import Message


@dataclass(frozen=True, slots=True)
class Poll:
    """Messages of one topic, in the order in which they came. N of them.

    Attributes:
        messages: As the consumer gave them.
        payloads: Their values; empty where a message has none.
        partition: Shape (N,).
        offset: Ascending within a partition. Shape (N,).
    """

    messages: Sequence[Message]
    payloads: list[bytes]
    partition: NDArray[np.int64]
    offset: NDArray[np.int64]

    @staticmethod
    def of(messages: Sequence[Message]) -> "Poll":
        """The arrays of what a consumer gave."""
        values = list(map(Message.value, messages))
        return Poll(
            messages=messages,
            payloads=[value or b"" for value in values],
            partition=np.array(list(map(Message.partition, messages)), np.int64),
            offset=np.array(list(map(Message.offset, messages)), np.int64),
        )

    def next_offsets(self) -> dict[int, int]:
        """Partition to the offset behind the last message of it."""
        if not len(self.offset):
            return {}
        last = np.append(np.flatnonzero(np.diff(self.partition)), len(self.partition) - 1)
        ends: dict[int, int] = {}
        for partition, offset in zip(
            self.partition[last].tolist(), self.offset[last].tolist(), strict=True
        ):
            ends[partition] = offset + 1
        return ends

    @property
    def payload_bytes(self) -> int:
        """Bytes of all payloads."""
        return sum(map(len, self.payloads))


@dataclass(slots=True)
class PollSize:
    """How many messages to take at once: a number of bytes, by the mean size of the last poll.

    Attributes:
        messages_max: Most messages.
        bytes_wanted: Bytes aimed at.
        messages: What to ask for next.
    """

    messages_max: int
    bytes_wanted: int
    messages: int = 1_000

    def learn(self, messages: int, payload_bytes: int) -> None:
        """Take in what a poll brought.

        Example:
            >>> size = PollSize(messages_max=20_000, bytes_wanted=24_000_000)
            >>> size.learn(1_000, 12_000_000)
            >>> size.messages
            2000
        """
        if not messages:
            return
        wanted = self.bytes_wanted * messages // max(payload_bytes, 1)
        self.messages = max(1, min(self.messages_max, wanted))
