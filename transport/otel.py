"""OpenTelemetry behind `transport.tracing`; the only module that imports it.

Spans wait in memory until they are exported: what a process that is killed had not sent is missing
from its traces, while those below it are there. With the exporter `file` each span is written when
it ends.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SimpleSpanProcessor,
)
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from schemas.errors import SettingsError
from transport.settings import TracingSettings
from transport.tracing import Attribute, install

QUEUE_SPANS_MAX = 8_192
"""Spans that wait for the collector; beyond it new ones are dropped."""

SEND_S = 1.0
"""Longest time that a span waits for others to be sent with."""

SEND_TIMEOUT_S = 5.0
"""Longest time for one request to the collector."""


@contextmanager
def exported(settings: TracingSettings, service: str) -> Iterator[None]:
    """Keep spans and export them as the settings say, until the block ends.

    Args:
        settings: Where to; an exporter other than 'off'.
        service: What this process is called, where the settings do not say.

    Raises:
        SettingsError: The file cannot be written.
    """
    with ExitStack() as open_files:
        processor = _processor(settings, open_files)
        resource = Resource.create({SERVICE_NAME: settings.service_name or service})
        # What is asked to be begun was sampled already.
        provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False)
        provider.add_span_processor(processor)
        install(OtelTracer(provider), sample_share=settings.sample_share)
        try:
            yield
        finally:
            install(None)
            provider.shutdown()


class OtelTracer:
    """A `transport.tracing.Tracer`."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("motorcade")

    def begin(
        self,
        name: str,
        parent: str | None,
        *,
        start_ms: float | None,
        attributes: Mapping[str, Attribute],
    ) -> "OtelSpan":
        """Begin a span."""
        context = None if parent is None else set_span_in_context(_remote(parent))
        start_ns = None if start_ms is None else round(start_ms * 1_000_000)
        return OtelSpan(
            self._tracer.start_span(name, context, attributes=attributes, start_time=start_ns)
        )


class OtelSpan:
    """A `transport.tracing.Span`."""

    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        self._span = span

    @property
    def traceparent(self) -> str:
        """What its children are told."""
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def end(self, error: BaseException | None = None) -> None:
        """It is over."""
        if error is not None:
            self._span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
        self._span.end()


def _remote(traceparent: str) -> NonRecordingSpan:
    _, trace_id, span_id, flags = traceparent.split("-")
    return NonRecordingSpan(
        SpanContext(
            int(trace_id, 16),
            int(span_id, 16),
            is_remote=True,
            trace_flags=TraceFlags(int(flags, 16)),
        )
    )


def _processor(settings: TracingSettings, open_files: ExitStack) -> SpanProcessor:
    if settings.exporter == "otlp":
        return BatchSpanProcessor(
            OTLPSpanExporter(settings.endpoint, timeout=SEND_TIMEOUT_S),
            max_queue_size=QUEUE_SPANS_MAX,
            schedule_delay_millis=SEND_S * 1000,
        )
    out = sys.stderr
    if settings.exporter == "file":
        try:
            settings.file.parent.mkdir(parents=True, exist_ok=True)
            out = open_files.enter_context(settings.file.open("a", encoding="utf-8"))
        except OSError as error:
            raise SettingsError(f"tracing.file: {settings.file}: {error.strerror}") from error
    return SimpleSpanProcessor(ConsoleSpanExporter(out=out, formatter=_line))


def _line(span: ReadableSpan) -> str:
    return str(span.to_json(indent=None)) + "\n"
