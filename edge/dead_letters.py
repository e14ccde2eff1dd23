"""Dead letters of a gateway: the message whole, with the reason."""

from collections.abc import Sequence

from edge.rows import Kind, Priority
from schemas.errors import ContractError
from schemas.records import encode_single_object
from schemas.topics import RELEASES
from scoring.bundle import Bundle
from transport.metrics import DEAD_LETTERS

PAYLOAD_BYTES_MAX = 256 * 1024
"""A longer payload is cut in its dead letter, which still says how long it was."""

ERROR_CHARACTERS_MAX = 2_000


def dead_letter(
    error: ContractError,
    *,
    component_id: str,
    failed_ms: int,
    topic: str,
    key: str | None,
    headers: Sequence[tuple[str, bytes | None]],
    payload: bytes | None,
    partition: int = -1,
    offset: int = -1,
    model_version: str | None = None,
    payload_kept: bool = True,
) -> Priority:
    """The row of the priority lane for a message that was refused.

    Args:
        error: Why.
        component_id: Id of the gateway.
        failed_ms: When, by the gateway's clock.
        topic: MQTT or Kafka topic it came from.
        key: Vehicle that it came from; None when unknown.
        headers: User properties or Kafka headers.
        payload: All of it; cut to PAYLOAD_BYTES_MAX here.
        partition: -1 for MQTT.
        offset: -1 for MQTT.
        model_version: Of the model that was refused, or that failed.
        payload_kept: Whether the letter holds the payload, not only its length.
    """
    DEAD_LETTERS.add(component="gateway", reason=error.reason.value)
    record = {
        "reason": error.reason.value,
        "error": error.detail[:ERROR_CHARACTERS_MAX],
        "component": "gateway",
        "component_id": component_id,
        "failed_time": failed_ms,
        "model_version": model_version,
        "topic": topic,
        "partition": partition,
        "offset": offset,
        "key": None if key is None else key.encode(),
        "headers": [{"name": name, "value": value} for name, value in headers],
        "payload": payload[:PAYLOAD_BYTES_MAX] if payload is not None and payload_kept else None,
        "payload_bytes": 0 if payload is None else len(payload),
    }
    return Priority(Kind.DEAD_LETTER, key, failed_ms, encode_single_object("DeadLetter", record))


def refused_bundle(
    bundle: Bundle, error: ContractError, *, gateway_id: str, now_ms: int
) -> Priority:
    """The row for a model that was read, but does not work here."""
    return dead_letter(
        error,
        component_id=gateway_id,
        failed_ms=now_ms,
        topic=RELEASES.name,
        key=f"{bundle.manifest.name}/{bundle.manifest.version}",
        headers=(("sha256", bundle.manifest.model_sha256.encode()),),
        payload=encode_single_object("ModelRelease", bundle.to_record()),
        model_version=bundle.manifest.version,
    )
