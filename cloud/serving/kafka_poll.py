"""What one poll of requests brought, and what is written for it. Pure.

Hot path: passes of C calls over the messages.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cloud.poll_trace import NO_TRACE, PollTrace
from cloud.polls import Poll
from transport.kafka import Message, Outgoing, Partition

Headers = Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class RequestPoll:
    """Requests, in the order in which they came. N of them.

    Attributes:
        poll: Messages, payloads and places.
        keys: Of the records.
        headers: Of the records; None where no record has any.
    """

    poll: Poll
    keys: list[bytes | None]
    headers: list[Headers] | None

    @staticmethod
    def of(messages: Sequence[Message]) -> "RequestPoll":
        """What a consumer gave."""
        found = list(map(Message.headers, messages))
        headers = [list(each or ()) for each in found] if any(found) else None
        return RequestPoll(
            poll=Poll.of(messages),
            keys=[_bytes(key) for key in map(Message.key, messages)],
            headers=headers,  # type: ignore[arg-type]  # the client gives names and bytes
        )


@dataclass(frozen=True, slots=True)
class ResponseBatch:
    """Responses for one partition, or -1: by key; ready for a producer's `produce_batch`."""

    topic: str
    partition: int
    messages: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Answers:
    """What one poll leads to.

    Attributes:
        scores: Responses without headers.
        others: Responses with headers, and dead letters, in order.
        offsets: Where to read on.
        requests: Requests read.
        rows: Rows scored.
        errors: Requests answered with a reason, those expired among them.
        expired: Requests whose deadline had passed.
        dead_letters: Requests that could not be answered.
        payload_bytes: Of all records to be written.
        trace: None; a request's trace ends with its answer.
    """

    scores: list[ResponseBatch]
    others: list[Outgoing]
    offsets: dict[Partition, int]
    requests: int = 0
    rows: int = 0
    errors: int = 0
    expired: int = 0
    dead_letters: int = 0
    payload_bytes: int = 0
    trace: PollTrace = NO_TRACE

    @property
    def records(self) -> int:
        """Records to be written."""
        return sum(len(batch.messages) for batch in self.scores) + len(self.others)


def _bytes(key: str | bytes | None) -> bytes | None:
    return key.encode() if isinstance(key, str) else key
