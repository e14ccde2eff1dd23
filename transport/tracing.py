"""Traces: the way of one batch through vehicle, gateway, Kafka, scorer and model server.

Where in a trace something stands is a text, the `traceparent` of W3C Trace Context, and travels as
one: in MQTT user properties, the spool, Kafka headers, HTTP headers and gRPC metadata. Only what is
sampled is followed; `tracestate` is not carried on. Nothing here needs a library: `transport.otel`
puts one behind it while traces are exported, and until then every call returns at once.

A span is named by who does what ("gateway store"). Its attributes are few and bounded.
"""

import random
import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

TRACEPARENT = "traceparent"

Attribute = str | int | float | bool
Name = str | bytes
Value = str | bytes | None
Carrier = Mapping[str, Value] | Iterable[tuple[Name, Value]]

_FORM = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_SAMPLED = 1


class Span(Protocol):
    """A piece of work that was begun."""

    @property
    def traceparent(self) -> str:
        """What its children are told."""
        ...

    def end(self, error: BaseException | None = None) -> None:
        """It is over, now; with an error when it failed."""
        ...


class Tracer(Protocol):
    """What keeps and exports spans."""

    def begin(
        self,
        name: str,
        parent: str | None,
        *,
        start_ms: float | None,
        attributes: Mapping[str, Attribute],
    ) -> Span:
        """Begin a span below `parent`; None begins a trace. `start_ms`: None is now."""
        ...


@dataclass(frozen=True, slots=True)
class Spans:
    """Spans of one piece of work that was done for several at once; as a block it ends them."""

    begun: Sequence[Span] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        for span in self.begun:
            span.end(error)


NO_SPANS = Spans()


@dataclass(slots=True)
class _Tracing:
    tracer: Tracer | None = None
    share: float = 0.0


_tracing = _Tracing()
_current: ContextVar[str | None] = ContextVar("traceparent", default=None)
_OFF: AbstractContextManager[None] = nullcontext()


def install(tracer: Tracer | None, *, sample_share: float = 0.0) -> None:
    """Have spans kept by `tracer` from now on; None: have none kept."""
    _tracing.share = sample_share
    _tracing.tracer = tracer


def is_on() -> bool:
    """Whether spans are kept; to save the work of looking for a parent."""
    return _tracing.tracer is not None


def begin(
    name: str, parent: str, *, start_ms: float | None = None, **attributes: Attribute
) -> Span | None:
    """Begin a span below one that is known; the caller ends it.

    Returns:
        None while tracing is off.
    """
    return _begin(name, parent, start_ms, attributes)


def begin_trace(
    name: str, *, start_ms: float | None = None, **attributes: Attribute
) -> Span | None:
    """Begin a trace, for the share of calls that is sampled; the caller ends its span.

    Returns:
        None for the others, and while tracing is off.
    """
    return _begin(name, None, start_ms, attributes)


def _begin(
    name: str, parent: str | None, start_ms: float | None, attributes: Mapping[str, Attribute]
) -> Span | None:
    tracer = _tracing.tracer
    if tracer is None or (parent is None and random.random() >= _tracing.share):
        return None
    return tracer.begin(name, parent, start_ms=start_ms, attributes=attributes)


def span(
    name: str, parent: str | None = None, **attributes: Attribute
) -> AbstractContextManager[Span | None]:
    """A block of work; what is begun or injected within it is below it.

    Args:
        name: Who does what.
        parent: None: the block around it, if any; else a trace begins here for the share that
            is sampled.
        attributes: Facts of the work.

    Yields:
        None where nothing is kept.
    """
    if _tracing.tracer is None:
        return _OFF
    return _block(name, parent or _current.get(), attributes)


def below(
    name: str, parent: str | None, **attributes: Attribute
) -> AbstractContextManager[Span | None]:
    """As `span`, for work that is only followed where it has a parent."""
    if _tracing.tracer is None or parent is None:
        return _OFF
    return _block(name, parent, attributes)


def served(name: str, carrier: Carrier) -> AbstractContextManager[Span | None]:
    """As `span`, for a request: below what its headers or metadata say."""
    if _tracing.tracer is None:
        return _OFF
    return _block(name, extract(carrier), {})


def begin_served(name: str, carrier: Carrier) -> Span | None:
    """As `served`, for work that no block holds; the caller ends the span."""
    if _tracing.tracer is None:
        return None
    return _begin(name, extract(carrier), None, {})


@contextmanager
def _block(
    name: str, parent: str | None, attributes: Mapping[str, Attribute]
) -> Iterator[Span | None]:
    begun = _begin(name, parent, None, attributes)
    if begun is None:
        yield None
        return
    with within(begun.traceparent):
        try:
            yield begun
        except BaseException as error:
            begun.end(error)
            raise
    begun.end()


@contextmanager
def within(traceparent: str | None) -> Iterator[None]:
    """A block in which `current` is this one."""
    token = _current.set(traceparent)
    try:
        yield
    finally:
        _current.reset(token)


def current() -> str | None:
    """The `traceparent` of the block that this code runs in; None outside of any."""
    return _current.get()


def inject(carrier: MutableMapping[str, str]) -> None:
    """Put the current `traceparent` into headers or metadata, if there is one."""
    traceparent = _current.get()
    if traceparent is not None:
        carrier[TRACEPARENT] = traceparent


def carried() -> tuple[tuple[str, str], ...]:
    """The current `traceparent` as metadata; empty if there is none."""
    traceparent = _current.get()
    return () if traceparent is None else ((TRACEPARENT, traceparent),)


def extract(carrier: Carrier) -> str | None:
    """The `traceparent` of headers, metadata or user properties, if there is a sampled one.

    Names are expected in lower case. What is malformed counts as absent, as W3C asks.

    Example:
        >>> extract([("seq", b"7"), ("traceparent", b"00-%s-%s-01" % (b"a" * 32, b"b" * 16))])
        '00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb-01'
    """
    pairs: Iterable[tuple[Name, Value]]
    # A gateway asks for every message, and asking for an abstract class is dear.
    if type(carrier) is not list and isinstance(carrier, Mapping):
        pairs = carrier.items()
    else:
        pairs = carrier
    for name, value in pairs:
        if name in (TRACEPARENT, b"traceparent"):
            text = value.decode("latin-1") if isinstance(value, bytes) else value or ""
            return text if is_sampled(text) else None
    return None


def is_sampled(traceparent: str) -> bool:
    """Whether it is a sound one of a trace that is to be kept."""
    return bool(_FORM.fullmatch(traceparent)) and bool(int(traceparent[-2:], 16) & _SAMPLED)
