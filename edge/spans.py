"""Spans of the rows that are traced, which are few; for the others this costs nothing."""

from typing import TypeVar

from edge.rows import StoredTelemetry, Telemetry
from transport import tracing
from transport.tracing import NO_SPANS, Spans

R = TypeVar("R", Telemetry, StoredTelemetry)


def begin_spans(name: str, rows: list[R], *, since_receipt: bool = False) -> tuple[list[R], Spans]:
    """Begin a span for each traced row.

    Args:
        name: What is done with the rows.
        rows: All of a batch.
        since_receipt: The work began when a row was received, not now.

    Returns:
        The rows, the traced ones now below their span, and the spans, which the caller ends.
        While tracing is off the rows are as they were, so that a trace passes through.
    """
    if not tracing.is_on():
        return rows, NO_SPANS
    rows = list(rows)
    begun = []
    for index, row in enumerate(rows):
        if row.traceparent is None:
            continue
        start_ms = row.received_ms if since_receipt else None
        span = tracing.begin(
            name, row.traceparent, start_ms=start_ms, vehicle_id=row.vehicle_id, seq=row.seq
        )
        if span is not None:
            begun.append(span)
            rows[index] = row._replace(traceparent=span.traceparent)
    return rows, Spans(begun)
