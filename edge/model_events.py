"""What becomes of models at a gateway, as rows of the priority lane: `model.events` tells it."""

from edge.rows import Kind, Priority
from schemas.records import encode_single_object
from scoring.events import EventKind, ModelEvent, Severity

DETAIL_CHARACTERS_MAX = 2_000

_SEVERITY = {
    EventKind.EDGE_INSTALLED: Severity.INFO,
    EventKind.EDGE_REFUSED: Severity.WARNING,
    EventKind.EDGE_ROLLED_BACK: Severity.CRITICAL,
}


def event_row(
    kind: EventKind,
    *,
    model_name: str,
    version: str | None,
    detail: str,
    gateway_id: str,
    now_ms: int,
    severity: Severity | None = None,
) -> Priority:
    """The row of an event.

    Args:
        kind: One of the gateway's.
        model_name: Of the model.
        version: Of it; None or empty where it could not be read.
        detail: In a sentence.
        gateway_id: Who says so.
        now_ms: When, by the gateway's clock.
        severity: Where it is not the usual one of its kind.
    """
    event = ModelEvent(
        kind,
        model_name,
        detail[:DETAIL_CHARACTERS_MAX],
        gateway_id,
        now_ms,
        model_version=version or None,
        severity=severity or _SEVERITY[kind],
    )
    payload = encode_single_object("ModelEvent", event.to_record())
    return Priority(Kind.EVENT, model_name, now_ms, payload)
