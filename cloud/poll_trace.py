"""Spans of the messages of a poll that carry a trace: consumed, scored, produced.

Reading the headers of a message is dear, so they are looked at only while traces are kept. A poll
is scored and written as one, so the spans of its traced messages have the same times; what is
asked of others meanwhile, say of a model server, is below the first of them.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from transport import tracing
from transport.kafka import Header, Message
from transport.tracing import NO_SPANS, TRACEPARENT, Span, Spans

TRACED_MAX = 100
"""Messages of a poll that are followed; further ones are scored and not followed."""


@dataclass(frozen=True, slots=True, eq=False)
class PollTrace:
    """The spans of one poll, by the number of the message in it."""

    consumed: Mapping[int, Span] = field(default_factory=dict)
    scored: dict[int, Span] = field(default_factory=dict)

    @staticmethod
    def of(messages: Sequence[Message]) -> "PollTrace":
        """Begin a span for each message that carries a trace."""
        if not tracing.is_on():
            return NO_TRACE
        begun: dict[int, Span] = {}
        for number, headers in enumerate(map(Message.headers, messages)):
            if not headers or TRACEPARENT not in dict(headers):
                continue
            span = _consumed(messages[number], headers)
            if span is not None:
                begun[number] = span
            if len(begun) >= TRACED_MAX:
                break
        return PollTrace(begun) if begun else NO_TRACE

    @contextmanager
    def scoring(self) -> Iterator[None]:
        """The block in which the poll is scored."""
        if not self.consumed:
            yield
            return
        for number, above in self.consumed.items():
            span = tracing.begin("scorer score", above.traceparent)
            if span is not None:
                self.scored[number] = span
        first = next(iter(self.scored.values()), None)
        with (
            Spans(tuple(self.scored.values())),
            tracing.within(first.traceparent if first else None),
        ):
            yield

    @contextmanager
    def producing(self) -> Iterator[None]:
        """The block in which its transaction is written and committed, the last of all."""
        begun = [
            span
            for above in self.consumed.values()
            if (span := tracing.begin("scorer produce", above.traceparent)) is not None
        ]
        with Spans(tuple(self.consumed.values())), Spans(begun):
            yield

    def headers(self, number: int) -> Sequence[Header]:
        """Of a record that message `number` led to."""
        span = self.scored.get(number)
        return () if span is None else ((TRACEPARENT, span.traceparent.encode()),)


NO_TRACE = PollTrace()


def _consumed(message: Message, headers: tracing.Carrier) -> Span | None:
    parent = tracing.extract(headers)
    if parent is None:
        return None
    return tracing.begin(
        "scorer consume",
        parent,
        topic=message.topic() or "",
        partition=message.partition() or 0,
        offset=message.offset() or 0,
    )


def answering(headers: Sequence[Sequence[Header]] | None) -> AbstractContextManager[object]:
    """The block in which a poll of requests is answered: a span for each that carries a trace.

    Args:
        headers: Of each request; None: none has any.
    """
    if headers is None or not tracing.is_on():
        return NO_SPANS
    parents = itertools.islice(filter(None, map(tracing.extract, headers)), TRACED_MAX)
    begun = [tracing.begin("kafka answer", parent) for parent in parents]
    return Spans([span for span in begun if span is not None])
